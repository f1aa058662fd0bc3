"""Media: every container, codec, picture and sound that the makers of tests/media make, in every form of a source."""

import base64
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from avllm import media
from avllm.media import Limits, Sampling
from tests.fuzz.case import Case, Good, good_file

LIMITS = Limits(
    pixels=2048 * 2048, frames=512, seconds=3600.0, video_bytes=2**26, audio_bytes=2**26, memory_bytes=2**26
)
FORMS = ("path", "path", "path", "bytes", "file", "data URL", "mapping", "list", "folder")
SAMPLINGS = (
    Sampling(num_frames=3),
    Sampling(kind="middle", num_frames=4),
    Sampling(kind="fps", fps=2.0, max_frames=8),
    Sampling(kind="all", max_frames=6),
    Sampling(num_frames=2, start_s=0.1, end_s=0.4),
)
ARRAYS: tuple[dict[str, Any], ...] = (
    {"shape": [4, 8, 8, 3], "type": "uint8", "value": 7, "as": "array"},
    {"shape": [3, 8, 8], "type": "float32", "value": 0.5, "as": "array"},
    {"shape": [8, 8], "type": "float64", "value": 1.0, "as": "list"},
    {"shape": [2, 4000], "type": "int16", "value": 3, "rate": 16000, "as": "pair"},
    {"shape": [4000], "type": "float32", "value": 0.1, "rate": 44100.0, "as": "mapping"},
    {"shape": [4000], "type": "float32", "value": 0.1, "rate": 8000, "as": "numbers"},
)


def corpus(folder: Path) -> list[Good]:
    """Clips and sounds of a moment, small pictures, and arrays written down."""
    folder.mkdir(parents=True)
    os.environ.setdefault("SVT_LOG", "1")  # faults alone
    with _without_random_ids():
        files = {**_videos(folder), **_sounds(folder)}
    files |= _pictures() | _heifs()
    goods = [good_file(folder / "files", name, data, "media") for name, data in files.items()]
    for number, array in enumerate(ARRAYS):
        goods.append(good_file(folder / "files", f"array{number}.json", json.dumps(array).encode(), "json"))
    return goods


@contextmanager
def _without_random_ids() -> Iterator[None]:
    """Equal files on every run: Matroska and Ogg draw numbers for their tracks otherwise."""
    import av

    opened = av.open

    def open_exact(file: Any, mode: str | None = None, *args: Any, **options: Any) -> Any:
        if mode == "w":
            options["options"] = {"fflags": "+bitexact", **(options.get("options") or {})}
        return opened(file, mode, *args, **options)

    av.open = open_exact
    try:
        yield
    finally:
        av.open = opened


def _videos(folder: Path) -> dict[str, bytes]:
    from tests.media.make import coded, remux, timed
    from tests.media.test_exact_frames import CONTAINERS

    made = {}
    for suffix, (container, codecs, sound) in CONTAINERS.items():
        for codec in codecs:
            path = folder / f"{codec}.{suffix}"
            options = {"x265-params": "log-level=none:pools=none:frame-threads=1"} if codec == "libx265" else {}
            made[path.name] = coded(
                path, codec, 8, gop=4, options=options, sound=sound, sound_seconds=0.3, container=container
            ).read_bytes()
    mp4 = folder / "libx264.mp4"
    made["turned.mp4"] = remux(mp4, folder / "turned.mp4", rotation=90).read_bytes()
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    made["fragments.mp4"] = remux(mp4, folder / "fragments.mp4", **fragments).read_bytes()
    made["late.mkv"] = remux(mp4, folder / "late.mkv", shift_s=5.0).read_bytes()
    made["uneven.mp4"] = timed(folder / "uneven.mp4", [0, 40, 90, 400, 410, 900]).read_bytes()
    return made


def _sounds(folder: Path) -> dict[str, bytes]:
    from tests.media.make import sounding, tone
    from tests.media.test_exact_sound import CASES, SPARSE

    made = {}
    for case in CASES:
        name, codec = case.split()
        rate = SPARSE.get(codec, 48000)
        path = folder / f"{codec}{Path(name).suffix}"
        made[f"sound_{path.name}"] = sounding(path, codec, tone(0.3, rate), rate).read_bytes()
    return made


def _pictures() -> dict[str, bytes]:
    from PIL import Image, ImageDraw

    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    pixels[8:] //= 64
    images = [Image.fromarray(np.roll(pixels, 3 * number, axis=1)) for number in range(3)]
    first, rest = images[0], images[1:]
    ImageDraw.Draw(first).line((0, 0, 31, 23), fill="red")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a title"
    several: dict[str, Any] = {"save_all": True, "append_images": rest}
    options: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        **{f"{mode}.png": (first.convert(mode), "PNG", {}) for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")},
        "turned.png": (first, "PNG", {"exif": exif.tobytes()}),
        "moving.png": (first, "PNG", several | {"duration": 100, "loop": 0}),
        "plain.jpg": (first, "JPEG", {"exif": exif.tobytes()}),
        "steps.jpg": (first, "JPEG", {"progressive": True, "quality": 95}),
        "grey.jpg": (first.convert("L"), "JPEG", {}),
        "cmyk.jpg": (first.convert("CMYK"), "JPEG", {}),
        "several.jpg": (first, "MPO", several),
        "plain.gif": (first, "GIF", {}),
        "moving.gif": (first, "GIF", several | {"duration": [10, 500, 0], "loop": 1, "disposal": 2}),
        "plain.webp": (first, "WEBP", {"exif": exif.tobytes()}),
        "exact.webp": (first.convert("RGBA"), "WEBP", {"lossless": True}),
        "moving.webp": (first, "WEBP", several | {"duration": 100}),
        "plain.avif": (first, "AVIF", {"exif": exif.tobytes()}),
        "moving.avif": (first, "AVIF", several | {"duration": 100}),
        "plain.bmp": (first, "BMP", {}),
        "colours.bmp": (first.convert("P"), "BMP", {}),
        "plain.tiff": (first, "TIFF", {"exif": exif.tobytes()}),
        "pages.tiff": (first, "TIFF", several),
        "float.tiff": (first.convert("F"), "TIFF", {}),
        **{
            f"{how}.tiff": (first, "TIFF", {"compression": how})
            for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
        },
    }
    made = {}
    for name, (image, kind, given) in options.items():
        file = io.BytesIO()
        if "append_images" in given:  # Pillow leaves settings of one encoder in them for the next
            given = {**given, "append_images": [other.copy() for other in rest]}
        image.copy().save(file, kind, **given)
        made[name] = file.getvalue()
    return made


def _heifs() -> dict[str, bytes]:
    from tests.media.make_heif import grid_item, heif, picture_item

    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    tiles = [picture_item(pixels, hidden=True) for _ in range(2)]
    return {
        "plain.heic": heif([picture_item(pixels)], 1),
        "grid.heic": heif([*tiles, grid_item(1, 2, (120, 60), [1, 2])], 3),
    }


def calls(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that a medium may be handed to."""
    rng = case.random()
    source = _source(case, rng)
    if source is None:
        return
    sampling, size = rng.choice(SAMPLINGS), rng.choice((None, None, (16, 24)))
    rate, part = rng.choice((None, 16000)), rng.choice(((None, None), (0.05, 0.2)))

    def each(call: Callable[[Any], object]) -> Callable[[], object]:
        return lambda: call(source())

    sound = {"sample_rate": rate, "start_s": part[0], "end_s": part[1]}
    sound = {name: value for name, value in sound.items() if value is not None}
    how = rng.choice(("squash", "crop", "pad"))
    yield "resolve", each(lambda given: media.resolve(given, LIMITS))
    yield "probe", each(lambda given: media.probe(given, limits=LIMITS))
    yield "open_video", each(lambda given: media.open_video(given, sampling, size=size, resize=how, limits=LIMITS))
    yield "open_audio", each(lambda given: media.open_audio(given, limits=LIMITS, **sound))
    yield "open_image", each(lambda given: media.open_image(given, size=size, limits=LIMITS))
    yield "content_key", each(lambda given: media.content_key(given, {"limits": LIMITS, "num_frames": 3}))


def _source(case: Case, rng: Random) -> Callable[[], Any] | None:
    """Makes the source anew for each call: a path, its bytes, a list, ..., or an array as the file says."""
    if case.path.suffix == ".json":
        return _array(case.path)
    form = "path" if case.number < 0 else rng.choice(FORMS)
    data = case.path.read_bytes()
    if form == "bytes":
        return lambda: data
    if form == "file":
        return rng.choice((lambda: io.BytesIO(data), lambda: case.path.open("rb")))
    if form == "data URL":
        text = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
        return lambda: text
    if form == "mapping":
        given = rng.choice(({"bytes": data, "path": "a/b.mp4"}, {"bytes": None, "path": str(case.path)}))
        return lambda: given
    if form == "list":
        return lambda: [data, str(case.path)]
    return (lambda: case.folder) if form == "folder" else (lambda: str(case.path))


def _array(path: Path) -> Callable[[], Any] | None:
    """The array that a file describes, wherever NumPy makes one of it."""
    try:
        told = json.loads(path.read_bytes())
        if not isinstance(told, dict) or np.prod([float(side) for side in told["shape"]]) > 10**6:
            return None
        if isinstance(told["value"], str | list | dict) and len(told["value"]) > 100:
            return None  # each place would hold all of it
        array = np.full(told["shape"], told["value"]).astype(told["type"])
        rate = told.get("rate")
    except Exception:  # that is NumPy's to refuse
        return None
    match told.get("as"):
        case "list" if array.ndim:
            return lambda: list(array)
        case "numbers":
            return lambda: (rate, array.tolist())
        case "pair":
            return lambda: (rate, array)
        case "mapping":
            return lambda: {"array": array, "sampling_rate": rate}
    return lambda: array
