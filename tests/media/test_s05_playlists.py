"""Files that name other files or hosts: refused, and what they name is neither read nor asked for."""

import ctypes
import os
import socket
import struct
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import pytest

from avllm.errors import MediaError
from avllm.media import open_audio, open_image, open_video, probe
from tests.media.make import clip, tone
from tests.media.make import sounding as made_sound

_IN_ACCESS, _IN_OPEN = 1, 0x20
linux_only = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs inotify")


@contextmanager
def watching(folder: Path):
    """Whether anything in a folder is opened or read meanwhile, by whatever code of this machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    assert handle >= 0
    assert libc.inotify_add_watch(handle, os.fsencode(folder), _IN_ACCESS | _IN_OPEN) >= 0
    events: list[bytes] = []
    try:
        yield events
        with suppress(BlockingIOError):
            events.append(os.read(handle, 4096))
    finally:
        os.close(handle)


@pytest.fixture
def canary(tmp_path):
    (tmp_path / "secret").mkdir()
    return clip(tmp_path / "secret" / "canary.mp4", 6)


@pytest.fixture
def host():
    """A server of this machine that counts who knocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def texts(canary: Path, url: str) -> dict[str, str]:
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "hls file": hls.format(canary),
        "hls file url": hls.format(canary.as_uri()),
        "hls http": hls.format(url),
        "hls concat": hls.format(f"concat:{canary}|{canary}"),
        "hls subfile": hls.format(f"subfile,,start,0,end,0,,:{canary}"),
        "hls crypto": hls.format(f"crypto:{canary}"),
        "ffconcat": f"ffconcat version 1.0\nfile '{canary}'\nfile '{url}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {url[17:22]} RTP/AVP 96\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="x">'
        f'<Period><AdaptationSet><Representation id="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet>'
        f"</Period></MPD>",
        "imf": f'<?xml version="1.0"?><CompositionPlaylist><Asset>{canary}</Asset></CompositionPlaylist>',
        "pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{canary.as_uri()}"/></svg>',
    }


@linux_only
@pytest.mark.parametrize("suffix", [".mp4", ".wav", ".m3u8", ".png"])
def test_s05_playlists_are_refused_unread(tmp_path, canary, host, suffix):
    url = f"http://127.0.0.1:{host.getsockname()[1]}/a.ts"
    paths = {}
    for number, (name, text) in enumerate(texts(canary, url).items()):
        paths[name] = tmp_path / f"{number}{suffix}"
        paths[name].write_text(text)
    with watching(canary.parent) as events:
        for name, path in paths.items():
            for read in (probe, open_video, open_audio, open_image):
                for source in (path, path.read_bytes()):
                    with pytest.raises(MediaError) as caught:
                        read(source)
                    assert str(canary.parent) not in str(caught.value), name
    assert events == []
    with pytest.raises(BlockingIOError):
        host.accept()


@linux_only
@pytest.mark.parametrize(
    "spelling",
    [
        "concat:{path}|{path}",
        "subfile,,start,0,end,100,,:{path}",
        "crypto:{path}",
        "async:{path}",
        "cache:{path}",
        "http://127.0.0.1:{port}/a.mp4",
        "tcp://127.0.0.1:{port}",
        "rtmp://127.0.0.1:{port}/a",
        "file,http:{path}",
        "data:video/mp4,{path}",
        "pipe:0",
        "fd:0",
        "-",
    ],
)
def test_s05_names_that_are_protocols_are_names(canary, host, spelling, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with watching(canary.parent) as events:
        for read in (probe, open_video, open_audio):
            with pytest.raises(MediaError):
                read(spelling.format(path=canary, port=host.getsockname()[1]))
    assert events == []
    with pytest.raises(BlockingIOError):
        host.accept()


@linux_only
def test_s05_the_watch_sees_what_ffmpeg_opens(tmp_path, canary):
    """Or the tests above could not fail."""
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile '{canary}'\n")
    with watching(canary.parent) as events, av.open(str(tmp_path / "list.txt"), format="concat", options={"safe": "0"}):
        pass
    assert events


@linux_only
def test_s05_an_mp4_with_its_data_elsewhere_reads_nothing_there(tmp_path, canary):
    """`dref` boxes name the file that holds the samples: as a URL, or as an alias of the old Mac OS."""
    data = clip(tmp_path / "a.mp4", 6, sound=False).read_bytes()
    alias = bytes(10) + bytes([5]) + b"disk".ljust(27, b"\0") + bytes(12) + bytes([10]) + b"canary.mp4".ljust(63, b"\0")
    alias += bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    for kind, name in ((2, str(canary)), (18, canary.name)):
        text = name.encode()
        alias += struct.pack(">HH", kind, len(text)) + text + bytes(len(text) % 2)
    alias += b"\xff\xff\0\0"
    for number, (kind, body) in enumerate(((b"url ", canary.as_uri().encode() + b"\0"), (b"alis", alias))):
        path = tmp_path / f"elsewhere{number}.mp4"
        path.write_bytes(with_reference(data, kind, body))
        with watching(canary.parent) as events:
            for read in (probe, open_video, open_audio):
                try:
                    read(path)
                except MediaError:
                    continue
        assert events == []


def with_reference(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Its one data reference replaced; the header lies behind the data, so that nothing else moves."""
    old = data.find(b"url \0\0\0\1") - 4
    new = struct.pack(">I", 12 + len(body)) + kind + bytes(4) + body
    grown = len(new) - 12
    result = bytearray(data[:old] + new + data[old + 12 :])
    assert data.find(b"moov") > data.find(b"mdat") >= 0
    for parent in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = result.rfind(parent, 0, old) - 4
        result[place : place + 4] = struct.pack(">I", int.from_bytes(result[place : place + 4]) + grown)
    return bytes(result)


@linux_only
def test_s05_a_matroska_file_that_names_the_next_one_does_not_open_it(tmp_path, canary):
    path = tmp_path / "linked.mkv"
    name = str(canary).encode()
    title = "t" * (len(name) + 1)
    with av.open(str(clip(tmp_path / "a.mp4", 6))) as inside, av.open(str(path), "w") as out:
        out.metadata["title"] = title
        track = out.add_stream_from_template(inside.streams.video[0])
        for packet in inside.demux(video=0):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)
    data, size = path.read_bytes(), bytes([0x80 | len(title)])
    as_title = b"\x7b\xa9" + size + title.encode()
    assert len(title) < 127
    assert as_title in data
    path.write_bytes(data.replace(as_title, b"\x3e\x83\xbb" + bytes([0x80 | len(name)]) + name))
    with watching(canary.parent) as events:
        assert probe(path).has_video
        assert len(open_video(path)) == 6
    assert events == []


def test_s05_a_sound_is_no_playlist(tmp_path):
    """The refusal is one of formats, not of files whose text happens to be in them."""
    assert open_audio(made_sound(tmp_path / "http:a.wav", "pcm_s16le", tone(0.2), 16000)).duration_s > 0.1
