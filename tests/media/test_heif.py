"""Photos of phones: tiles put together, turned and cut as the file says, and nothing of what is hidden in them."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
from PIL import Image

from avllm.chat.ask import kind_of
from avllm.errors import MediaError
from avllm.media import Limits, open_image, open_video, probe
from avllm.media.boxes import HeifItems
from avllm.media.heif import read_heif
from tests.media.make_heif import Item, box, full, grid_item, heif, picture_item, size_of

TILE = 64
ROWS, COLUMNS = 2, 3
SIZE = 170, 100  # (w, h): the last tiles are cut


def gradient(height: int, width: int) -> np.ndarray:
    """A picture that no turn leaves as it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, 2 * y, x // 2 + y], axis=2).astype(np.uint8)


WHOLE = gradient(ROWS * TILE, COLUMNS * TILE)
SHOWN = WHOLE[: SIZE[1], : SIZE[0]]


@pytest.fixture(scope="module")
def tiles():
    corners = [(top * TILE, left * TILE) for top in range(ROWS) for left in range(COLUMNS)]
    return [picture_item(WHOLE[y : y + TILE, x : x + TILE], hidden=True) for y, x in corners]


def photo(tiles: list[Item], *changes: bytes, others: tuple[Item, ...] = (), **recipe) -> bytes:
    count = len(tiles)
    grid = grid_item(recipe.get("rows", ROWS), COLUMNS, recipe.get("size", SIZE), [*range(1, count + 1)], *changes)
    return heif([*tiles, grid, *others], count + 1)


def irot(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def imir(mode: int) -> bytes:
    return box(b"imir", bytes([mode]))


def clap(width: int, height: int, right: int, down: int) -> bytes:
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, 1, down, 1))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ((), SHOWN),
        ((irot(1),), np.rot90(SHOWN)),
        ((irot(3), imir(0)), np.rot90(SHOWN, k=3)[::-1]),
        ((imir(1),), SHOWN[:, ::-1]),
        ((clap(100, 60, 5, -10), irot(2)), SHOWN[10:70, 40:140][::-1, ::-1]),
    ],
    ids=["plain", "turned", "turned and mirrored", "mirrored", "cut"],
)
def test_a_grid_is_put_together_and_turned(tiles, tmp_path, changes, shown):
    data = photo(tiles, *changes)
    picture = open_image(data).frames[0]

    assert picture.shape == shown.shape
    assert np.abs(picture.astype(int) - shown).max() <= 4
    assert np.array_equal(open_video(data).frames[0], picture)
    stream = probe(data).streams[0]
    assert (stream.kind, stream.height, stream.width) == ("image", *shown.shape[:2])
    assert kind_of(data) == "image"
    if shutil.which("heif-convert"):
        (tmp_path / "a.heic").write_bytes(data)
        subprocess.run(["heif-convert", tmp_path / "a.heic", tmp_path / "a.png"], check=True, capture_output=True)
        theirs = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
        assert np.abs(picture.astype(int) - theirs).max() <= 3


def test_hidden_pictures_are_not_shown(tiles):
    alien = np.full((TILE, TILE, 3), 255, np.uint8)
    thumbnail = picture_item(alien, references={b"thmb": [len(tiles) + 1]})
    depth_kind = full(b"auxC", 0, 0, b"urn:mpeg:hevc:2015:auxid:2\0")
    depth = picture_item(alien, depth_kind, references={b"auxl": [len(tiles) + 1]})

    assert np.array_equal(open_image(photo(tiles, others=(thumbnail, depth))).frames, open_image(photo(tiles)).frames)


def test_transparency_is_white():
    colours, alpha = np.full((TILE, TILE, 3), 40, np.uint8), np.zeros((TILE, TILE, 3), np.uint8)
    alpha[:, 32:] = 255
    kind = full(b"auxC", 0, 0, b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
    full_range = box(b"colr", b"nclx", struct.pack(">HHHB", 2, 2, 2, 0))
    data = heif([picture_item(colours), picture_item(alpha, kind, full_range, references={b"auxl": [1]})], 1)

    picture = open_image(data).frames[0]
    assert picture[:, :28].min() >= 253
    assert np.abs(picture[:, 36:].astype(int) - 40).max() <= 3
    beneath = open_image(data, drops_transparency=True).frames[0]
    assert np.abs(beneath.astype(int) - 40).max() <= 3


def test_what_is_not_read_is_named(tiles):
    overlay = Item(b"iovl", bytes(20), [size_of(*SIZE)], {b"dimg": [1]})
    with pytest.raises(MediaError, match="a picture of the kind 'iovl', which is not read"):
        open_image(heif([tiles[0], overlay], 2))
    with pytest.raises(MediaError, match="a picture with the property 'xyz9', which is not read"):
        open_image(photo(tiles, box(b"xyz9", bytes(4))))


def test_a_turn_that_says_nothing_is_damage(tiles):
    for kind in (b"irot", b"imir", b"clap"):
        with pytest.raises(MediaError, match="damaged"):
            open_image(photo(tiles, box(kind)))


def test_a_broken_grid_is_refused_before_it_is_made(tiles):
    with pytest.raises(MediaError, match=r"2 x 3 tiles are stated, 5 are there"):
        open_image(photo(tiles[:5]))
    with pytest.raises(MediaError, match=r"tiles of 64x64 do not make the stated picture of 900x100"):
        open_image(photo(tiles, size=(900, 100)))
    with pytest.raises(MediaError, match=r"170x100 has 17000 pixels, the limit is 16999"):
        open_image(photo(tiles), limits=Limits(pixels=16_999))
    open_image(photo(tiles), limits=Limits(pixels=17_000))


def test_changed_and_missing_bytes(tiles):
    rng, good = np.random.default_rng(0), photo(tiles)
    for number in range(60):
        data = bytearray(good)
        if number % 3 == 0:
            data = data[: rng.integers(30, len(data))]
        for _ in range(number % 3):
            data[rng.integers(12, 900)] = rng.integers(256)
        try:
            open_image(bytes(data))
        except MediaError:  # and no other
            continue


def test_a_grid_of_avif_tiles(tmp_path):
    tiles = []
    for left in (0, TILE):
        file = io.BytesIO()
        Image.fromarray(WHOLE[:TILE, left : left + TILE]).save(file, "AVIF", quality=100, subsampling="4:4:4")
        items = HeifItems(file, "tile")
        kept = [box(p.kind.encode(), p.body) for p in items.primary.properties]
        tiles.append(Item(b"av01", items.data(items.primary, 1 << 20), kept, hidden=True))
    grid = grid_item(1, 2, (2 * TILE - 20, TILE), [1, 2], box(b"pixi", bytes([0, 0, 0, 0, 3, 8, 8, 8])))
    data = heif([*tiles, grid], 3)
    truth = WHOLE[:TILE, : 2 * TILE - 20].astype(int)

    assert np.abs(read_heif(io.BytesIO(data), "a", Limits()) - truth).max() <= 6
    avif = data.replace(b"heic", b"avif")
    assert np.abs(open_image(avif).frames[0] - truth).max() <= 6
