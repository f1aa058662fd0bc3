"""Whatever the container, the codec and the groups of pictures: the frames are those of a decode from the start.

AVLLM_WIDE=1 runs every codec in every container with every kind of group.
"""

import os
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import Sampling, open_audio, open_video, probe
from avllm.media.reader import WalkedReader
from tests.media.make import clip, coded, joined, number_of, numbers, played, remux

WIDE = bool(os.environ.get("AVLLM_WIDE"))

_NUMBERED = ("uniform", "middle", "half_step", "linspace", "head_tail", "interval_middle", "interval_random")
_SPANS: tuple[dict, ...] = ({}, {"start_s": 0.75}, {"start_s": 0.5, "end_s": 1.7}, {"end_s": 0.9})
SAMPLINGS = [Sampling(kind=kind, num_frames=n, seed=3) for kind in _NUMBERED for n in (1, 8, 16)]
SAMPLINGS += [Sampling(kind=kind, num_frames=5, seed=1, **span) for kind in _NUMBERED for span in _SPANS[1:]]
SAMPLINGS += [Sampling(kind=kind, fps=3.0, **span) for kind in ("fps", "fps_time") for span in _SPANS]
SAMPLINGS += [Sampling(kind="all", **span) for span in _SPANS]

X265 = "log-level=none:pools=none:frame-threads=1"
CLOSED = {"flags": "+cgop", "sc_threshold": "1000000000"}
GOPS: dict[str, dict[str, dict]] = {
    "libx264": {
        "closed": {"options": {"preset": "veryfast"}},
        "open": {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-pyramid=2"}},
        "refresh": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=2"}},
        "intra": {"gop": 1},
        "long": {"gop": 1000},
        "plain": {"options": {"bf": "0"}},
    },
    "libx265": {
        "open": {"options": {"x265-params": f"{X265}:keyint=12:open-gop=1:bframes=4"}},
        "closed": {"options": {"x265-params": f"{X265}:keyint=12:open-gop=0"}},
        "refresh": {"options": {"x265-params": f"{X265}:keyint=12:intra-refresh=1"}},
    },
    "mpeg2video": {
        "open": {"options": {"bf": "2"}},
        "closed": {"options": {"flags": "+cgop", "sc_threshold": "1000000000"}},
        "intra": {"gop": 1},
    },
    "mpeg1video": {"open": {"options": {"bf": "2"}}},
    "mpeg4": {"open": {"options": {"bf": "2"}}, "plain": {}},
    "flv": {"plain": {}},
    "wmv2": {"plain": {}},
    "mjpeg": {"intra": {}},
    "libvpx": {"closed": {"options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}}},
    "libvpx-vp9": {"closed": {"options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}}},
    "libsvtav1": {"closed": {"options": {"preset": "12"}}},
}
# By suffix: FFmpeg's name for it, the codecs that live in it, a codec of sound.
CONTAINERS: dict[str, tuple[str | None, tuple[str, ...], str | None]] = {
    "mp4": (None, ("libx264", "libx265", "mpeg4", "mpeg2video", "libvpx-vp9", "libsvtav1"), "aac"),
    "mov": (None, ("libx264", "mjpeg", "libx265"), "pcm_s16le"),
    "mkv": (None, ("libx264", "libx265", "mpeg2video", "mpeg4", "libvpx", "libsvtav1"), "aac"),
    "webm": (None, ("libvpx", "libvpx-vp9"), "libopus"),
    "avi": (None, ("libx264", "mpeg4", "mpeg2video", "mjpeg"), "libmp3lame"),
    "ts": (None, ("libx264", "libx265", "mpeg2video"), "aac"),
    "m2ts": (None, ("libx264", "mpeg2video"), "ac3"),
    "mpg": (None, ("mpeg2video", "mpeg1video"), "mp2"),
    "vob": (None, ("mpeg2video", "libx264"), "ac3"),
    "flv": (None, ("libx264", "flv"), "libmp3lame"),
    "wmv": ("asf", ("wmv2",), "libmp3lame"),
    "h264": (None, ("libx264",), None),
    "hevc": (None, ("libx265",), None),
    "m2v": ("mpeg2video", ("mpeg2video",), None),
    "m4v": ("m4v", ("mpeg4",), None),
    "ivf": (None, ("libvpx", "libvpx-vp9", "libsvtav1"), None),
}
CASES = [(suffix, codec, gop) for suffix, row in CONTAINERS.items() for codec in row[1] for gop in GOPS[codec]]
NARROW = {
    "mp4": {"libsvtav1-closed", "libx264-open", "libx264-refresh"},
    "mkv": {"libx265-open", "libx264-open"},
    "webm": {"libvpx-vp9-closed"},
    "avi": {"mjpeg-intra", "libx264-closed", "mpeg4-open", "libx264-plain"},
    "ts": {
        "libx264-intra",
        "libx264-closed",
        "mpeg2video-open",
        "libx264-open",
        "libx264-refresh",
        "libx264-long",
        "libx265-open",
        "libx265-closed",
    },
    "m2ts": {"libx264-closed"},
    "mpg": {"mpeg2video-open", "mpeg1video-open"},
    "vob": {"mpeg2video-closed", "libx264-open"},
    "flv": {"flv-plain", "libx264-closed"},
    "wmv": {"wmv2-plain"},
    "h264": {"libx264-closed"},
    "hevc": {"libx265-open"},
    "m2v": {"mpeg2video-open"},
    "ivf": {"libvpx-closed"},
}
CHOSEN = [case for case in CASES if WIDE or "-".join(case[1:]) in NARROW.get(case[0], ())]


def made(path, codec: str, gop: str, **more):
    """A clip of one case; sound is a little longer than its pictures, as it is everywhere."""
    container, _, sound = CONTAINERS[path.suffix[1:]]
    options = {"sound": sound, "sound_seconds": 2.5, "container": container, **GOPS[codec][gop], **more}
    return coded(path, codec, **options)


def check(path, fps: float = 25.0) -> None:
    """Every sampling gives the frames of a decode from the start."""
    shown = played(path)
    for sampling in SAMPLINGS:
        video = open_video(path, sampling)
        expected = sampling.indices(len(shown), fps)

        assert video.indices == expected, sampling
        assert numbers(video) == [shown[index] for index in expected], sampling
        late_s = 0.042 if path.suffix == ".avi" else 2e-3  # FFmpeg's AVI begins with a frame of twice the length
        assert video.times_s == pytest.approx(video.times_s[0] + (np.array(expected) - expected[0]) / fps, abs=late_s)
        assert video.duration_s == pytest.approx(len(shown) / fps, abs=2e-3)
        assert video.fps == pytest.approx(fps, rel=1e-3)
        assert video.num_damaged == 0


@pytest.mark.parametrize(("suffix", "codec", "gop"), CHOSEN, ids=lambda value: value)
def test_frames_are_those_of_a_decode_from_the_start(tmp_path, suffix, codec, gop):
    path = made(tmp_path / f"a.{suffix}", codec, gop)

    assert len(played(path)) == 60
    check(path)


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"] if WIDE else ["mkv", "ts", "flv"])
def test_rates(tmp_path, suffix, fps):
    check(made(tmp_path / f"a.{suffix}", "libx264", "closed", fps=fps, sound=None, count=120), float(fps))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "mov"])
def test_a_late_start(tmp_path, suffix):
    source = made(tmp_path / "a.mp4", "libx264", "open", sound=None)
    check(remux(source, tmp_path / f"late.{suffix}", shift_s=97.0))


@pytest.mark.parametrize("suffix", ["ts", "flv", "mkv", "mp4"])
def test_varying_rates_are_sampled_by_time(tmp_path, suffix):
    # 20 frames in the first second, then one frame every half second.
    times = [i * 50 for i in range(20)] + [1000 + i * 500 for i in range(19)]
    options = {"gop": 8, "times_ms": times, "options": {"preset": "veryfast"}}
    video = open_video(coded(tmp_path / f"a.{suffix}", "libx264", 39, **options), Sampling(num_frames=10))

    moments = np.array(video.indices) / video.fps
    on_screen = [int(np.searchsorted(times, moment * 1000 + 2, side="right")) - 1 for moment in moments]
    assert numbers(video) == on_screen
    assert video.times_s - video.times_s[0] == pytest.approx(np.array(times)[on_screen] / 1000, abs=2e-3)
    assert np.diff(video.times_s).max() <= 1.5  # spread over all ten seconds, not crowded into the first


def cut_by_an_edit_list(path, source, skipped: int):
    """The same mp4, whose edit list leaves out frames at the start, though not all that are needed for the others."""
    data = bytearray(source.read_bytes())
    place = data.find(b"elst")
    assert int.from_bytes(data[place + 8 : place + 12]) == 1  # one edit: duration in 1/1000 s, start in ticks
    duration, start = (int.from_bytes(data[place + n : place + n + 4]) for n in (12, 16))
    data[place + 12 : place + 16] = (duration - skipped * 40).to_bytes(4)
    data[place + 16 : place + 20] = (start + skipped * 512).to_bytes(4)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("skipped", [1, 5, 20])
def test_edit_lists(tmp_path, skipped):
    path = cut_by_an_edit_list(tmp_path / "b.mp4", made(tmp_path / "a.mp4", "libx264", "closed", sound=None), skipped)

    assert played(path) == list(range(skipped, 60))
    check(path)


def test_fragments(tmp_path):
    source = made(tmp_path / "a.mp4", "libx264", "closed")
    check(remux(source, tmp_path / "b.mp4", movflags="frag_keyframe+empty_moov"))
    flags = "frag_keyframe+empty_moov+default_base_moof"
    check(remux(source, tmp_path / "c.mp4", movflags=flags, frag_duration="200000"))


def test_matroska_without_length_or_cues(tmp_path):
    check(remux(made(tmp_path / "a.mkv", "libx264", "open"), tmp_path / "b.mkv", live="1"))


@pytest.mark.parametrize("share", [0.3, 0.31])
@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video")])
def test_recordings_that_begin_in_the_middle(tmp_path, suffix, codec, share):
    data = made(tmp_path / f"a.{suffix}", codec, "closed").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[round(len(data) * share) :])
    shown = played(path)

    assert 20 < len(shown) < 50
    for sampling in (Sampling(num_frames=8), Sampling(kind="linspace", num_frames=8), Sampling(kind="all")):
        video = open_video(path, sampling)
        assert numbers(video) == [shown[index] for index in sampling.indices(len(shown), 25)]


_TWO_PARTS = ((0, "closed"), (90, "open"))


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_joined_matroska(tmp_path, suffix):
    codec = "libx264" if suffix == "mkv" else "libvpx"
    parts = [made(tmp_path / f"{n}.{suffix}", codec, "closed", first=n, sound_seconds=2.42) for n in (0, 90)]
    path = joined(tmp_path / f"a.{suffix}", *parts)

    assert numbers(open_video(path, Sampling(kind="all"))) == [*range(60), *range(90, 150)]
    assert open_audio(path).duration_s == pytest.approx(4.84, abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("ts", "libx264"), ("ts", "mpeg2video"), ("vob", "mpeg2video"), ("h264", "libx264"), ("m2v", "mpeg2video")],
)
def test_joined_recordings_are_seen_to_their_end(tmp_path, suffix, codec):
    parts = [made(tmp_path / f"{n}.{suffix}", codec, gop, first=n, sound_seconds=2.42) for n, gop in _TWO_PARTS]
    path = joined(tmp_path / f"a.{suffix}", *parts)

    shown = played(path)
    assert sorted(shown) == [*range(60), *range(90, 150)]
    for sampling in SAMPLINGS[:21]:
        video = open_video(path, sampling)
        assert numbers(video) == [shown[index] for index in sampling.indices(120, 25)]
    assert video.duration_s == pytest.approx(4.8, abs=0.1)
    assert (np.diff(open_video(path, Sampling(kind="all")).times_s) > 0).all()


@pytest.mark.parametrize("shift_s", [-70.0, -1.0, 30.0, 5000.0])
def test_clocks_that_jump_at_a_join(tmp_path, shift_s):
    first = made(tmp_path / "a.ts", "libx264", "closed", sound_seconds=2.42)
    later = remux(first, tmp_path / "b.ts", shift_s=100.0)
    moved = remux(first, tmp_path / "c.ts", shift_s=100.0 + shift_s)
    path = joined(tmp_path / "joined.ts", later, moved)

    video = open_video(path, Sampling(kind="all"))
    assert numbers(video) == [*range(60)] * 2
    assert np.diff(video.times_s).max() < 0.2
    assert open_audio(path).duration_s == pytest.approx(2 * 2.42, abs=0.15)


def test_a_second_mp4_behind_the_first_is_not_played(tmp_path):
    parts = [made(tmp_path / f"{n}.mp4", "libx264", "closed", first=n, sound=None) for n in (0, 90)]
    check(joined(tmp_path / "a.mp4", *parts))


def test_a_stream_that_changes_its_size(tmp_path):
    small = made(tmp_path / "a.ts", "libx264", "closed", sound=None)
    with av.open(str(tmp_path / "b.ts"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 96, "yuv420p"
        with av.open(str(small)) as source:
            for frame in source.decode(video=0):
                file.mux(stream.encode(frame.reformat(320, 96)))
        file.mux(stream.encode(None))
    video = open_video(joined(tmp_path / "c.ts", small, tmp_path / "b.ts"), Sampling(num_frames=12))

    assert video.frames.shape[1:] == (96, 128, 3)
    assert numbers(video) == [*range(0, 60, 10)] * 2


@pytest.mark.parametrize(
    ("suffix", "codec"), [("flv", "flv"), ("flv", "libx264"), ("mkv", "libx264"), ("webm", "libvpx")]
)
def test_sound_that_outlasts_the_picture(tmp_path, suffix, codec):
    path = made(tmp_path / f"a.{suffix}", codec, next(iter(GOPS[codec])), sound_seconds=6.0)

    check(path)
    lengths = {stream.kind: stream.duration_s for stream in probe(path).streams}
    assert lengths["video"] == pytest.approx(2.4, abs=0.05)
    assert lengths["audio"] == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "flv", "avi"])
def test_a_damaged_packet_is_skipped_and_counted(tmp_path, suffix):
    path = made(
        tmp_path / f"a.{suffix}", *(("mpeg4", "plain") if suffix == "avi" else ("libx264", "intra")), sound=None
    )
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        content = [bytes(packet) for packet in file.demux(video=0) if packet.size][36]  # a keyframe
    place = data.find(content[:60] if suffix == "ts" else content)
    assert place > 0
    if suffix == "ts":
        del data[place // 188 * 188 : place // 188 * 188 + 188]
    else:
        half = len(content) // 2
        data[place + half : place + len(content) - 2] = b"\xff" * (len(content) - 2 - half)
    path.write_bytes(data)

    video = open_video(path, Sampling(kind="all"))
    assert video.num_damaged >= 1
    assert len(set(numbers(video)) & set(range(60))) >= 45


def test_nothing_that_can_be_decoded_is_an_error(tmp_path):
    path = made(tmp_path / "a.mkv", "libx264", "long", sound=None)
    with av.open(str(path)) as file:
        contents = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    data = path.read_bytes()
    for content in contents:
        data = data.replace(content, bytes(len(content)))
    path.write_bytes(data)

    with pytest.raises(MediaError, match=r"a\.mkv: no frame could be decoded"):
        open_video(path)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_one_opening_a_medium(tmp_path, monkeypatch, suffix):
    path = clip(tmp_path / f"a.{suffix}", 48)
    opened, real = [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(args) or real(*args, **options))

    for read in (open_video, open_audio, probe, lambda path: open_audio(path, start_s=1.2, end_s=1.5)):
        opened.clear()
        read(path)
        assert len(opened) == 1


def test_only_groups_with_a_wanted_frame_are_decoded(tmp_path, monkeypatch):
    path = made(tmp_path / "a.ts", "libx264", "plain", count=240, sound=None)
    module = sys.modules[WalkedReader.__module__]
    packets, real = [], module.decoded
    monkeypatch.setattr(module, "decoded", lambda *args: packets.append(1) or real(*args))
    video = open_video(path, Sampling(num_frames=3, start_s=4.0))

    assert number_of(video.frames[0]) == 100
    assert len(packets) < 3 * 12 + 60
