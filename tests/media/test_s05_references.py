"""Files that name other files or servers are refused, whatever they are called and however they are handed over."""

import io
import os
import socket
import struct
from contextlib import suppress

import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import Sampling, content_key, open_audio, open_image, open_video, probe, write_video
from tests.media.make import tone
from tests.media.make_heif import box
from tests.media.test_s03_error_texts import routes

NAMES = ("list.m3u8", "list.mp4", "list.mkv", "list.png", "list.wav", "list.heic")


@pytest.fixture
def canary(tmp_path):
    """A film of one colour, whose time of access tells whether anything read it."""
    frames = [np.full((32, 48, 3), 200, np.uint8)] * 8
    path = write_video(tmp_path / "canary.mp4", frames, 8, waveform=tone(1.0))
    (tmp_path / "canary1.png").write_bytes(b"no picture")
    for file in (path, tmp_path / "canary1.png"):
        os.utime(file, (1, 2))  # older than its change: also where times of access are kept seldom
    return path


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def playlists(canary, port: int) -> dict[str, bytes]:
    here, url = str(canary), f"http://127.0.0.1:{port}/canary.mp4"
    found = {}
    for name, target in (("file", here), ("file URL", canary.as_uri()), ("relative", canary.name), ("http", url)):
        head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
        key = f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n'
        found |= {
            f"HLS to a {name}": f"{head}{target}\n#EXT-X-ENDLIST\n".encode(),
            f"HLS with a key, to a {name}": f"{head}{key}{target}\n#EXT-X-ENDLIST\n".encode(),
            f"ffconcat to a {name}": f"ffconcat version 1.0\nfile '{target}'\n".encode(),
            f"M3U to a {name}": f"{target}\n".encode(),
            f"PLS to a {name}": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n".encode(),
            f"ASX to a {name}": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>'.encode(),
            f"SVG to a {name}": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>'.encode(),
            f"DASH to a {name}": f'<?xml version="1.0"?><MPD><BaseURL>{target}</BaseURL></MPD>'.encode(),
            f"a redirect to a {name}": b"RTSPtext" + f"\r\n{target}\r\n".encode(),
            f"a reference of QuickTime to a {name}": _reference(target),
        }
    found["SDP"] = f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n".encode()
    return found


def _reference(target: str) -> bytes:
    body = struct.pack(">I4sI", 0, b"url ", len(target)) + target.encode()
    movie = box(b"moov", box(b"rmra", box(b"rmda", box(b"rdrf", body))))
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + movie


def was_hit(listener: socket.socket) -> bool:
    try:
        listener.accept()
    except BlockingIOError:
        return False
    return True


def test_s05_no_playlist_is_followed(tmp_path, canary, server):
    num_tried = 0
    for number, (kind, data) in enumerate(playlists(canary, server.getsockname()[1]).items()):
        # Each in some forms, so that every kind meets every form by one target or another.
        handed_over = list(routes(data, tmp_path / NAMES[number % len(NAMES)]).items())
        for route, source in handed_over[number % 3 :: 3]:
            for door in (open_video, open_image, open_audio, probe):
                with pytest.raises(MediaError):
                    door(source)
            with suppress(MediaError):
                content_key(source, {})
            num_tried += 1
            assert not was_hit(server), f"{kind}, {route}"
    assert num_tried > 150
    assert canary.stat().st_atime == 1


@pytest.mark.parametrize(
    "spelling",
    [
        "concat:{path}",
        "concat:{path}|{path}",
        "concatf:{path}",
        "subfile,,start,0,end,900,,:{path}",
        "crypto:{path}",
        "async:{path}",
        "cache:{path}",
        "hls+file://{path}",
        "file,http:{path}",
        "movie={path}",
        "lavfi:movie={path}",
        "pipe:0",
        "fd:",
        "unix:{path}",
        "tcp://127.0.0.1:{port}",
        "http://127.0.0.1:{port}/a.mp4",
        "HTTP://127.0.0.1:{port}/a.mp4",
        "https://127.0.0.1:{port}/a.mp4",
        "rtmp://127.0.0.1:{port}/a",
        "ftp://127.0.0.1:{port}/a",
        "gopher://127.0.0.1:{port}/a",
        "file://127.0.0.1:{port}/a.mp4",
        "//127.0.0.1:{port}/a.mp4",
        "{folder}/canary%d.png",
        "{folder}/canary?.png",
        "{folder}/*.mp4",
    ],
)
def test_s05_a_path_is_a_path_and_never_a_protocol(tmp_path, canary, server, spelling):
    port = server.getsockname()[1]
    source = spelling.format(path=canary, folder=tmp_path, port=port)
    for given in (source, [source], {"bytes": None, "path": source}):
        for door in (open_video, open_image, open_audio, probe):
            with pytest.raises(MediaError):
                door(given)
    assert not was_hit(server)
    assert canary.stat().st_atime == 1


def test_s05_names_of_protocols_are_names_of_files(tmp_path, monkeypatch):
    """A file may be called so; it is read, and nothing else is."""
    monkeypatch.chdir(tmp_path)
    data = write_video(tmp_path / "a.mp4", [np.full((32, 48, 3), 90, np.uint8)] * 4, 8).read_bytes()
    for name in ("concat:a.mp4", "subfile,,start,0,end,9,,:a.mp4", "pipe:0", "%d.mp4", "-i", "a.mp4|b.mp4"):
        (tmp_path / name).write_bytes(data)
        assert open_video(name, Sampling(num_frames=1)).frames.shape == (1, 32, 48, 3)
        assert open_video(io.BytesIO(data), Sampling(num_frames=1)).frames.shape == (1, 32, 48, 3)
