import base64

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, open_image, open_video
from tests.media.make import HEIGHT, WIDTH, clip, number_of, numbered, numbers, plain, remux, timed, tone

ALL = Sampling(kind="all")


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(num_frames=7), Sampling(kind="linspace", num_frames=5), Sampling(kind="middle", num_frames=4), ALL],
    ids=lambda s: s.kind,
)
def test_every_container_gives_exact_frames(tmp_path, name, sampling):
    video = open_video(clip(tmp_path / name), sampling)

    assert numbers(video) == list(sampling.indices(60, 24))
    assert video.times_s == pytest.approx(np.array(video.indices) / 24, abs=6e-4)  # Matroska counts milliseconds
    assert video.duration_s == pytest.approx(2.5, abs=0.05)
    assert video.fps == pytest.approx(24)
    assert video.has_audio


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "hevc"])
def test_frames_are_exact_with_reordered_frames_and_long_groups(tmp_path, codec):
    options = {"gop": 40, "preset": "medium", "sound": False}
    video = open_video(clip(tmp_path / "a.mp4", 200, codec=codec, **options), Sampling(num_frames=9))

    assert numbers(video) == list(video.indices) == [0, 22, 44, 66, 88, 111, 133, 155, 177]


def test_frames_are_exact_with_open_groups(tmp_path):
    options = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3"}
    path = timed(tmp_path / "a.mp4", [i * 40 for i in range(100)], options=options)

    assert numbers(open_video(path, Sampling(num_frames=11))) == list(Sampling(num_frames=11).indices(100, 25))
    assert numbers(open_video(path, ALL)) == list(range(100))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "mpeg4"), ("a.avi", "h264"), ("a.ts", "h264"), ("a.flv", "flv1")],
)
def test_containers_without_frame_counts_or_with_odd_clocks(tmp_path, name, codec):
    path = plain(tmp_path / name, 60, codec)

    assert numbers(open_video(path, Sampling(num_frames=6))) == [0, 10, 20, 30, 40, 50]
    assert numbers(open_video(path, Sampling(num_frames=2, start_s=1.5))) == [36, 48]


def test_a_late_start_keeps_frames_and_times(tmp_path):
    silent = clip(tmp_path / "a.mp4", sound=False)
    early, late = open_video(silent), open_video(remux(silent, tmp_path / "late.mkv", shift_s=5.0))

    assert numbers(late) == numbers(early)
    assert late.times_s == pytest.approx(early.times_s, abs=1e-3)  # playing starts where the file starts


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_rate_is_sampled_by_time(tmp_path, name):
    # 20 frames in the first second, then one frame every half second.
    times = [i * 50 for i in range(20)] + [1000 + i * 500 for i in range(19)]
    video = open_video(timed(tmp_path / name, times), Sampling(num_frames=10))

    seconds = np.array(video.indices) / video.fps
    on_screen = [int(np.searchsorted(times, second * 1000 + 1, side="right")) - 1 for second in seconds]
    assert numbers(video) == on_screen
    assert np.diff(video.times_s).max() <= 1.5  # spread over all ten seconds, not crowded into the first
    assert video.times_s[-1] >= 8.0


def test_a_long_last_frame_stays_on_screen(tmp_path):
    path = timed(tmp_path / "a.mp4", [0, 100, 200, 5000, 10000], options={"bf": "0"})

    assert numbers(open_video(path, Sampling(num_frames=2, start_s=6.0)))[0] == 3


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(tmp_path, mp4, angle, turns):
    plain = open_video(mp4, Sampling(num_frames=2))
    turned = open_video(remux(mp4, tmp_path / "turned.mp4", rotation=angle), Sampling(num_frames=2))

    assert np.array_equal(turned.frames, np.rot90(plain.frames, k=turns, axes=(1, 2)))
    sized = open_video(tmp_path / "turned.mp4", Sampling(num_frames=2), size=(64, 48))
    assert sized.frames.shape == (2, 64, 48, 3)


def test_resizing_while_decoding(mp4):
    plain = open_video(mp4, Sampling(num_frames=3))
    squash, crop, pad = (open_video(mp4, Sampling(num_frames=3), size=(48, 48), resize=r) for r in _MODES)

    assert plain.frames.shape == (3, HEIGHT, WIDTH, 3)
    assert squash.frames.shape == crop.frames.shape == pad.frames.shape == (3, 48, 48, 3)
    assert numbers(squash) == numbers(plain)
    assert not pad.frames[:, :5].any()  # black bars above: 48 x 36 in 48 x 48
    assert crop.frames[-1].std() > 0


_MODES = ("squash", "crop", "pad")


def test_start_and_end_choose_a_part(mp4):
    video = open_video(mp4, Sampling(num_frames=4, start_s=1.0, end_s=1.5))

    assert numbers(video) == [24, 27, 30, 33]
    with pytest.raises(MediaError, match=r"no frame between start_s=9\.0"):
        open_video(mp4, Sampling(start_s=9.0))


def test_several_tracks_take_the_default_one(tmp_path):
    import av

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("h264", rate=25) for _ in range(2)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        tracks[0].disposition, tracks[1].disposition = 0, 1
        for track, offset in zip(tracks, (0, 100), strict=True):
            for pixels in numbered(130)[offset : offset + 10]:
                container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(track.encode(None))

    assert numbers(open_video(path, Sampling(num_frames=2))) == [100, 105]


@pytest.mark.parametrize("kind", ["bytes", "file url", "data url", "text path"])
def test_sources_of_a_file(mp4, kind):
    data = mp4.read_bytes()
    source = {
        "bytes": data,
        "file url": mp4.as_uri(),
        "data url": "data:video/mp4;base64," + base64.b64encode(data).decode(),
        "text path": str(mp4),
    }[kind]

    assert numbers(open_video(source, Sampling(num_frames=3))) == [0, 20, 40]


def test_sources_in_memory():
    frames = numbered(12)
    for source in (np.stack(frames), frames, [Image.fromarray(frame) for frame in frames]):
        video = open_video(source, Sampling(num_frames=4), source_fps=6.0)
        assert numbers(video) == [0, 3, 6, 9]
        assert video.times_s.tolist() == [0.0, 0.5, 1.0, 1.5]
        assert not video.has_audio


def test_a_folder_of_frames_is_read_in_natural_order(tmp_path):
    for number, frame in enumerate(numbered(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")

    assert numbers(open_video(tmp_path, ALL)) == list(range(12))


def test_gif_is_sampled_by_time(tmp_path):
    frames = [Image.fromarray(frame) for frame in numbered(8)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100] * 7 + [1300], loop=0)

    video = open_video(path, Sampling(num_frames=4))
    assert video.duration_s == pytest.approx(2.0)
    assert numbers(video) == [0, 5, 7, 7]
    assert number_of(open_image(path).frames[0]) == 0


def test_an_image_is_a_video_of_one_frame(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(numbered(6)[5]).save(path)

    for video in (open_video(path), open_image(path), open_image(numbered(6)[5]), open_video(numbered(6)[5])):
        assert numbers(video) == [5]
        assert video.fps is None
        assert video.times_s.tolist() == [0.0]
    assert open_image(path, size=(32, 32)).frames.shape == (1, 32, 32, 3)


def test_video_of_one_frame(tmp_path):
    assert numbers(open_video(clip(tmp_path / "a.mp4", 1, sound=False))) == [0]


def test_video_shorter_than_the_sound_of_a_webm(tmp_path):
    from avllm.media import write_video

    path = write_video(tmp_path / "a.webm", numbered(24), 24, waveform=tone(6.0))
    video = open_video(path, Sampling(kind="linspace", num_frames=4))

    assert numbers(video) == [0, 7, 15, 23]


def test_damage_is_one_clear_error(tmp_path, mp4):
    data = mp4.read_bytes()
    bad = {
        "text.mp4": b"this is no video at all, it is a text\n" * 40,
        "empty.mp4": b"",
        "noise.mp4": np.random.default_rng(0).bytes(20_000),
        "head.mp4": data[: len(data) // 3],
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n" + str(mp4).encode() + b"\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile " + str(mp4).encode() + b"\n",
        "broken.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "cut.jpg": b"\xff\xd8\xff\xe0" + bytes(50),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name):
            open_video(tmp_path / name)
    with pytest.raises(MediaError, match=r"absent.mp4: cannot be opened \(No such file"):
        open_video(tmp_path / "absent.mp4")


def test_truncated_files_say_so(tmp_path, mp4):
    fast = remux(mp4, tmp_path / "fast.mp4", movflags="faststart")
    data = fast.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])

    with pytest.raises(MediaError, match="truncated"):
        open_video(tmp_path / "cut.mp4")


def test_sound_alone_is_no_video(tmp_path):
    from avllm.media import write_audio

    with pytest.raises(MediaError, match="no video track, it holds only sound"):
        open_video(write_audio(tmp_path / "a.m4a", tone(1.0), 16000))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.mp4", "URLs are off"),
        ("concat:a.mp4|b.mp4", "cannot be opened"),
        ("data:video/mp4;base64,@@@@", "base64"),
        ("data:video/mp4", "comma"),
        ("file://host/a.mp4", "host"),
        ("/dev/zero", "not a regular file"),
        (b"", "empty"),
        ([], "empty"),
        (np.zeros((0, 4, 4, 3), np.uint8), "0 frames"),
        (["a.png"], "frame 0: a.png: cannot be opened"),
    ],
)
def test_wrong_sources_are_named(source, message):
    with pytest.raises(MediaError, match=message):
        open_video(source)


def test_frames_of_different_sizes_need_a_size():
    frames = [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)]
    with pytest.raises(MediaError, match="frame 1 is 6x4, the first is 4x4"):
        open_video(frames)
    assert open_video(frames, size=(4, 4)).frames.shape == (2, 4, 4, 3)


def test_long_files_take_no_more_memory_than_their_sample(mp4):
    limits = Limits(video_bytes=3 * 32 * 32 * 3)
    assert len(open_video(mp4, Sampling(num_frames=3), size=(32, 32), limits=limits)) == 3
