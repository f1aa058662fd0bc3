"""Puts the parts of a prompt together.

A form is data: templates with named fields. Only templates are searched for fields; the user's text is put in as it is,
so whatever stands in it (`<ImageHere>`, `</s>`, `{video}`) stays ordinary text.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from avllm.model.prompts.parts import Cut, Form, Medium, Part, Slot, Special, Text, Turn

log = logging.getLogger(__name__)

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


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
            turn = replace(_stripped(turn), answer=turn.answer and turn.answer.strip())
        user = user_parts(form, turn, is_first=index == 0)
        parts += fill(form.later if index else first, {"system": [Text(system)], "user": user})
        if turn.answer is not None:
            answer = fill(form.answer, {"answer": [Text(turn.answer)]})
            parts += map(_as_learned, answer) if turn.is_learned else answer
        elif index + 1 < len(turns):
            raise ValueError(f"turn {index + 1} of {len(turns)} has no answer; only the last may lack one")
    return parts


def user_parts(form: Form, turn: Turn, *, is_first: bool = False) -> list[Part]:
    """The media of a turn in their wording, and its question. The media of a branch keep their order."""
    has_places = bool(turn.media) and turn.places is not None
    if has_places and form.placed is not None:
        return _in_place(turn, form.placed, form.joint)
    question = _taken_out(turn, form.joint) if has_places else turn.question
    parts: list[Part] = [Text(question)]
    kinds = _kinds(turn.media)
    if not kinds and not is_first:
        return parts
    template = form.media.get(kinds, form.media.get("*") if kinds else None)
    if template is not None:
        if has_places and not question:  # nothing is written behind media that are all there is
            template = template.removesuffix("{text}").rstrip()
        return fill(template, {**_media_fields(turn.media), "text": parts})
    for medium in reversed(turn.media):
        alone = form.media.get(medium.kind, f"{{{medium.kind}}} {{text}}")
        parts = fill(alone, {**_media_fields([medium]), "text": parts})
    return parts


def _in_place(turn: Turn, placed: Mapping[str, str], joint: str) -> list[Part]:
    """Texts and media in the order of the question."""
    first, *behind = _texts(turn)
    groups: list[tuple[list[Medium], str]] = []  # media at one place, one of a branch, and the text behind them
    for medium, text in zip(turn.media, behind, strict=True):
        is_alone = not groups or bool(groups[-1][1]) or medium.branch in {other.branch for other in groups[-1][0]}
        groups.append(([medium], text) if is_alone else ([*groups.pop()[0], medium], text))
    pieces: list[list[Part]] = [_text(first, joint)]
    for index, (media, text) in enumerate(groups):
        meets_a_word = bool(text[:1].strip()) or (not text and index + 1 < len(groups))
        pieces += [_wording(placed, media, keeps_space=meets_a_word), _text(text, joint)]
    between = fill(joint, {})
    written = [piece for piece in pieces if piece]
    return [part for index, piece in enumerate(written) for part in (*(between if index else ()), *piece)]


def _text(text: str, joint: str) -> list[Part]:
    text = text.strip() if joint else text
    return [Text(text)] if text else []


def _wording(placed: Mapping[str, str], media: Sequence[Medium], *, keeps_space: bool) -> list[Part]:
    """Media that stand at one place, together if the form has words for that, else one after the other."""
    together = placed.get(_kinds(media))
    alone = [(placed.get(medium.kind, f"{{{medium.kind}}}"), [medium]) for medium in media]
    *first, (template, last) = [(together, media)] if together is not None else alone
    ordered = [*first, (template if keeps_space else template.rstrip(), last)]
    return [part for template, own in ordered for part in fill(template, _media_fields(own))]


def _taken_out(turn: Turn, joint: str) -> str:
    """The question without its media and the white space around it."""
    question = ""
    for text in _texts(turn):
        are_words = bool(question[-1:].strip()) and bool(text[:1].strip())
        question += (joint if are_words else "") + text
    return question.strip()


def _texts(turn: Turn) -> list[str]:
    """The text before the first medium, behind it, and so on."""
    bounds = (0, *(turn.places or ()), len(turn.question))
    return [turn.question[start:end] for start, end in pairwise(bounds)]


def _stripped(turn: Turn) -> Turn:
    """The turn without the white space around its question; media keep their places in it."""
    text, places = turn.question, turn.places or ()
    start = min(len(text) - len(text.lstrip()), *places, len(text))
    end = max(len(text.rstrip()), *places, start)
    moved = None if turn.places is None else tuple(place - start for place in turn.places)
    return replace(turn, question=text[start:end], places=moved)


def _kinds(media: Iterable[Medium]) -> str:
    return "+".join(sorted(medium.kind for medium in media))


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
