"""Messages of content parts, as OpenAI's and transformers' chats have them: texts and media in their order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from avllm.data.annotations import entries, show, text
from avllm.data.keys import present, unused
from avllm.data.medium_options import FRAME_KEYS, SPANS, frame_options, span
from avllm.data.records import Kind
from avllm.errors import DataError

KINDS: tuple[Kind, ...] = ("video", "image", "audio")  # with several kinds, videos stand first, as published
SOURCES = ("path", "url")


@dataclass(frozen=True, kw_only=True)
class MediumPart:
    """A medium among the parts of a message.

    Args:
        kind: what it is opened as.
        source: as it is written; None takes the entry's next one.
        options: of this medium alone.
    """

    kind: Kind
    source: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_parts(content: Any, where: str, ignore: Collection[str] = ()) -> list[str | MediumPart]:
    """The parts of a message.

    Args:
        content: a list of `{"type": "text", "text"}`, `{"type": "video", "video"}` and the like; the source may stand
            under `path` or `url` too, or as `{"type": "video_url", "video_url": {"url"}}`; a medium without one takes
            the next of the entry.
        where: names it.
        ignore: keys that are left out.

    Raises:
        DataError: a part has another form.
    """
    return [_part(item, f"{where}[{index}]", ignore) for index, item in enumerate(entries(content, where))]


def _part(item: Any, where: str, ignore: Collection[str]) -> str | MediumPart:
    part = present(item, where, ignore)
    given = part.get("type") or next((kind for kind in ("text", *KINDS) if kind in part), None)
    if given in ("text", "input_text", "output_text"):
        unused(part, ("type", "text"), where)
        return text(part, "text", where)
    if given == "input_audio":
        return MediumPart(kind="audio", source=_sound(part, where))
    kind: Kind | None = next((kind for kind in KINDS if given in (kind, f"{kind}_url")), None)
    if kind is None:
        known = ("text", *KINDS, *(f"{kind}_url" for kind in KINDS), "input_audio")
        raise DataError(f"{where}.type: expected {', '.join(known)}; got {show(item.get('type'))}")
    sources = [key for key in (kind, f"{kind}_url", *SOURCES) if key in part]
    if len(sources) > 1:
        raise DataError(f"{where}: has both {sources[0]} and {sources[1]}; expected one of them")
    options: dict[str, Any] = {} if kind == "image" else span(part, where)
    options |= frame_options(part, where) if kind == "video" else {}
    own = () if kind == "image" else SPANS if kind == "audio" else (*SPANS, *FRAME_KEYS)
    unused(part, ("type", *sources, *own), where)
    source = part[sources[0]] if sources else None
    if sources == [f"{kind}_url"] and isinstance(source, Mapping):
        unused(present(source, where, ignore), ("url",), f"{where}.{sources[0]}")
        source = text(source, "url", f"{where}.{sources[0]}")
    return MediumPart(kind=kind, source=source, options=options)


def _sound(part: Mapping[str, Any], where: str) -> str:
    spot = f"{where}.input_audio"
    sound = present(part.get("input_audio"), spot)
    unused(sound, ("data", "format"), spot)
    return f"data:audio/{sound.get('format', 'wav')};base64,{text(sound, 'data', spot)}"
