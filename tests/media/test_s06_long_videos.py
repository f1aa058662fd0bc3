"""Too many frames are refused before any of them is decoded, in memory that does not grow with the file."""

from fractions import Fraction

import av
import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, open_video, resolve
from avllm.media.container import open_container
from tests.media.make import HEIGHT, WIDTH, coded, joined
from tests.media.measured import linux_only, measured


def slow(path, seconds: int):
    """One picture a second, for hours: the same packet again and again."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
        packets += stream.encode(None)
        for second in range(seconds):
            packets[0].pts = packets[0].dts = second
            packets[0].time_base, packets[0].stream = Fraction(1), stream
            out.mux(packets[0])
    return path


@linux_only
@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_s06_ten_hours_at_one_frame_per_second_are_refused_before_decoding(tmp_path, name):
    path = slow(tmp_path / name, 36_000)
    calls = [
        ("open_video", path, {"sampling": {"num_frames": 10_000}, "limits": {"seconds": 1e9}}),
        ("open_video", path, {"sampling": {"num_frames": 8}}),
    ]
    for (grown_mb, outcome), name in zip(measured(calls), ("Limits.frames", "Limits.seconds"), strict=True):
        assert name in outcome
        assert grown_mb < 50


def test_s06_no_frame_is_decoded_of_what_is_refused(tmp_path, monkeypatch):
    from avllm.media import frame_readers

    path = slow(tmp_path / "a.mp4", 20)
    assert len(open_video(path, Sampling(num_frames=20), limits=Limits(frames=20))) == 20
    monkeypatch.setattr(frame_readers, "decoded", lambda *args: pytest.fail("decoded a frame"))
    for limits in (Limits(frames=19), Limits(seconds=19), Limits(video_bytes=20 * 64 * 48 * 3 - 1)):
        with pytest.raises(MediaError, match=r"^a\.mp4: .* or raise Limits\."):
            open_video(path, Sampling(num_frames=20), limits=limits)


@pytest.mark.parametrize("suffix", [".ts", ".h264"])
def test_s06_a_stream_that_grows_midway_is_refused(tmp_path, suffix):
    with av.open(str(tmp_path / f"large{suffix}"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 2048, 1152, "yuv420p"
        for _ in range(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((1152, 2048, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    small = coded(tmp_path / f"small{suffix}", "libx264", 12, options={"preset": "ultrafast"})
    path = joined(tmp_path / f"grows{suffix}", small, tmp_path / f"large{suffix}")

    for count in (4, 12, 16):
        with pytest.raises(MediaError, match="2048x1152 has 2359296 pixels"):
            open_video(path, Sampling(num_frames=count), size=(48, 64), limits=Limits(pixels=HEIGHT * WIDTH))
    assert len(open_video(path, Sampling(num_frames=16), size=(48, 64), limits=Limits(pixels=2048 * 1152))) == 16


def test_s06_decoders_have_the_limit_themselves(tmp_path):
    """Far over it FFmpeg's own check comes first: no memory for such a frame is taken."""
    path = coded(tmp_path / "a.h264", "libx264", 12, options={"preset": "ultrafast"})
    with open_container(resolve(path), Limits(pixels=1000)) as container:
        stream = container.streams.video[0]
        assert int(stream.codec_context.options["max_pixels"]) < 5_000_000
        stream.codec_context.options = {**stream.codec_context.options, "max_pixels": "1000"}
        with pytest.raises(av.FFmpegError):
            _ = [packet.decode() for packet in container.demux(stream)]
