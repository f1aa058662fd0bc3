"""A decoder that is not trusted is never opened: neither by us nor by FFmpeg, which decodes while it opens a file."""

import io
from contextlib import contextmanager

import av
import numpy as np
import pytest
from av import logging as ffmpeg_log

from avllm.errors import MediaError
from avllm.media import Sampling, open_audio, open_video, probe
from avllm.media.container import _AUDIO_DECODERS, _TRUSTED, _VIDEO_DECODERS
from tests.media.make import clip, coded, sounding, tone


@contextmanager
def listening():
    """What the decoder of JPEG 2000 says meanwhile, but that it was not let in."""
    heard: list[str] = []
    ffmpeg_log.set_level(ffmpeg_log.DEBUG)
    ffmpeg_log.set_skip_repeated(False)
    try:
        with ffmpeg_log.Capture(local=False) as logs:
            yield heard
        heard += [message for _, name, message in logs if name == "jpeg2000" and "whitelist" not in message]
    finally:
        ffmpeg_log.set_level(None)


def jpeg2000(path, *, is_damaged: bool = True):
    """A film whose decoder complains as soon as it looks at a frame."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("jpeg2000", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    if is_damaged:
        path.write_bytes(path.read_bytes().replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x99"))
    return path


@pytest.mark.parametrize("name", ["a.mov", "a.mp4", "a.mkv"])
def test_no_frame_of_a_codec_that_is_not_trusted_is_decoded(tmp_path, name):
    path = jpeg2000(tmp_path / name)
    with listening() as heard:
        assert [stream.codec for stream in probe(path).streams] == ["jpeg2000"]
        for read in (open_video, open_audio):
            with pytest.raises(MediaError, match=r"'jpeg2000' is not read|no audio track"):
                read(path)
    assert heard == []


def test_the_complaint_is_heard_where_the_list_is_not_given(tmp_path):
    """Or the test above could not fail."""
    data = io.BytesIO(jpeg2000(tmp_path / "a.mov").read_bytes())
    with listening() as heard, av.open(data):
        pass
    assert heard


def test_a_sound_that_is_not_trusted_is_named(tmp_path):
    path = sounding(tmp_path / "a.wav", "adpcm_yamaha", tone(0.3, 8000), 8000)
    assert probe(path).streams[0].codec == "adpcm_yamaha"
    with pytest.raises(MediaError, match="'adpcm_yamaha' is not read"):
        open_audio(path)


def test_every_way_of_opening_gives_the_list(tmp_path, monkeypatch):
    """The decoders that are opened later, frame by frame, have it too, and the limits."""
    given = []
    real = av.open

    def recorded(*args, **options):
        container = real(*args, **options)
        given.append(options.get("options", {}))
        return container

    monkeypatch.setattr("avllm.media.container.av.open", recorded)
    for name in ("a.mp4", "a.webm"):
        path = clip(tmp_path / name, 12)
        given.clear()  # of what was written
        probe(path), open_video(path, Sampling(num_frames=2)), open_audio(path)
        assert len(given) >= 3
        for options in given:
            assert options["codec_whitelist"] == _TRUSTED
            assert options["protocol_whitelist"] == "file"
            assert {"format_whitelist", "max_pixels", "max_samples", "max_streams"} <= options.keys()


def test_the_list_has_no_decoder_of_pictures_that_are_files_and_no_script():
    names = _TRUSTED.split(",")
    assert {"h264", "hevc", "vp9", "aac", "opus", "flac", "pcm_s16le"} <= {*names}
    assert not {"jpeg2000", "libopenjpeg", "tiff", "exr", "svg", "librsvg", "ass", "smackvid"} & {*names}
    assert all(_VIDEO_DECODERS.fullmatch(name) or _AUDIO_DECODERS.fullmatch(name) for name in names)


def test_a_trusted_codec_beside_one_that_is_not_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with (
        av.open(str(jpeg2000(tmp_path / "a.mov"))) as odd,
        av.open(str(coded(tmp_path / "b.mp4", "libx264", 12))) as plain,
        av.open(str(path), "w") as out,
    ):
        tracks = [out.add_stream_from_template(source.streams.video[0]) for source in (plain, odd)]
        tracks[0].disposition, tracks[1].disposition = 1, 0
        for source, track in zip((plain, odd), tracks, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = track
                    out.mux(packet)
    assert {stream.codec for stream in probe(path).streams} == {"h264", "jpeg2000"}
    assert len(open_video(path, Sampling(num_frames=3))) == 3
