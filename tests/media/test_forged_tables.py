"""An mp4 of some kilobytes that states millions of samples is refused before FFmpeg takes memory for them."""

import io
import struct
import zlib
from pathlib import Path

import pytest

from avllm.errors import MediaError
from avllm.media import open_audio, open_video, probe, tables
from tests.media.make import clip, coded, remux
from tests.media.measured import linux_only, measured

MANY = 0x05000000


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("tables") / "a.mp4", 12).read_bytes()


def forged(data: bytes, *changes: tuple[bytes, int, int], after: bytes = b"moov") -> bytes:
    """With a number of 32 bits replaced: (box, bytes after its name, the number)."""
    result = bytearray(data)
    for kind, offset, number in changes:
        place = result.find(kind, result.find(after)) + 4 + offset
        result[place : place + 4] = struct.pack(">I", number)
    return bytes(result)


def atom(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


FORGED = {
    "sizes": [(b"stsz", 4, 1), (b"stsz", 8, MANY)],
    "sizes and chunks": [(b"stsz", 4, 1), (b"stsz", 8, MANY), (b"stsc", 12, MANY)],
    "all tables": [(b"stsz", 4, 1), (b"stsz", 8, MANY), (b"stsc", 12, MANY), (b"stts", 8, MANY)],
}


def bombs(data: bytes, folder: Path) -> dict[str, Path]:
    films = {name: forged(data, *changes) for name, changes in FORGED.items()}
    films["pictures called sound"] = forged(films["all tables"], (b"stts", 12, 1))
    fragments = remux_bytes(data, folder)
    films["a run in a fragment"] = forged(fragments, (b"trun", 4, MANY), after=b"moof")
    moof = fragments.find(b"moof") - 4
    films["a fragment hidden in the data"] = _hidden(fragments, moof)
    start = data.find(b"moov") - 4
    header = forged(data, *FORGED["all tables"])[start:]
    size = int.from_bytes(header[:4])
    films["a packed header"] = data[:start] + atom(b"moov", _packed(header[:size]))
    films["a header that is called free"] = data[:start] + header[:4] + b"free" + header[8:]
    sound = coded(folder / "b.mov", "libx264", 12, sound="pcm_s16le", options={"preset": "ultrafast"}).read_bytes()
    films["chunks of plain sound"] = forged(sound, (b"stsc", 12, 0x7FFFFFFF), after=b"soun")
    paths = {}
    for number, (name, film) in enumerate(films.items()):
        paths[name] = folder / f"{number}.mp4"
        paths[name].write_bytes(film)
    return paths


def remux_bytes(data: bytes, folder: Path) -> bytes:
    (folder / "whole.mp4").write_bytes(data)
    return remux(folder / "whole.mp4", folder / "parts.mp4", movflags="frag_keyframe+empty_moov").read_bytes()


def _hidden(fragments: bytes, moof: int) -> bytes:
    """A forged fragment inside an mdat, to which the index at the end leads."""
    bad = forged(fragments[moof:], (b"trun", 4, MANY), after=b"moof")
    index = fragments.rfind(b"mfra") - 4
    return fragments[:moof] + atom(b"mdat", bad) + fragments[index:]


def _packed(header: bytes) -> bytes:
    packed = struct.pack(">I", len(header)) + zlib.compress(header)
    return atom(b"cmov", atom(b"dcom", b"zlib") + atom(b"cmvd", packed))


@linux_only
def test_forged_tables_are_refused_before_memory(mp4, tmp_path):
    paths = bombs(mp4, tmp_path)
    done = measured([("probe", path, {}) for path in paths.values()])
    for name, (grown_mb, outcome) in zip(paths, done, strict=True):
        assert outcome.startswith("refused"), name
        assert grown_mb < 60, f"{name}: {grown_mb:.0f} MB"


@pytest.mark.parametrize("name", FORGED)
def test_every_way_in_refuses_them(mp4, name):
    data = forged(mp4, *FORGED[name])
    for read in (probe, open_video, open_audio):
        with pytest.raises(MediaError, match="states more samples"):
            read(data)


def test_just_under_the_limit_is_read_and_just_over_is_not(mp4, tmp_path, monkeypatch):
    fragments = remux_bytes(mp4, tmp_path)
    for data in (mp4, fragments):
        checker = _sums(data)
        total = checker.num_in_fragments + sum(track.num_samples for track in checker.tracks)
        assert total > 12
        with monkeypatch.context() as patched:
            patched.setattr(tables, "MOST_SAMPLES", total)
            probe(data)
            patched.setattr(tables, "MOST_SAMPLES", total - 1)
            with pytest.raises(MediaError, match="states more samples"):
                probe(data)


def _sums(data: bytes):
    checker = tables._Checker(io.BytesIO(data), "a")
    checker.check()
    return checker


def test_plain_sound_of_millions_of_samples_is_no_forgery(tmp_path, monkeypatch):
    path = coded(tmp_path / "a.mov", "libx264", 12, sound="pcm_s16le", options={"preset": "ultrafast"})
    monkeypatch.setattr(tables, "MOST_SAMPLES", 12)  # of the picture alone
    assert open_audio(path).duration_s == pytest.approx(0.48, abs=0.05)


def test_many_edits_of_many_samples_are_refused(mp4):
    """Each edit may list all samples once more."""
    assert tables._MOST_EDITED < 500 * 50_000
    track = tables._Track(num_samples=50_000, num_edits=500)
    checker = tables._Checker(io.BytesIO(mp4), "a.mp4")
    checker.tracks = [track]
    with pytest.raises(MediaError, match=r"a\.mp4: states more"):
        checker._check(track.num_edits * track.num_samples <= tables._MOST_EDITED)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 40, b"\0\0\0\1moov" + b"\xff" * 30, b"\0\0\0\x08moov" * 20, b"\x1a\x45\xdf\xa3" * 9]
)
def test_what_is_no_mp4_is_left_alone(data):
    _sums(data)
