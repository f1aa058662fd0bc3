"""The parts that a prompt is made of, and the forms that put them together.

A form is data: templates with named fields. Only templates are searched for fields; the user's text is put in as it is,
so whatever stands in it (`<ImageHere>`, `</s>`, `{video}`) stays ordinary text.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

log = logging.getLogger(__name__)

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")

Kind = Literal["video", "image", "audio"]


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A medium as a prompt sees it.

    Args:
        kind: which wording announces it.
        branch: whose slots it fills; "video" for images too.
        num_tokens: m, slots it takes.
        times_s: seconds of its frames, for wordings that tell them.
    """

    kind: Kind
    branch: str
    num_tokens: int
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question with its media, and the answer if it is known."""

    question: str = ""
    media: tuple[Medium, ...] = ()
    answer: str | None = None


@dataclass(frozen=True)
class Text:
    """Ordinary text; texts that follow each other are tokenised as one."""

    text: str
    is_answer: bool = False


@dataclass(frozen=True)
class Special:
    """A special token of the tokenizer: `bos`, `eos`, or any other by its text, for example `<|im_start|>`."""

    name: str
    is_answer: bool = False


@dataclass(frozen=True)
class Slot:
    """The place of a medium."""

    branch: str
    num_tokens: int


@dataclass(frozen=True)
class Cut:
    """The texts on both sides are tokenised apart; what follows is the start of a text for the tokenizer."""


Part = Text | Special | Slot | Cut


@dataclass(frozen=True, kw_only=True)
class Form:
    """Templates of one kind of prompt.

    Fields: `{bos}`, `{eos}`, any other special token by its text (`{<|im_start|>}`), `{cut}` (see `Cut`), `{system}`,
    `{user}` (media and question), `{answer}`. What stands between `{learn}` and `{ignore}` is learned in training,
    though it is no answer. Braces are written twice.

    Args:
        first: first question, up to where the answer begins.
        later: the same for every later question.
        answer: the answer and what ends it. In training all of it is learned.
        media: kinds of the turn's media, sorted and joined by + -> `{user}`, with the fields `{video}`, `{image}`,
            `{audio}`, `{num_frames}`, `{times}` and `{text}` (the question). "*" stands for all other media, with the
            field `{media}`: their slots in order. Without it they are announced medium by medium. "" stands for a first
            question without media.
        system: system text when none is given.
        system_with_audio: the same for a conversation in which there is sound; None if it is the same.
        without_system: in place of `first` when the system text is empty; None if `first` serves then too.
        strips: questions and answers lose the white space around them.
    """

    first: str
    later: str = ""
    answer: str
    media: Mapping[str, str] = field(default_factory=dict)
    system: str = ""
    system_with_audio: str | None = None
    without_system: str | None = None
    strips: bool = False


FormName = Literal["chat", "train", "caption", "train_caption"]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A row of the table: the forms of one system and how its answers are read.

    Args:
        chat: questions and answers.
        train: instruction data.
        caption: a medium and its caption without a question (stage 1).
        train_caption: a medium, a request to describe it, and its caption.
        stop: text that ends an answer, besides the end-of-sequence token.
        answer_after: a header that the model may repeat; the answer is what follows the last one.
        uses_chat_template: chat and train follow the chat template of the tokenizer, if it has one.
        quirk_forms: name of a published quirk -> the form that takes the place of train.
    """

    chat: Form
    train: Form
    caption: Form
    train_caption: Form
    stop: tuple[str, ...] = ()
    answer_after: str = ""
    uses_chat_template: bool = False
    quirk_forms: Mapping[str, Form] = field(default_factory=dict)

    def form(self, name: FormName, quirks: Iterable[str] = ()) -> Form:
        """The form of that name, or the one that a published quirk puts in its place."""
        if name == "train":
            return next((self.quirk_forms[quirk] for quirk in quirks if quirk in self.quirk_forms), self.train)
        return {"chat": self.chat, "caption": self.caption, "train_caption": self.train_caption}[name]

    def answer_text(self, decoded: str) -> str:
        """The answer within what the model wrote: before the first stop text, after the last header."""
        for stop in self.stop:
            decoded = decoded.split(stop)[0]
        return (decoded.split(self.answer_after)[-1] if self.answer_after else decoded).strip()


def conversation(form: Form, turns: Sequence[Turn], system: str | None = None) -> list[Part]:
    """Parts of a whole conversation. If the last turn has no answer, it ends where the answer begins.

    Args:
        form: the templates.
        turns: in order; only the last may lack an answer.
        system: in place of the form's system text. A form without a place for it leaves it out and logs that.

    Raises:
        ValueError: another turn than the last has no answer.
    """
    if system and "{system}" not in form.first:
        log.warning("this prompt form has no place for a system text, it is left out; put it into the question")
    if system is None:
        has_audio = any(medium.branch == "audio" for turn in turns for medium in turn.media)
        system = form.system_with_audio if has_audio and form.system_with_audio is not None else form.system
    first = form.without_system if form.without_system is not None and not system else form.first
    parts: list[Part] = []
    for index, turn in enumerate(turns):
        if form.strips:
            turn = replace(turn, question=turn.question.strip(), answer=turn.answer and turn.answer.strip())
        user = user_parts(form, turn, is_first=index == 0)
        parts += fill(form.later if index else first, {"system": [Text(system)], "user": user})
        if turn.answer is not None:
            parts += map(_as_learned, fill(form.answer, {"answer": [Text(turn.answer)]}))
        elif index + 1 < len(turns):
            raise ValueError(f"turn {index + 1} of {len(turns)} has no answer; only the last may lack one")
    return parts


def user_parts(form: Form, turn: Turn, *, is_first: bool = False) -> list[Part]:
    """The media of a turn in their wording, and its question."""
    parts: list[Part] = [Text(turn.question)]
    kinds = "+".join(sorted(medium.kind for medium in turn.media))
    if not kinds and not is_first:
        return parts
    template = form.media.get(kinds, form.media.get("*") if kinds else None)
    if template is not None:
        return fill(template, {**_media_fields(turn.media), "text": parts})
    for medium in reversed(turn.media):
        alone = form.media.get(medium.kind, f"{{{medium.kind}}} {{text}}")
        parts = fill(alone, {**_media_fields([medium]), "text": parts})
    return parts


def fill(template: str, fields: Mapping[str, Sequence[Part]]) -> list[Part]:
    """Parts of a template. Special tokens, `{cut}`, `{learn}` and `{ignore}` are always known.

    Raises:
        ValueError: the template has a field that is not known.
    """
    parts: list[Part] = []
    is_learned = False
    for text, name in _split(template):
        if name in ("learn", "ignore"):
            is_learned = name == "learn"
            continue
        new = [Text(text)] if text else _field_parts(name, fields)
        parts += map(_as_learned, new) if is_learned else new
    return parts


def template_text(text: str) -> str:
    """Text as a template writes it: its braces twice."""
    return text.replace("{", "{{").replace("}", "}}")


def _split(template: str) -> Iterator[tuple[str, str]]:
    """Texts and names of fields, one of the two at a time; braces in texts are single again."""
    text, end = "", 0
    for found in _FIELD.finditer(template):
        text += template[end : found.start()]
        end = found.end()
        if not found[1]:
            text += found[0][0]
            continue
        if text:
            yield text, ""
        yield "", found[1]
        text = ""
    if text + template[end:]:
        yield text + template[end:], ""


def _field_parts(name: str, fields: Mapping[str, Sequence[Part]]) -> Sequence[Part]:
    if name in fields:
        return fields[name]
    if name == "cut":
        return [Cut()]
    if name in ("bos", "eos") or not name.isidentifier():
        return [Special(name)]
    raise ValueError(f"template field {{{name}}} is unknown, known here are: {', '.join(sorted(fields))}")


def _as_learned(part: Part) -> Part:
    return replace(part, is_answer=True) if isinstance(part, Text | Special) else part


def show(parts: Iterable[Part], *, slots: Mapping[str, str] | None = None, bos: str = "<s>", eos: str = "</s>") -> str:
    """The prompt as one text for people and logs, without the token that opens it. Never tokenised.

    Args:
        parts: the prompt.
        slots: branch -> how one of its slots is written, `<ImageHere>` by default.
        bos: how the token that opens a text is written.
        eos: how the token that ends one is written.
    """
    text = ""
    for part in parts:
        match part:
            case Text():
                text += part.text
            case Special(name="bos"):
                text += bos if text else ""
            case Special(name="eos"):
                text += eos
            case Special():
                text += part.name
            case Slot():
                text += (slots or {}).get(part.branch, "<ImageHere>") * part.num_tokens
    return text


def drop_leading(ids: Sequence[int], tokens: Sequence[int | None]) -> list[int]:
    """The ids without these tokens at the start, each at most once and in this order."""
    kept = list(ids)
    for token in tokens:
        if kept and token is not None and kept[0] == token:
            kept = kept[1:]
    return kept


def time_text(times_s: Sequence[float]) -> str:
    """Times as the published systems tell them: seconds with one decimal."""
    return ", ".join(str(round(float(time), 1)) for time in times_s)


def _media_fields(media: Sequence[Medium]) -> dict[str, list[Part]]:
    fields: dict[str, list[Part]] = {"media": [Slot(medium.branch, medium.num_tokens) for medium in media]}
    for medium in media:
        fields[medium.kind] = [Slot(medium.branch, medium.num_tokens)]
        if medium.times_s and medium.kind != "audio":
            fields["num_frames"] = [Text(str(len(medium.times_s)))]
            fields["times"] = [Text(time_text(medium.times_s))]
    for name in ("num_frames", "times"):
        fields.setdefault(name, [Text("")])
    return fields
