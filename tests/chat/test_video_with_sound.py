"""A system that sees and hears (a tiny VideoLLaMA 2.1-AV) asked about real files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avllm.chat import Assistant
from avllm.chat.assistant import Request
from avllm.errors import NoAudioStream
from avllm.media import write_audio, write_video
from tests.media.make import clip, numbered, tone
from tests.model.tiny_av import AUDIO_TOKENS, VIDEO_TOKENS, tiny_av_model, tiny_av_processor

LENGTH = {"max_new_tokens": 6, "min_new_tokens": 6}


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    model = tiny_av_model()
    return Assistant(model, tiny_av_processor(model), name="tiny-av")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    return {
        "video": clip(folder / "a.mp4", 36),
        "mute": clip(folder / "mute.mp4", 24, sound=False),
        "audio": write_audio(folder / "a.wav", tone(0.7, 8000)[None], 8000),
    }


def slots(assistant: Assistant, request: Request) -> list[str]:
    """The branches of the slots of a prompt, one for each token."""
    from avllm.model import Turn

    media = assistant.perceive_request(request)
    turn = Turn(question=request.question, media=tuple(item.medium for item in media))
    names = {token: name for name, token in assistant.processor.slot_ids.items()}
    return [names[token] for token in assistant.prompt([turn], media).ids if token in names]


def test_a_video_with_sound_is_seen_then_heard(assistant: Assistant, files: dict[str, Path]):
    asked = Request(question="What happens?", video=files["video"])

    assert slots(assistant, asked) == ["video"] * VIDEO_TOKENS + ["audio"] * AUDIO_TOKENS
    (reply,) = assistant.answers([asked], **LENGTH)
    assert reply.streams_used == ("video", "audio")


def test_each_of_two_videos_is_seen_then_heard(assistant: Assistant, files: dict[str, Path]):
    media = assistant.perceive_all(
        media=[{"type": "video", "video": files[name]} for name in ("video", "mute", "video")]
    )

    branches = [item.medium.branch for item in media]

    assert branches == ["video", "audio", "video", "video", "audio"]


def test_what_is_not_there_or_not_wanted_takes_no_slots(assistant: Assistant, files: dict[str, Path]):
    video, audio = ["video"] * VIDEO_TOKENS, ["audio"] * AUDIO_TOKENS

    assert slots(assistant, Request(question="?", video=files["mute"])) == video
    assert slots(assistant, Request(question="?", video=files["video"], audio_mode="off")) == video
    assert slots(assistant, Request(question="?", video=np.stack(numbered(8)))) == video
    assert slots(assistant, Request(question="?", image=numbered(1)[0])) == video
    assert slots(assistant, Request(question="?", audio=files["audio"])) == audio
    assert slots(assistant, Request(question="?", audio=files["video"])) == audio
    assert slots(assistant, Request(question="?", video=files["mute"], audio=files["audio"])) == video + audio
    assert slots(assistant, Request(question="?")) == []
    with pytest.raises(NoAudioStream):
        slots(assistant, Request(question="?", video=files["mute"], audio_mode="require"))


def test_rows_of_all_kinds_are_answered_in_one_batch_as_alone(assistant: Assistant, files: dict[str, Path]):
    requests = [
        Request(question="What is seen and heard?", video=files["video"]),
        Request(question="What is heard?", audio=files["audio"]),
        Request(question="What is seen?", video=files["mute"]),
        Request(question="And here?", image=numbered(1)[0]),
        Request(question="Who are you?"),
    ]

    together = assistant.answers(requests, **LENGTH)

    alone = [assistant.answers([request], **LENGTH)[0] for request in requests]
    assert [reply.answer for reply in together] == [reply.answer for reply in alone]
    assert len({reply.answer for reply in together}) > 2
    assert [reply.streams_used for reply in together] == [("video", "audio"), ("audio",), ("video",), ("image",), ()]


def test_an_image_alone_is_answered_by_a_system_with_ears(assistant: Assistant):
    (reply,) = assistant.answers([Request(question="What is this?", image=numbered(1)[0])], **LENGTH)

    assert reply.streams_used == ("image",)


def test_sounds_are_told_apart(assistant: Assistant):
    loud, still = (assistant.perceive(sound, "audio") for sound in (tone(1.0), np.zeros(16000, np.float32)))

    assert loud.tokens.shape == (AUDIO_TOKENS, 32)
    assert not torch.allclose(loud.tokens, still.tokens, atol=1e-3)


def test_a_second_turn_keeps_both(assistant: Assistant, files: dict[str, Path]):
    session = assistant.chat()

    session.ask("What happens?", video=files["video"], **LENGTH)
    session.ask("And then?", **LENGTH)

    assert session.last is not None
    assert session.last.streams_used == ("video", "audio")


def test_all_kinds_of_media_go_through_the_model_in_one_batch(assistant: Assistant, files: dict[str, Path]):
    def asked(**content: object) -> list[dict[str, object]]:
        parts = [{"type": kind, kind: source} for kind, source in content.items()]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]

    rows = [
        asked(video=files["video"], audio=files["video"]),
        asked(audio=files["audio"]),
        asked(video=files["mute"]),
        asked(image=numbered(1)[0]),
    ]

    batch = assistant.processor(rows)

    assert batch["media"]["video"].shape == (3, 4, 3, 16, 16)
    assert batch["media"]["audio"].shape == (2, 1, 1, 32, 98)
    with torch.no_grad():
        together = assistant.model(**batch).logits
        alone = [assistant.model(**assistant.processor(row)).logits for row in rows]
    for row, logits in enumerate(alone):
        assert torch.allclose(together[row, -4:], logits[0, -4:], atol=1e-4)


def test_a_part_behind_the_end_of_the_sound_is_answered_from_its_picture(assistant: Assistant, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    film = write_video(tmp_path / "short_sound.mp4", iter(pixels), 10.0, waveform=tone(1.0, 16000)[None])
    chat = assistant.chat()

    chat.ask("What happens?", video=film, start_s=2.0, end_s=4.0, **LENGTH)

    assert chat.last is not None
    assert chat.last.streams_used == ("video",)
    with pytest.raises(
        NoAudioStream, match=r"short_sound.mp4: no sound between 2 and 4 s, its audio track ends at 1\.\d+ s"
    ):
        assistant.chat().ask("What?", video=film, start_s=2.0, end_s=4.0, audio_mode="require")


def test_a_reply_counts_what_was_damaged_and_left_out(assistant: Assistant, tmp_path: Path):
    film = clip(tmp_path / "a.mp4", 36)
    data = bytearray(film.read_bytes())
    begin = data.find(b"mdat") + 2000
    data[begin : begin + 600] = bytes(600)
    (tmp_path / "hurt.mp4").write_bytes(data)

    whole, hurt = assistant.answers(
        [Request(question="What?", video=path) for path in (film, tmp_path / "hurt.mp4")], **LENGTH
    )

    assert whole.to_dict()["num_damaged"] == 0
    assert hurt.to_dict()["num_damaged"] > 0
