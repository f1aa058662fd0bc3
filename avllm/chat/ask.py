"""The work of `avllm ask`: one medium, questions about it in turn."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from avllm.chat.assistant import load
from avllm.chat.perceiver import AudioMode
from avllm.chat.reply import Reply
from avllm.chat.threads import choose_threads
from avllm.errors import MediaError
from avllm.media import probe


def ask(
    media: str | Path,
    questions: Sequence[str],
    *,
    model: str | Path = "nano",
    audio: AudioMode = "auto",
    num_frames: int | None = None,
    max_new_tokens: int | None = None,
) -> Iterator[Reply]:
    """Answers questions about a medium, each knowing those before it.

    Args:
        media: a video, sound or image file, or a folder of frames.
        questions: in the order they are asked.
        model: a name or a folder.
        audio: whether a video's sound is used.
        num_frames: frames to look at; the model's setting by default.
        max_new_tokens: the longest answer; the default of `Assistant` if None.

    Raises:
        MediaError: the file cannot be read.
        CheckpointError: the model cannot be loaded.
    """
    kind = kind_of(media)  # first, as it is cheap and the model is not
    assistant = load(model)
    choose_threads(assistant.model)
    session = assistant.chat()
    given: dict[str, Any] = {kind: media, "audio_mode": audio}
    for question in questions:
        session.ask(question, num_frames=num_frames, max_new_tokens=max_new_tokens, **given)
        given = {}
        assert session.last is not None
        yield session.last


def kind_of(source: Any) -> str:
    """Which argument of `Session.ask` a source belongs to: "video", "image" or "audio".

    Raises:
        MediaError: it is no medium.
    """
    info = probe(source)
    kind = next((kind for kind in ("video", "image", "audio") if any(s.kind == kind for s in info.streams)), None)
    if kind is None:
        raise MediaError(f"{info.name}: holds neither pictures nor sound")
    return kind
