"""Whatever Python users hand over is the same medium: frames, pictures, files and sounds in all their forms."""

import io
import pickle
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from avllm.errors import MediaError, NoAudioStream
from avllm.media import Audio, Limits, Sampling, content_key, open_audio, open_image, open_video, probe, resolve
from avllm.media.isolated import IsolatedMedia

ALL = Sampling(kind="all")
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 24, 36, 3), dtype=np.uint8)
PICTURE = FRAMES[0]
WAVE = np.stack([np.sin(np.arange(800) / 9), np.cos(np.arange(800) / 7)]).astype(np.float32)


def png(picture: np.ndarray = PICTURE) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def videos() -> dict:
    tensor = torch.from_numpy(FRAMES)
    return {
        "[t h w c]": FRAMES,
        "[t c h w]": FRAMES.transpose(0, 3, 1, 2),
        "tensor [t h w c]": tensor,
        "tensor [t c h w]": tensor.permute(0, 3, 1, 2),
        "floats": FRAMES / 255,
        "a tensor of floats with a gradient": (tensor.permute(0, 3, 1, 2).float() / 255).requires_grad_(),
        "int64": FRAMES.astype(np.int64),
        "16 bits": FRAMES.astype(np.uint16) * 256 + 255,
        "a list of arrays": list(FRAMES),
        "a tuple of tensors": tuple(tensor.permute(0, 3, 1, 2)),
        "Pillow images": [Image.fromarray(frame) for frame in FRAMES],
        "mixed": [FRAMES[0], tensor[1], Image.fromarray(FRAMES[2]), FRAMES[3] / 255, tensor[4].permute(2, 0, 1)],
    }


@pytest.mark.parametrize("name", videos())
def test_frames_in_memory(name):
    source = videos()[name]
    video = open_video(source, ALL, source_fps=5.0)

    assert np.array_equal(video.frames, FRAMES)
    assert (video.duration_s, video.fps, video.has_audio) == (1.0, 5.0, False)
    assert content_key(source, {}) == content_key(FRAMES, {})
    assert (probe(source).streams[0].kind, probe(source).streams[0].frames) == ("video", 5)
    with pytest.raises(NoAudioStream):
        open_audio(source)


def test_a_tensor_of_bfloat16():
    assert open_video((torch.from_numpy(FRAMES).float() / 255).bfloat16(), ALL).frames.shape == FRAMES.shape


@pytest.mark.parametrize(
    "source",
    [PICTURE, PICTURE.transpose(2, 0, 1), torch.from_numpy(PICTURE).permute(2, 0, 1), PICTURE / 255],
    ids=["[h w c]", "[c h w]", "tensor [c h w]", "floats"],
)
def test_a_picture_in_memory(source):
    image = Image.fromarray(PICTURE)
    for given in (source, image):
        for video in (open_image(given), open_video(given)):
            assert np.array_equal(video.frames[0], PICTURE)
            assert (len(video), video.fps, video.duration_s) == (1, None, 0.0)
        assert (probe(given).streams[0].kind, probe(given).streams[0].width) == ("image", 36)
    assert content_key(source, {}) == content_key(image, {}) != content_key([image], {})


def test_channels_other_than_three():
    grey = PICTURE[:, :, 0]
    for source in (grey, grey[..., None], grey[None], Image.fromarray(grey)):
        assert np.array_equal(open_image(source).frames[0], np.stack([grey] * 3, axis=2))
    clear = np.dstack([PICTURE, np.zeros_like(grey)])
    for source in (clear, clear.transpose(2, 0, 1), clear[None]):
        assert open_image(source).frames.min() == 255
        assert np.array_equal(open_image(source, drops_transparency=True).frames[0], PICTURE)


def test_files_in_all_forms(tmp_path, monkeypatch):
    data, path = png(), tmp_path / "a.png"
    path.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO(data)
    stream.seek(5)
    with path.open("rb") as file, tempfile.TemporaryFile() as temporary, tempfile.SpooledTemporaryFile() as spooled:
        temporary.write(data)
        spooled.write(data)
        forms = [
            *("a.png", path, path.as_uri(), data, bytearray(data), memoryview(data), stream, file, temporary, spooled),
            *({"bytes": data, "path": None}, {"bytes": None, "path": "a.png"}, {"path": path}, resolve(path)),
        ]
        for source in forms:
            for _ in range(2):  # a file object can be read again
                assert np.array_equal(open_image(source).frames[0], PICTURE)
            assert np.array_equal(open_video(source).frames[0], PICTURE)
            assert probe(source).streams[0].kind == "image"
            assert content_key(source, {}) == content_key(path, {})
        assert (stream.tell(), file.tell(), temporary.tell()) == (5, 0, len(data))
        assert resolve(file).data is None  # it lies on disk and is not copied


def test_a_list_of_files_is_a_video(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, frame in zip(paths, FRAMES, strict=True):
        path.write_bytes(png(frame))
    for frames in (paths, list(map(str, paths)), [path.read_bytes() for path in paths]):
        video = open_video(frames, ALL, source_fps=5.0)
        assert np.array_equal(video.frames, FRAMES)
        assert video.times_s == pytest.approx(np.arange(5) / 5)
        assert content_key(frames, {}) == content_key(paths, {}) != content_key(paths[::-1], {})
    with pytest.raises(MediaError, match=r"frame 5: absent\.png: cannot be opened"):
        open_video([*paths, tmp_path / "absent.png"])
    with pytest.raises(MediaError, match=r"frame 5: expected one picture, got .* \(folder\)"):
        open_video([*paths, tmp_path])
    with pytest.raises(MediaError, match=r"Limits\.pixels"):
        open_video(paths, limits=Limits(pixels=36 * 24 - 1))


def sounds() -> dict:
    return {
        "[c s]": WAVE,
        "[s c]": WAVE.T,
        "tensor [s c]": torch.from_numpy(WAVE.T),
        "float64": WAVE.astype(np.float64),
        "int16": np.round(WAVE * 32767).astype(np.int16),
        "int32 [s c]": np.round(WAVE.T * (2**31 - 129.0)).astype(np.int32),
        "uint8": np.round(WAVE * 127 + 128).astype(np.uint8),
        "(rate, samples)": (16000, WAVE),
        "(samples, rate)": (WAVE.T, np.int64(16000)),
        "tensor and rate": (torch.from_numpy(WAVE), 16000),
        "of datasets": {"array": WAVE, "sampling_rate": 16000, "path": None},
        "lists": {"array": WAVE.tolist(), "sampling_rate": 16000},
        "Audio": Audio(waveform=WAVE, sample_rate=16000),
    }


@pytest.mark.parametrize("name", sounds())
def test_sounds_in_memory(name):
    source = sounds()[name]
    audio = open_audio(source)

    assert (audio.waveform.shape, audio.sample_rate) == ((2, 800), 16000)
    assert np.abs(audio.waveform - WAVE).max() <= (0.02 if name == "uint8" else 1e-4)
    assert open_audio(source, end_s=0.02).waveform.shape == (2, 320)
    assert (probe(source).streams[0].kind, probe(source).streams[0].channels) == ("audio", 2)
    content_key(source, {})
    with pytest.raises(MediaError):
        open_video((16000, WAVE))


def test_equal_sounds_have_equal_keys():
    named = [sounds()[name] for name in ("(rate, samples)", "(samples, rate)", "of datasets", "Audio")]
    assert len({content_key(source, {}) for source in named}) == 1
    assert content_key((8000, WAVE), {}) != content_key(named[0], {})


def test_a_rate_of_its_own():
    assert open_audio((32000, WAVE)).waveform.shape == (2, 400)
    assert open_audio((32000, WAVE[0])).waveform.shape == (1, 400)
    with pytest.raises(MediaError, match="source_rate=8000 is for an array alone"):
        open_audio((32000, WAVE), source_rate=8000)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((100, 100), np.float32), r"the waveform is \(100, 100\); expected \[c s\] or \[s c\]"),
        (np.zeros((2, 2), np.float32), "fewer than samples"),
        (np.zeros((100, 90), np.float32), "at most 64 channels"),
        (WAVE * 32767, "reaches 32767; expected floats in .* divide it"),
        (np.round(WAVE * 32767).astype(np.int64), "the waveform is int64; expected"),
        (WAVE > 0, "the waveform is bool"),
        ((0, WAVE), "a sample rate of 0.0 Hz"),
        ((16000.5, WAVE), "a sample rate of 16000.5 Hz"),
        ((16000, "a.wav"), "a sound of str at 16000 Hz"),
        ({"array": WAVE}, r"a mapping with the keys \['array'\]"),
        ([0.1, 0.2, 0.3], "a list of numbers"),
        ((16000, [[0.1, 0.2], [0.3]]), "lists that make no array"),
        ((16000, ["a", "b"]), "an array of <U1"),
    ],
)
def test_sounds_that_cannot_be_told_are_refused(source, message):
    with pytest.raises(MediaError, match=message):
        open_audio(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (FRAMES.astype(np.float32), "a frame is float32 from 0 to 255; expected uint8"),
        (FRAMES / 255 - 0.5, "from -0.5 to 0.5"),
        (FRAMES.astype(np.int16) - 1, "a frame is int16 from -1"),
        (FRAMES > 3, "a frame is bool"),
        (FRAMES[None], r"frames are uint8 \(1, 5, 24, 36, 3\)"),
        (FRAMES[..., :2], "expected .*where c is 3"),
        (np.array(["a", "b"]), "an array of <U1"),
        (torch.eye(3).to_sparse(), "cannot become an array"),
        ([], "empty"),
        ([PICTURE, [PICTURE]], "frame 1: expected one picture"),
        ([FRAMES, FRAMES], "expected one picture"),
        ({"video": "a.mp4"}, r"a mapping with the keys \['video'\]"),
        (io.StringIO("text"), "gives text; open the file with 'rb'"),
        (io.BytesIO(), "empty, 0 bytes"),
    ],
)
def test_what_is_no_medium_is_named(source, message):
    for door in (open_video, open_image):
        with pytest.raises(MediaError, match=message):
            door(source)


def test_a_closed_file_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    file = (tmp_path / "a.png").open("rb")
    file.close()
    with pytest.raises(MediaError, match=r"a\.png: cannot be read \(ValueError\)"):
        open_image(file)


def test_an_animation_opened_by_pillow_shows_what_it_stands_at():
    file = io.BytesIO()
    images = [Image.new("RGB", (8, 8), color) for color in ("red", "lime")]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    opened = Image.open(file)
    opened.seek(1)

    assert open_image(opened).frames[0, 0, 0].tolist() == [0, 255, 0]
    with pytest.raises(MediaError, match="several frames, of which it shows one; pass the path"):
        open_video(opened)
    assert open_video(file, ALL).frames.shape[0] == 2


def test_limits_hold_for_media_in_memory():
    tight = [
        (open_video, FRAMES, Limits(pixels=36 * 24 - 1), "pixels"),
        (open_image, Image.fromarray(PICTURE), Limits(pixels=36 * 24 - 1), "pixels"),
        (open_video, FRAMES, Limits(file_bytes=FRAMES.nbytes - 1), "file_bytes"),
        (open_video, torch.from_numpy(FRAMES), Limits(file_bytes=FRAMES.nbytes - 1), "file_bytes"),
        (open_video, FRAMES, Limits(seconds=5 / 24 - 0.01), "seconds"),
        (open_video, list(FRAMES), Limits(frames=4), "frames"),
        (open_audio, WAVE, Limits(seconds=0.049), "seconds"),
        (open_audio, (16000, WAVE), Limits(audio_bytes=WAVE.nbytes - 1), "audio_bytes"),
        (open_audio, WAVE.astype(np.float64).T, Limits(audio_bytes=WAVE.nbytes - 1), "audio_bytes"),
        (open_image, bytearray(png()), Limits(memory_bytes=100), "memory_bytes"),
        (open_image, io.BytesIO(png()), Limits(memory_bytes=100), "memory_bytes"),
        (open_image, {"bytes": png(), "path": None}, Limits(memory_bytes=100), "memory_bytes"),
        (open_image, resolve(png()), Limits(memory_bytes=100), "memory_bytes"),
    ]
    for door, source, limits, name in tight:
        options = {"sampling": ALL} if door is open_video else {}
        with pytest.raises(MediaError, match=rf"Limits\.{name}"):
            door(source, limits=limits, **options)
        door(source, **options)


def test_a_source_is_hashed_once(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    opened = []
    monkeypatch.setattr("avllm.media.digests.of_file", lambda file: opened.append(1) or b"digest")
    source = resolve(path)

    keys = {content_key(source, {"kind": kind}) for kind in ("video", "audio", "video")}
    assert (len(opened), len(keys)) == (1, 2)
    assert resolve(source) is source
    assert pickle.loads(pickle.dumps(source)).digest == b"digest"


def test_isolated_media_take_the_same(tmp_path):
    with IsolatedMedia(num_workers=1) as isolated:
        for source in (io.BytesIO(png()), Image.fromarray(PICTURE), torch.from_numpy(PICTURE), resolve(png())):
            assert np.array_equal(isolated.open_image(source).frames[0], PICTURE)
        assert isolated.open_audio((16000, WAVE.T)).waveform.shape == (2, 800)
        assert isolated.probe(io.BytesIO(png())).streams[0].kind == "image"
