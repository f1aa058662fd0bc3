"""The work of `avllm ask`: one medium, questions about it in turn."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avllm.chat.asked import Asked, AudioMode, audio_mode_of
from avllm.chat.assistant import load
from avllm.chat.generate_options import settled
from avllm.chat.reply import Reply
from avllm.chat.threads import choose_threads
from avllm.errors import MediaError
from avllm.media import probe, resolve
from avllm.model.options import SHARED, VideoOptions, checked, named


def ask(
    media: str | Path,
    questions: Sequence[str],
    *,
    model: str | Path = "nano",
    audio: AudioMode = "auto",
    **options: Any,
) -> Iterator[Reply]:
    """Answers questions about a medium, each knowing those before it.

    Args:
        media: a video, sound or image file, or a folder of frames.
        questions: in the order they are asked.
        model: a name or a folder.
        audio: whether a video's sound is used.
        options: of `Session.ask`: how the medium is read (`num_frames`, `start_s`, `end_s`, ...) and how answers are
            written (`max_new_tokens`, `temperature`, ...); those that are None are left out.

    Raises:
        MediaError: the file cannot be read.
        ConfigError: an option is wrong, or a question does not fit into the decoder's context.
        CheckpointError: the model cannot be loaded.
    """
    reading, writing = told_apart(options)
    medium = resolve(media)
    given: dict[str, Any] = {kind_of(medium): medium, "audio_mode": audio_mode_of(audio), **reading}
    for question in questions:  # what is wrong without a model is told before one is loaded
        Asked.checked(question, **given)
    assistant = load(model)
    choose_threads(assistant.model)
    session = assistant.chat()
    for question in questions:
        session.ask(question, **given, **writing)
        given = {}
        assert session.last is not None
        yield session.last


def told_apart(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of reading, which go with new media, and of writing, which go with every question.

    Raises:
        ConfigError: one is wrong, as far as it can be said without a model.
    """
    given = named(options)
    reading = {name: value for name, value in given.items() if name in SHARED}
    writing = {name: value for name, value in given.items() if name not in SHARED}
    checked(VideoOptions, {name: value for name, value in reading.items() if name != "source_rate"})
    settled({name: value for name, value in writing.items() if name != "stop"})
    return reading, writing


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
