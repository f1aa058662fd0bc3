"""Pictures are turned and mirrored as players do, whoever says so: the container or the stream itself."""

import struct

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from avllm.media import Sampling, open_video, probe, write_video
from tests.media.make import remux

WIDTH, HEIGHT = 96, 64
COLOURS = {"R": (220, 0, 0), "G": (0, 200, 0), "B": (0, 0, 220), "W": (255, 255, 255)}
STORED = "RG/BW"  # the corners of the stored picture, row by row
# By name: the matrix a b c d of a track header, the corners as shown, turn and mirror as `probe` tells them.
ORIENTATIONS = {
    "upright": ((1, 0, 0, 1), "RG/BW", None, None),
    "quarter clockwise": ((0, 1, -1, 0), "BR/WG", -90, None),
    "half": ((-1, 0, 0, -1), "WB/GR", 180, None),
    "quarter counter-clockwise": ((0, -1, 1, 0), "GW/RB", 90, None),
    "left to right": ((-1, 0, 0, 1), "GR/WB", None, True),
    "upside down": ((1, 0, 0, -1), "BW/RG", 180, True),
    "along the diagonal": ((0, 1, 1, 0), "RB/GW", 90, True),
    "along the other": ((0, -1, -1, 0), "WG/BR", -90, True),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for row, names in enumerate(STORED.split("/")):
        for column, name in enumerate(names):
            rows, columns = slice(row * HEIGHT // 2, (row + 1) * HEIGHT // 2), slice(column * 48, column * 48 + 48)
            picture[rows, columns] = COLOURS[name]
    return write_video(tmp_path_factory.mktemp("display") / "a.mp4", [picture] * 6, 25)


def corners(picture: np.ndarray) -> str:
    """The colours in its corners, row by row."""

    def name(pixel: np.ndarray) -> str:
        return min(COLOURS, key=lambda key: np.abs(pixel.astype(int) - COLOURS[key]).sum())

    return "/".join("".join(name(picture[y, x]) for x in (4, -5)) for y in (4, -5))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_eight_matrices_of_a_track_header(tmp_path, stored, orientation):
    (a, b, c, d), shown, rotation, mirrored = ORIENTATIONS[orientation]
    data = bytearray(stored.read_bytes())
    place = data.find(b"tkhd") + 4 + 4 + 20 + 16
    data[place : place + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path = tmp_path / "b.mp4"
    path.write_bytes(data)

    frames = open_video(path, Sampling(num_frames=2)).frames
    size = (WIDTH, HEIGHT) if b else (HEIGHT, WIDTH)
    assert frames.shape[1:3] == size
    assert corners(frames[1]) == shown
    assert corners(open_video(path, Sampling(num_frames=1), size=(40, 40), resize="squash").frames[0]) == shown
    assert corners(open_video(path, Sampling(num_frames=1), size=(40, 40), resample="bicubic").frames[0]) == shown
    info = probe(path).streams[0]
    assert (info.height, info.width) == size
    assert (info.rotation, info.mirrored) == (rotation, mirrored)


@pytest.mark.parametrize(("degrees", "shown"), [(90, "GW/RB"), (180, "WB/GR"), (-90, "BR/WG")])
def test_the_projection_of_matroska(tmp_path, stored, degrees, shown):
    path = remux(stored, tmp_path / "a.mkv", rotation=degrees)
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        if frame.side_data.get("DISPLAYMATRIX") is None:
            pytest.skip("this FFmpeg writes no projection into Matroska")
    assert corners(open_video(path, Sampling(num_frames=1)).frames[0]) == shown


@pytest.mark.parametrize(("turn", "flip"), [(90, None), (180, None), (270, None), (0, "horizontal"), (90, "vertical")])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_orientation_that_a_stream_itself_states(tmp_path, stored, turn, flip, suffix):
    options = f"display_orientation=insert:rotate={turn}" + (f":flip={flip}" if flip else "")
    path = tmp_path / f"a.{suffix}"
    with av.open(str(stored)) as source, av.open(str(path), "w") as file:
        track = source.streams.video[0]
        marked = BitStreamFilterContext(f"h264_metadata={options}", track)
        copy = file.add_stream_from_template(track)
        for packet in source.demux(track):
            for changed in marked.filter(packet if packet.size else None):
                changed.stream = copy
                file.mux(changed)
    # H.265 annex D: flipped first, then turned counter-clockwise.
    rows = np.array([list(row) for row in STORED.split("/")])
    rows = rows[:, ::-1] if flip == "horizontal" else rows[::-1] if flip == "vertical" else rows
    shown = "/".join("".join(row) for row in np.rot90(rows, turn // 90))

    assert corners(open_video(path, Sampling(num_frames=1)).frames[0]) == shown
