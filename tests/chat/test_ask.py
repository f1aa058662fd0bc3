"""`avllm ask` on files: what kind they are, which streams are used, the same answer every time."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from avllm import cli
from avllm.chat.ask import ask, kind_of
from avllm.checkpoints.save import save_model
from avllm.errors import ConfigError, MediaError, NoAudioStream
from avllm.media import write_audio, write_video
from tests.model.tiny import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = tiny_model()
    return save_model(model, tiny_processor(model), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (10, 48, 64, 3), dtype=np.uint8)
    sound = 0.1 * rng.standard_normal((1, 16000)).astype(np.float32)
    write_video(folder / "clip.mp4", frames, 10, waveform=sound)
    write_video(folder / "mute.mp4", frames, 10)
    write_audio(folder / "sound.wav", sound, 16000)
    Image.fromarray(frames[0]).save(folder / "picture.png")
    return folder


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("clip.mp4", ["video", "audio"]),
        ("mute.mp4", ["video"]),
        ("sound.wav", ["audio"]),
        ("picture.png", ["image"]),
    ],
)
def test_uses_the_streams_of_the_file(files, model, name, streams):
    (reply,) = ask(files / name, ["what?"], model=model, max_new_tokens=4)
    plain = reply.to_dict()
    assert plain["streams_used"] == streams
    assert set(plain) == {"question", "answer", "streams_used", "frames", "model", "timings_s", "num_damaged"}
    assert plain["frames"] == ([0.0, 0.2, 0.5, 0.7] if "video" in streams else [])
    assert json.dumps(plain)


def test_later_questions_know_the_earlier_ones(files, model):
    replies = list(ask(files / "clip.mp4", ["what?", "and?"], model=model, max_new_tokens=4))
    again = list(ask(files / "clip.mp4", ["what?", "and?"], model=model, max_new_tokens=4))
    assert [reply.answer for reply in replies] == [reply.answer for reply in again]
    assert replies[1].streams_used == ("video", "audio")
    assert replies[1].timings_s["decode"] == 0


def test_sound_is_required_or_left_out_as_asked(files, model):
    (reply,) = ask(files / "clip.mp4", ["what?"], model=model, audio="off", max_new_tokens=2)
    assert reply.streams_used == ("video",)
    with pytest.raises(NoAudioStream):
        list(ask(files / "mute.mp4", ["what?"], model=model, audio="require"))


def test_frames_are_as_many_as_asked(files, model):
    (reply,) = ask(files / "mute.mp4", ["what?"], model=model, num_frames=2, max_new_tokens=2)
    assert len(reply.frames) == 2


def test_what_is_no_medium_is_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "clip.mp4").write_text("not a video")
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        list(ask(tmp_path / "clip.mp4", ["what?"], model="there is no such model"))


def test_a_folder_of_frames_is_a_video(files, tmp_path):
    for index in range(3):
        Image.new("RGB", (16, 16), (index * 50, 0, 0)).save(tmp_path / f"{index}.png")
    assert kind_of(tmp_path) == "video"


def test_the_command_prints_json(files, model, capsys):
    code = cli.main(["ask", str(files / "mute.mp4"), "what?", "--json", "--model", str(model), "--max-new-tokens", "2"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["streams_used"] == ["video"]


def test_a_part_of_the_clip_is_looked_at(files, model, capsys):
    options = ["--json", "--model", str(model), "--max-new-tokens", "2", "--temperature", "0"]
    assert cli.main(["ask", str(files / "clip.mp4"), "what?", "--start", "0.5", "--end", "0.7", *options]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["frames"] == [0.5, 0.6]
    assert reply["streams_used"] == ["video", "audio"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--start", "5"], "no frame between start_s=5.0 and end_s=None; the video is 1.00 s long"),
        (["--start", "2", "--end", "1"], "expected seconds with 0 <= start_s < end_s"),
        (["--frames", "9"], "9 frames are more than the 8 that this model holds"),
        (["--fps", "0"], "fps: expected a number above 0"),
        (["--temperature", "-1"], "temperature: expected a number from 0"),
        (["--temperature", "nan"], "temperature: expected a number from 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(files, model, capsys, options, fault):
    assert cli.main(["ask", str(files / "clip.mp4"), "what?", "--model", str(model), *options]) == 1
    told = capsys.readouterr().err
    assert fault in told
    assert told.count("\n") == 1


def test_options_without_use_for_the_file_are_named_before_a_model_is_loaded(files):
    with pytest.raises(ConfigError, match="start_s: is an option of a video, and there is none here"):
        list(ask(files / "picture.png", ["what?"], model="there is no such model", start_s=1.0))
    with pytest.raises(NoAudioStream, match="an image has none"):
        list(ask(files / "picture.png", ["what?"], model="there is no such model", audio="require"))


def test_questions_of_standard_input_end_at_line_feeds(files, model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffwhat\u2028moves?\r\n\r\nand?\n"))
    code = cli.main(["ask", str(files / "mute.mp4"), "-", "--json", "--model", str(model), "--max-new-tokens", "2"])
    assert code == 0
    asked = [json.loads(line)["question"] for line in capsys.readouterr().out.split("\n") if line]
    assert asked == ["what\u2028moves?", "and?"]
