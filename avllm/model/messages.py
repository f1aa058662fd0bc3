"""Messages as `transformers` has them: texts and media of one side, in their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avllm.errors import ConfigError, DataError
from avllm.model.options import OPTIONS, checked, named
from avllm.model.prompts import Kind

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """A medium of a message.

    Args:
        kind: what it is to be read as.
        source: whatever `avllm.media` opens.
        options: how to read this one, of those that `AvllmProcessor.read` takes, under our names for them.
    """

    kind: Kind
    source: Any
    options: Mapping[str, Any]


def content_of(message: Message) -> list[str | Given]:
    """The content of a message: its texts and its media in their order.

    Raises:
        DataError: a part is of no known type, lacks its text or source, or holds what nobody would read.
    """
    content = message.get("content", "")
    if isinstance(content, str):
        return [content]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise DataError(f"message content: expected a text or a list of parts, got {type(content).__name__}")
    return [_part(part) for part in content]


def places_of(content: Sequence[str | Given]) -> tuple[int, ...] | None:
    """For each medium the character of the joined texts in front of which it stands; None if all stand in front."""
    places, length = [], 0
    for part in content:
        if isinstance(part, str):
            length += len(part)
        else:
            places.append(length)
    return tuple(places) if any(places) else None


def _part(part: Any) -> str | Given:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise DataError(f"part of a message: expected a text or a dict with a type, got {type(part).__name__}")
    kind: Any = part.get("type")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise DataError(f"content of type text: expected its text under 'text', got {dict(part)!r}")
        return part["text"]
    if kind not in OPTIONS:
        raise DataError(f"content type: got {kind!r}, known are: video, image, audio, text")
    names = [name for name in (kind, "path", "url") if part.get(name) is not None]
    if len(names) != 1:
        raise DataError(f"content of type {kind}: expected its source under {kind!r}, 'path' or 'url', got {names}")
    try:
        options = named({name: value for name, value in part.items() if name not in ("type", kind, "path", "url")})
        checked(OPTIONS[kind], options)
    except ConfigError as error:
        raise DataError(f"content of type {kind}: {error}") from error
    return Given(kind=kind, source=part[names[0]], options=options)
