"""Tags are counted before FFmpeg reads them, which takes as long as the square of their number."""

import contextlib
import struct

import pytest

from avllm.errors import MediaError
from avllm.media import open_audio, open_video, probe
from avllm.media.tag_counts import MOST_TAGS
from tests.media.make import clip, sounding, tone


def element(number: str, body: bytes) -> bytes:
    return bytes.fromhex(number) + struct.pack(">Q", len(body) | 1 << 56) + body


def atom(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def flac(data: bytes, count: int) -> bytes:
    texts = [b"T%d=v" % number for number in range(count)]
    body = struct.pack("<II", 0, count) + b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return data[:42] + b"\4" + len(body).to_bytes(3) + body + data[42:]


def mp3(data: bytes, count: int) -> bytes:
    texts = [b"\0T%d\0v" % number for number in range(count)]
    body = b"".join(b"TXXX" + struct.pack(">I", len(text)) + b"\0\0" + text for text in texts)
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + body + data


def wav(data: bytes, count: int) -> bytes:
    names = [b"".join(bytes([65 + number // 26**place % 26]) for place in range(4)) for number in range(count)]
    body = b"INFO" + b"".join(name + struct.pack("<I", 2) + b"v\0" for name in names)
    return data[:12] + b"LIST" + struct.pack("<I", len(body)) + body + data[12:]


def ogg(data: bytes, count: int) -> bytes:
    """The number alone: it is what is looked at."""
    place = data.find(b"OpusTags") + 8
    place += 4 + int.from_bytes(data[place : place + 4], "little")
    return data[:place] + struct.pack("<I", count) + data[place + 4 :]


def mka(data: bytes, count: int) -> bytes:
    tags = b"".join(
        element("67c8", element("45a3", b"T%d" % number) + element("4487", b"v")) for number in range(count)
    )
    segment = data.find(bytes.fromhex("18538067"))
    cluster = data.find(bytes.fromhex("1f43b675"))
    return (
        data[: segment + 4]
        + b"\x01"
        + b"\xff" * 7
        + data[segment + 12 : cluster]
        + element("1254c367", element("7373", tags))
        + data[cluster:]
    )


def chapters(data: bytes, count: int) -> bytes:
    each = (element("b6", element("73c4", struct.pack(">I", n + 1)) + element("91", bytes(8))) for n in range(count))
    body = element("1043a770", element("45b9", b"".join(each)))
    cluster = data.find(bytes.fromhex("1f43b675"))
    return mka(data, 0)[:cluster] + body + data[cluster:]


def m4a(data: bytes, count: int) -> bytes:
    text = struct.pack(">II", 1, 0) + b"v"
    items = b"".join(
        atom(b"----", atom(b"mean", bytes(4) + b"a") + atom(b"name", bytes(4) + b"T%d" % n) + atom(b"data", text))
        for n in range(count)
    )
    header = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    extra = atom(b"udta", atom(b"meta", bytes(4) + header + atom(b"ilst", items)))
    moov = data.find(b"moov") - 4
    size = int.from_bytes(data[moov : moov + 4])
    return (
        data[:moov] + struct.pack(">I", size + len(extra)) + data[moov + 4 : moov + size] + extra + data[moov + size :]
    )


KINDS = {
    "a.flac": ("flac", flac),
    "a.mp3": ("libmp3lame", mp3),
    "a.wav": ("pcm_s16le", wav),
    "a.ogg": ("libopus", ogg),
    "a.mka": ("libopus", mka),
    "b.mka": ("libopus", chapters),
    "a.m4a": ("aac", m4a),
}


@pytest.mark.parametrize("name", KINDS)
def test_more_tags_than_are_read_are_refused(tmp_path, name):
    codec, with_tags = KINDS[name]
    path = sounding(tmp_path / name, codec, tone(0.5, 48000), 48000)
    good = path.read_bytes()
    path.write_bytes(with_tags(good, 500 if name != "a.ogg" else 1))
    assert open_audio(path).duration_s > 0.4
    path.write_bytes(with_tags(good, 200_000))
    for read in (probe, open_audio, open_video):
        with pytest.raises(MediaError, match=rf"{name}: holds more than {MOST_TAGS} tags"):
            read(path)


def test_a_film_has_few_tags(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.webm"):
        assert probe(clip(tmp_path / name, 6)).has_video


@pytest.mark.parametrize("number", ["1a45dfa3", "114d9b74", "1549a966", "1c53bb6b", "ec"])
@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_an_element_longer_than_any_file_is_one_line(tmp_path, number, kind):
    path = sounding(tmp_path / "a.mka", "flac", tone(0.5, 48000), 48000)
    data = path.read_bytes()
    at = data.find(bytes.fromhex("18538067")) + 12 if number != "1a45dfa3" else 0
    path.write_bytes(data[:at] + bytes.fromhex(number) + b"\1" + (2**56 - 2).to_bytes(7) + data[at:])
    for call in (open_audio, probe):
        with contextlib.suppress(MediaError):
            call(path if kind == "file" else path.read_bytes())
