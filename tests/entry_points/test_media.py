"""Every entry point for media goes through the same limits: just under passes, just over is refused before memory."""

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avllm.chat import assistant
from avllm.errors import AvllmError
from avllm.media import Limits, write_video
from tests.entry_points.media import ENTRIES, KINDS, Entry

SIDE, RATE, SECONDS = 64, 8000, 2
CASES = [(entry, kind) for entry in ENTRIES for kind in entry.kinds]
LOOKING = [(entry, kind) for entry, kind in CASES if entry.decodes]
# What a decoder of the file that is over the limit would take: 192 MiB of pixels, 660 MiB of samples.
MOST_GROWTH = 64 * 2**20


@pytest.fixture(scope="module")
def under(tmp_path_factory) -> dict[str, Path]:
    """A small file of each kind."""
    folder = tmp_path_factory.mktemp("under")
    frames = np.random.default_rng(0).integers(0, 255, (8, SIDE, SIDE, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", frames, fps=4)
    (folder / "picture.png").write_bytes(black_png(SIDE, SIDE))
    write_silence(folder / "sound.wav", SECONDS * RATE)
    return {KINDS[path.suffix]: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def over(tmp_path_factory, under) -> dict[str, Path]:
    """A picture of a row too many, and a sound of a second too many, in small files; the video is as it was."""
    folder, limits = tmp_path_factory.mktemp("over"), Limits()
    side = int(limits.pixels**0.5)
    (folder / "picture.png").write_bytes(black_png(side, limits.pixels // side + 1))
    write_silence(folder / "sound.wav", int(limits.seconds + 1) * RATE)
    return {"video": under["video"]} | {KINDS[path.suffix]: path for path in folder.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """One nano for all entries."""
    with pytest.MonkeyPatch.context() as patch:
        nano = assistant.load_model("nano")
        patch.setattr(assistant, "load_model", lambda *args, **options: nano)
        yield


def black_png(width: int, height: int) -> bytes:
    """A picture of one bit a pixel, which is small as a file and large as pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes(-(-width // 8) + 1) * height, 1)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def write_silence(path: Path, num_samples: int) -> None:
    """A WAV of one byte a sample, whose samples take no room on the disk."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE, 1, 8)
    head = struct.pack("<4sI4s", b"RIFF", 36 + num_samples, b"WAVE") + form + struct.pack("<4sI", b"data", num_samples)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + num_samples)


def each(cases):
    return pytest.mark.parametrize(("entry", "kind"), cases, ids=[f"{entry.name}-{kind}" for entry, kind in cases])


def complaint(entry: Entry, medium: Path, folder: Path) -> str:
    """What an entry point says against a medium; nothing if it takes it."""
    try:
        told = entry.use(medium, folder)
    except AvllmError as error:
        return str(error)
    return told if isinstance(told, str) else ""


def lower(patch: pytest.MonkeyPatch, **limits: float) -> None:
    """Other limits than the usual ones, for everything that does not say its own."""
    usual = Limits.__init__
    patch.setattr(Limits, "__init__", lambda self, **given: usual(self, **{**limits, **given}))


@each(CASES)
def test_just_under_the_limits_passes(entry, kind, under, tmp_path, monkeypatch):
    size = under[kind].stat().st_size
    lower(monkeypatch, file_bytes=size, pixels=SIDE * SIDE, seconds=float(SECONDS))

    assert complaint(entry, under[kind], tmp_path) == ""


@each(CASES)
def test_a_file_of_a_byte_too_many_is_refused_unopened(entry, kind, under, tmp_path, monkeypatch):
    lower(monkeypatch, file_bytes=under[kind].stat().st_size - 1)
    for module, name in ((av, "open"), (Image, "open")):
        monkeypatch.setattr(module, name, lambda *args, **options: pytest.fail("it was opened"))

    assert "Limits.file_bytes" in complaint(entry, under[kind], tmp_path)


@each(LOOKING)
def test_what_is_larger_within_than_the_limits_is_refused_before_memory(
    entry, kind, under, over, tmp_path, monkeypatch
):
    if kind == "video":
        lower(monkeypatch, pixels=SIDE * SIDE - 1)
    before = peak_memory(reset=True)

    told = complaint(entry, over[kind], tmp_path)

    assert ("Limits.seconds" if kind == "audio" else "Limits.pixels") in told
    assert peak_memory() - before < MOST_GROWTH


def peak_memory(*, reset: bool = False) -> int:
    """Bytes that this process has held at most; since now, after a reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
