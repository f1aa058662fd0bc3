"""A question with its media as a caller gives them, checked before anything is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from avllm.config import check_choice
from avllm.errors import DataError, NoAudioStream
from avllm.model.messages import Given, content_of, places_of
from avllm.model.options import SHARED, for_kind, named, require_use
from avllm.model.prompts import Kind, Medium, Turn

AudioMode = Literal["auto", "require", "off"]
GIVEN = ("video", "image", "audio", "media", "audio_mode", *SHARED)


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Media that belong together: those of the arguments, or one content part.

    Args:
        sources: by kind.
        options: how they are read; each kind takes those that it has use for.
        place: the character of the text in front of which they stand.
    """

    sources: Mapping[Kind, Any]
    options: Mapping[str, Any]
    place: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A question with its media, checked, and not yet opened.

    Args:
        text: the question without its media.
        looks: the media in their order.
        audio_mode: of videos' own sound.
    """

    text: str
    looks: tuple[Look, ...] = ()
    audio_mode: AudioMode = "auto"

    @classmethod
    def checked(
        cls,
        question: Any,
        *,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        media: Any = None,
        audio_mode: Any = "auto",
        **options: Any,
    ) -> "Asked":
        """Takes the arguments of `Session.ask`.

        Raises:
            DataError: the question is no text, or a content part has another form.
            ConfigError: an option is unknown or no medium here has use for it; an unknown `audio_mode`.
            NoAudioStream: sound is required of an image.
        """
        mode, options = audio_mode_of(audio_mode), named(options)
        content = _read(question, "question") if isinstance(question, list | tuple) else [question]
        text = "".join(require_text(part, "question") for part in content if not isinstance(part, Given))
        asked = [part for part in content if isinstance(part, Given)]
        looks: list[Look] = []
        given: dict[Kind, Any] = {"image": image, "video": video, "audio": audio}
        sources: dict[Kind, Any] = {kind: source for kind, source in given.items() if source is not None}
        if sources:
            looks.append(Look(sources=sources, options=options))
        added = [] if media is None else _read(media, "media")
        front = [part for part in added if isinstance(part, Given)]
        if len(front) < len(added):
            raise DataError("media: expected media alone, got a text; put all parts into the question, in their order")
        places = [*[0] * len(front), *(places_of(content) or [0] * len(asked))]
        for part, place in zip([*front, *asked], places, strict=True):
            own = {**for_kind(part.kind, options), **part.options}
            looks.append(Look(sources={part.kind: part.source}, options=own, place=place))
        kinds: list[Kind] = [kind for look in looks for kind in look.sources]
        require_use(kinds, options)
        if mode == "require" and set(kinds) == {"image"}:
            raise NoAudioStream("sound is required and an image has none; leave audio_mode at auto, or add a sound")
        return cls(text=text, looks=tuple(looks), audio_mode=mode)

    def turn(self, media: Sequence[Medium], parts: Sequence[int], answer: str | None = None) -> Turn:
        """The turn as the prompt sees it.

        Args:
            media: in their order.
            parts: for each the number of its look; any other number stands in front of the text.
            answer: if it is known.
        """
        places = tuple(self.looks[part].place if 0 <= part < len(self.looks) else 0 for part in parts)
        return Turn(question=self.text, media=tuple(media), answer=answer, places=places if any(places) else None)


def audio_mode_of(value: Any) -> AudioMode:
    """Raises ConfigError when it is none of the modes."""
    check_choice("audio_mode", value, get_args(AudioMode))
    return value


def require_text(value: Any, name: str) -> str:
    """A text that can be written down.

    Raises:
        DataError: it is none, or holds half of a surrogate pair, which JSON can write and no tokenizer reads.
    """
    if not isinstance(value, str):
        raise DataError(f"{name}: expected a text, got {'nothing' if value is None else repr(value)[:60]}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}: character {error.start} is U+{ord(value[error.start]):04X}, half of a surrogate pair and no text"
        ) from error
    return value


def _read(content: Any, where: str) -> list[str | Given]:
    """Texts and media of a question or of `media`."""
    try:
        return content_of({"content": content})
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
