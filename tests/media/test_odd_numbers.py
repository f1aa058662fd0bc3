"""Numbers in a file that cannot be are the file's fault: one MediaError names it; odd arguments are the caller's."""

import importlib
import inspect
import struct
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, container, open_audio, open_video, probe, write_video
from avllm.media.walk import Part, Track
from tests.media.make import clip, coded, joined, numbered, numbers, plain, remux, sounding, tone

INF, NAN = float("inf"), float("nan")


def read_or_refused(read, path, *args, **options):
    """What comes out; None where a MediaError names the file. Anything else is a fault of ours."""
    try:
        return read(path, *args, **options)
    except MediaError as error:
        return None if path.name in str(error) else pytest.fail(f"{path.name} is not named: {error}")


@pytest.mark.parametrize(
    "tag",
    ["nan:inf:1e400", "1e400:00:00", "inf:inf:inf", "-1:-1:-1", "00:00:nan", "1_0:0:0", "\u0661:00:00", "a:b:c", "::"],
)
def test_a_duration_that_is_no_number_is_none(tmp_path, tag):
    path = clip(tmp_path / "a.mkv", 24)
    data, old = path.read_bytes(), b"00:00:01.000000000"
    place = data.find(old)
    assert place > 0
    new = tag.encode().ljust(len(old), b"\0")
    path.write_bytes(data.replace(old, new[: len(old)]))

    assert probe(path).duration_s == pytest.approx(1.0, abs=0.1)
    assert numbers(open_video(path, Sampling(num_frames=3))) == [0, 8, 16]
    assert open_audio(path).duration_s == pytest.approx(1.0, abs=0.1)


def stamped(path, times: list[int], base: Fraction, **options):
    """A silent film of key frames with the times that are given, undisturbed by the writer."""
    with av.open(str(path), "w", **options) as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packets = []
        for pixels in numbered(len(times)):
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels[:48, :64], format="rgb24"))
        packets += stream.encode(None)
        for packet, time in zip(packets, times, strict=True):
            packet.pts = packet.dts = time
            packet.time_base, packet.stream = base, stream
            out.mux(packet)
    return path


FAR = 2**50
TIMES = {
    "far apart": [0, FAR, 2 * FAR, 3 * FAR],
    "far from zero": [FAR, FAR + 1, FAR + 2, FAR + 3],
    "negative": [-FAR, 0, FAR, 2 * FAR],
    "one far": [0, 40, 80, FAR],
}


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.avi"])
@pytest.mark.parametrize("times", TIMES)
def test_absurd_times_are_read_or_refused(tmp_path, name, times):
    try:
        path = stamped(tmp_path / name, TIMES[times], Fraction(1, 1000))
    except av.FFmpegError:
        return  # this container cannot hold them
    for read in (probe, open_video, open_audio):
        for limits in (None, Limits(seconds=1e18)):
            read_or_refused(read, path, limits=limits)


def with_numbers(data: bytes, kind: bytes, offset: int, *values: int) -> bytes:
    place = data.find(kind) + 4 + offset
    return data[:place] + struct.pack(f">{len(values)}I", *values) + data[place + 4 * len(values) :]


ODD = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("kind", "offset"),
    [(b"mvhd", 12), (b"mdhd", 12), (b"mdhd", 16), (b"stts", 12), (b"elst", 8), (b"elst", 12), (b"elst", 16)],
)
def test_odd_clocks_of_an_mp4(tmp_path, kind, offset):
    """Time scales, lengths, steps and edits."""
    good = clip(tmp_path / "a.mp4", 12).read_bytes()
    for value in ODD:
        path = tmp_path / f"odd{value}.mp4"
        path.write_bytes(with_numbers(good, kind, offset, value))
        for read in (probe, open_video, open_audio):
            read_or_refused(read, path)


def test_odd_matrices_of_an_mp4(tmp_path):
    """The picture is turned by quarters, or shown as it is."""
    good = clip(tmp_path / "a.mp4", 12, sound=False).read_bytes()
    one = 0x10000
    for matrix in (
        (0, 0, 0, 0, 0),
        (0x7FFFFFFF,) * 5,
        (0x80000000,) * 5,
        (one, one, 0, one, one),
        (one, 0xFFFFFFFF, 0, 1, 0),
    ):
        path = tmp_path / "turned.mp4"
        path.write_bytes(with_numbers(good, b"tkhd", 40, *matrix))
        video = read_or_refused(open_video, path, Sampling(num_frames=2))
        assert video is None or len(video) == 2
        info = read_or_refused(probe, path)
        assert info is None or info.streams[0].width in (96, 128)


def test_odd_rates_of_an_avi(tmp_path):
    good = plain(tmp_path / "a.avi", 12, "mpeg4").read_bytes()
    for offset in (16, 20, 28, 32):  # scale, rate, start, length
        for value in ODD:
            data = bytearray(good)
            place = data.find(b"strh") + 8 + offset + 4
            data[place : place + 4] = struct.pack("<I", value)
            path = tmp_path / "odd.avi"
            path.write_bytes(data)
            for read in (probe, open_video):
                read_or_refused(read, path)


def test_wav_of_every_odd_kind(tmp_path):
    rng = np.random.default_rng(0)
    for bits in (0, 7, 8, 16, 24, 32, 64, 65535):
        for tag in (0, 1, 3, 7, 0xFFFE):
            for channels, rate in ((1, 16000), (0, 16000), (1, 0), (3, 7), (65535, 9)):
                head = struct.pack("<HHIIHH", tag, channels, rate, 32000, max(1, channels * bits // 8) & 0xFFFF, bits)
                data = b"RIFF" + struct.pack("<I", 1036) + b"WAVEfmt " + struct.pack("<I", 16) + head
                data += b"data" + struct.pack("<I", 1000) + rng.bytes(1000)
                with suppress(MediaError):
                    probe(data)
                with suppress(MediaError):
                    assert np.isfinite(open_audio(data).waveform).all()


def test_samples_that_are_no_sound_are_left_out_and_counted():
    samples = tone(0.5)
    samples[[100, 200, 300]] = NAN, INF, 1e30
    head = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    data = b"RIFF" + struct.pack("<I", 36 + samples.nbytes) + b"WAVEfmt " + struct.pack("<I", 16) + head
    audio = open_audio(data + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes())
    assert audio.num_damaged >= 1
    assert np.abs(audio.waveform).max() <= 64
    assert np.array_equal(audio.waveform[0, 301:], samples[301:])


def test_sound_of_64_bits(tmp_path):
    samples = (tone(0.2, 48000) * 2.0**62).astype("<i8").tobytes()
    head = struct.pack("<HHIIHH", 1, 1, 48000, 48000 * 8, 8, 64)
    data = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<I", 16) + head
    data += b"data" + struct.pack("<I", len(samples)) + samples
    assert np.abs(open_audio(data, sample_rate=48000).waveform[0] * 2 - tone(0.2, 48000)).max() < 1e-6


ODD_SAMPLINGS = [
    {"num_frames": NAN},
    {"num_frames": 2.5},
    {"num_frames": "8"},
    {"num_frames": True},
    {"num_frames": -(10**30)},
    {"max_frames": "8"},
    {"max_frames": 1.5},
    {"fps": NAN, "kind": "fps"},
    {"fps": INF, "kind": "fps"},
    {"fps": "2", "kind": "fps"},
    {"fps": 1e300, "kind": "fps_time"},
    {"fps": 1e-320, "kind": "fps_time"},
    {"fps": [2.0], "kind": "fps"},
    {"start_s": NAN},
    {"start_s": INF},
    {"start_s": "1"},
    {"end_s": NAN},
    {"end_s": "2"},
    {"start_s": -1e400},
    {"seed": "1"},
    {"kind": 3},
    {"kind": None},
]
ODD_SOUNDS = [
    {"sample_rate": 0},
    {"sample_rate": -1},
    {"sample_rate": NAN},
    {"sample_rate": INF},
    {"sample_rate": "16000"},
    {"sample_rate": 16000.5},
    {"sample_rate": 10**9},
    {"sample_rate": None},
    {"start_s": NAN},
    {"start_s": INF},
    {"start_s": "1"},
    {"end_s": NAN},
    {"end_s": [1]},
    {"start_s": -1.0},
    {"start_s": 2.0, "end_s": 1.0},
]
_WITHOUT_TYPE_CHECKS = """
import sys
import numpy as np
from avllm.errors import AvllmError
from avllm.media import Audio, Sampling, open_audio
nan, inf, waveform = float("nan"), float("inf"), np.zeros((1, 8000), np.float32)
calls = [(Sampling, (), fields) for fields in SAMPLINGS] + [(open_audio, (waveform,), fields) for fields in SOUNDS]
calls += [(Audio, (), {"waveform": waveform, "sample_rate": rate}) for rate in (0, -1, nan, inf, 0.5, 16000.5, True)]
for function, args, fields in calls:
    try:
        function(*args, **fields)
    except AvllmError as error:
        named = any(name in str(error) for name in (*fields, "sampling", "expected"))
        assert named and "\\n" not in str(error), (fields, error)
    else:
        raise SystemExit(f"{function.__name__} took {fields}")
"""


def test_odd_arguments_are_refused_by_name():
    """In a process where no annotation is checked, as in a user's."""
    code = _WITHOUT_TYPE_CHECKS.replace("SAMPLINGS", repr(ODD_SAMPLINGS)).replace("SOUNDS", repr(ODD_SOUNDS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


def test_sampling_far_beyond_a_file_is_one_line(tmp_path):
    path = clip(tmp_path / "a.mp4", 12, sound=False)
    for sampling in (
        Sampling(kind="middle", num_frames=10**15),
        Sampling(kind="linspace", num_frames=10**9),
        Sampling(start_s=1e300),
    ):
        with pytest.raises(MediaError, match=r"a\.mp4: "):
            open_video(path, sampling)
    assert len(open_video(path, Sampling(kind="fps", fps=1e6))) == 12
    assert len(open_video(path, Sampling(kind="fps_time", fps=1e-6))) == 1
    assert len(open_video(path, Sampling(end_s=1e300))) == 8


@pytest.mark.parametrize("rate", [0, -1, NAN, INF, 0.5, 16000.5, 10**12])
def test_odd_rates_of_sounds_in_memory_are_refused(rate):
    with pytest.raises(MediaError, match="Hz"):
        open_audio((rate, tone(0.5)))
    with pytest.raises(MediaError, match="Hz"):
        open_audio({"array": tone(0.5), "sampling_rate": rate})


@pytest.mark.parametrize("fps", [0, -1.0, NAN, INF])
def test_odd_rates_are_not_written(tmp_path, fps):
    with pytest.raises(MediaError, match="fps: expected a rate above 0"):
        write_video(tmp_path / "a.mp4", numbered(2), fps)
    assert not [*tmp_path.iterdir()]


def test_a_number_beyond_64_bits_is_the_files_and_a_type_error_is_ours(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", 12)
    for fault, told in ((OverflowError, MediaError), (TypeError, TypeError), (AttributeError, AttributeError)):

        def odd(*args, fault=fault):
            raise fault("int too large to convert")

        monkeypatch.setattr(importlib.import_module("avllm.media.probe"), "origin_seconds", odd)
        with pytest.raises(told, match=r"a\.mp4: holds times" if told is MediaError else "int too large"):
            probe(path)


def test_tracks_up_to_the_limit(tmp_path, monkeypatch):
    """Each costs a decoder, and FFmpeg looks for the right one among all."""

    def film(path, count: int):
        with av.open(str(path), "w") as out:
            tracks = [out.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count)]
            for track in tracks:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
                frame.sample_rate = 8000
                out.mux(track.encode(frame))
                out.mux(track.encode(None))
        return path

    most = container.MOST_TRACKS
    for name in ("a.mkv", "a.mov"):
        path = film(tmp_path / name, most)
        assert len(probe(path).streams) == most
        assert open_audio(path).duration_s == pytest.approx(0.1, abs=0.01)
        for count in (most + 1, most + 2, 300):
            path = film(tmp_path / f"many{name}", count)
            for read in (probe, open_audio, open_video):
                with pytest.raises(MediaError, match=rf"many{name}: .*more than {most} tracks"):
                    read(path)


def test_probe_opens_a_file_once(tmp_path, monkeypatch):
    path = tmp_path / "a.mkv"
    with av.open(str(clip(tmp_path / "b.mp4", 12))) as inside, av.open(str(path), "w") as out:
        template = inside.streams.video[0]
        tracks = [out.add_stream_from_template(template) for _ in range(12)]
        for packet in [p for p in inside.demux(video=0) if p.dts is not None]:
            for track in tracks:
                packet.stream = track
                out.mux(packet)
    opened, real = [], av.open
    monkeypatch.setattr(
        "avllm.media.container.av.open", lambda *args, **options: opened.append(args) or real(*args, **options)
    )
    assert len(probe(path).streams) == 12
    assert len(opened) == 1


def test_a_film_that_is_written_again_stays_when_the_second_fails(tmp_path):
    path = clip(tmp_path / "a.mp4", 12)
    before = path.read_bytes()
    with pytest.raises(MediaError, match="even sides"):
        write_video(path, [np.zeros((31, 48, 3), np.uint8)], 10.0)
    with pytest.raises(ZeroDivisionError):
        write_video(path, (np.zeros((32, 48, 3), np.uint8) if n else 1 // 0 for n in (1, 1, 0)), 10.0)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
    clip(path, 6)
    assert path.read_bytes() != before


def test_a_late_start_is_shown_where_it_is(tmp_path):
    """Shifted clocks are no damage."""
    path = remux(clip(tmp_path / "a.mp4", 24, sound=False), tmp_path / "late.mkv", shift_s=3600.0)
    assert numbers(open_video(path, Sampling(num_frames=3))) == [0, 8, 16]


def test_joined_recordings_are_no_gap(tmp_path):
    path = coded(tmp_path / "a.ts", "mpeg2video", 12, sound="mp2")
    assert open_audio(joined(tmp_path / "b.ts", path, path)).num_damaged == 0


def test_packets_without_times_are_probed():
    """A broadcast may carry pictures whose times were lost, and state no length."""
    met = importlib.import_module("avllm.media.probe")._met
    track = Track(tick=Fraction(1, 90000), num_packets=3, parts=[Part(first=0, start=-90000, end=-90000)])
    assert met(track, {"duration_s": None, "kind": "video"}, 0.0)["duration_s"] is None
    assert met(track, {"duration_s": 0.5, "kind": "video"}, 0.0)["duration_s"] == 0.0


def test_damaged_clusters_of_matroska_are_refused(tmp_path):
    path = sounding(tmp_path / "a.mka", "flac", tone(2.0, 16000), 16000)
    good = path.read_bytes()
    first = good.find(b"\x1f\x43\xb6\x75")
    rng = np.random.default_rng(0)
    for number in range(60):
        data = bytearray(good)
        for place in rng.integers(first, first + (40 if number % 2 else len(good) - first), 4):
            data[place] = rng.integers(256)
        path.write_bytes(data + (good if number % 3 == 0 else b""))
        for options in ({}, {"start_s": 1.0}):
            read_or_refused(open_audio, path, **options)


def test_tracks_that_come_up_midway_end_what_is_read(tmp_path, monkeypatch):
    """PyAV has no entry for them."""
    path = coded(tmp_path / "a.ts", "mpeg2video", 12, sound="mp2")
    whole, real = open_audio(path), inspect.unwrap(container.demuxed)

    class Changing:
        def __init__(self, inner):
            self.inner = inner

        def demux(self, streams):
            yield from self.inner.demux(streams)
            raise IndexError("array index out of range")

        def __getattr__(self, name):
            return getattr(self.inner, name)

    for module in ("container", "walk", "soundtrack", "probe"):
        place = importlib.import_module(f"avllm.media.{module}")
        monkeypatch.setattr(place, "demuxed", lambda inner, streams: real(Changing(inner), streams))
    assert probe(path).has_video
    assert open_audio(path).duration_s == pytest.approx(whole.duration_s, abs=0.1)
    assert len(open_video(path, Sampling(num_frames=4))) == 4
