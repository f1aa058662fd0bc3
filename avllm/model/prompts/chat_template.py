"""Forms made of the chat template that a tokenizer carries: it is asked once, about texts that are easy to find again.

The template itself (jinja) is never given a user's text, which could hold a special token.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2.exceptions import TemplateError

from avllm.errors import ConfigError
from avllm.model.prompts.parts import Form, Prompt, Turn
from avllm.model.prompts.writing import conversation, show, template_text

log = logging.getLogger(__name__)

_SYSTEM, _QUESTIONS, _ANSWERS = (
    "avllm-system",
    ("avllm-first", "avllm-second", "avllm-third"),
    ("avllm-yes", "avllm-no"),
)
_FIELDS = {_SYSTEM: "{system}", **dict.fromkeys(_QUESTIONS, "{user}"), **dict.fromkeys(_ANSWERS, "{answer}")}


@dataclass(frozen=True, kw_only=True)
class Templates:
    """A chat template taken apart; the fields are those of `Form`.

    Args:
        system: system text that the template writes of its own accord.
        special: special tokens that end an answer.
    """

    first: str
    without_system: str | None
    later: str
    answer: str
    system: str
    strips: bool
    special: tuple[str, ...]


def with_chat_template(row: Prompt, tokenizer: Any) -> Prompt:
    """The row with chat and training as the tokenizer's template writes them; the row itself if there is no template.

    Raises:
        ConfigError: the template does not write turns one after the other.
    """
    if not getattr(tokenizer, "chat_template", None):
        return row
    found = take_apart(tokenizer)

    def follow(form: Form) -> Form:
        media = {kind: text for kind, text in form.media.items() if kind or not found.strips}
        # What the row tells at inference only (Mistral) stays; else the template's own default takes its place.
        own = form.system if form.system != row.train.system else found.system
        return replace(
            form,
            first=found.first,
            without_system=found.without_system,
            later=found.later,
            answer=found.answer,
            system=own,
            strips=found.strips,
            media=media,
        )

    return replace(row, chat=follow(row.chat), train=follow(row.train), stop=found.special or row.stop)


def take_apart(tokenizer: Any) -> Templates:
    """Finds out what a tokenizer's chat template writes around the texts of a conversation.

    A template that refuses a system text is taken as one without a place for it.

    Raises:
        ConfigError: as `with_chat_template`.
    """
    try:
        bare = _first(tokenizer, [])
    except TemplateError as error:
        raise ConfigError(f"the tokenizer's chat template refuses a plain question: {error}") from error
    try:
        first = _first(tokenizer, [_message("system", _SYSTEM)])
    except TemplateError as error:
        log.info("the tokenizer's chat template takes no system text (%s); it is left out", error)
        first = bare
    head = [] if _SYSTEM not in first else [_message("system", _SYSTEM)]
    first = first if head else bare
    start = _render(tokenizer, [*head, *_messages(1)], asks=True)
    answered = _render(tokenizer, [*head, *_messages(2)], asks=False)
    asked_again = _render(tokenizer, [*head, *_messages(3)], asks=True)
    if not answered.startswith(start) or not asked_again.startswith(answered):
        raise ConfigError(
            f"the tokenizer's chat template does not write turns one after the other: {start!r} is followed by "
            f"{asked_again!r}; give the tokenizer another template, or none"
        )
    tabbed = f"\t{_QUESTIONS[0]}\t"
    answer, later = answered[len(start) :], asked_again[len(answered) :]
    default = _default_system(first, bare) if head else ""
    found = Templates(
        first=_as_template(first, tokenizer),
        without_system=None if default is not None else _as_template(bare, tokenizer),
        later=_as_template(later, tokenizer),
        answer=_as_template(answer, tokenizer),
        system=default or "",
        strips=tabbed not in _render(tokenizer, [_message("user", tabbed)], asks=True),
        special=tuple(re.findall(_special(tokenizer), answer)) if _special_texts(tokenizer) else (),
    )
    _check(found, tokenizer, [*head, *_messages(5)])
    return found


def _check(found: Templates, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> None:
    """Compares a conversation of three questions, written with the found templates, with the template's own text."""
    form = Form(first=found.first, later=found.later, answer=found.answer)
    turns = [Turn(question=q, answer=a) for q, a in zip(_QUESTIONS, (*_ANSWERS, None), strict=True)]
    system = _SYSTEM if messages[0]["role"] == "system" else None
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    ours = show(conversation(form, turns, system), bos=bos, eos=eos)
    theirs = _render(tokenizer, messages, asks=True)
    if ours != theirs.removeprefix(bos):
        raise ConfigError(
            f"the tokenizer's chat template writes later turns in another way than the second: expected {ours!r}, got "
            f"{theirs!r}; give the tokenizer another template, or none"
        )


def _messages(count: int) -> list[dict[str, str]]:
    """Questions and answers in turn, `count` in all."""
    texts = [text for pair in zip(_QUESTIONS, (*_ANSWERS, ""), strict=True) for text in pair]
    return [_message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts[:count])]


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _first(tokenizer: Any, head: Sequence[Mapping[str, str]]) -> str:
    return _render(tokenizer, [*head, *_messages(1)], asks=True)


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, asks: bool) -> str:
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks)


def _default_system(first: str, bare: str) -> str | None:
    """The system text with which the template gives what it gives without one; None if there is no such text."""
    before, after = first.split(_SYSTEM, maxsplit=1)
    fits = bare.startswith(before) and bare.endswith(after) and len(bare) >= len(before) + len(after)
    return bare[len(before) : len(bare) - len(after)] if fits else None


def _special_texts(tokenizer: Any) -> list[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return sorted({*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}, key=len, reverse=True)


def _special(tokenizer: Any) -> str:
    return "|".join(map(re.escape, _special_texts(tokenizer)))


def _as_template(text: str, tokenizer: Any) -> str:
    """Text of the chat template as one of ours: special tokens and the texts asked about become fields."""
    marks = {tokenizer.eos_token: "{eos}", tokenizer.bos_token: "{bos}"}
    names = {text: marks.get(text, f"{{{text}}}") for text in _special_texts(tokenizer)} | _FIELDS
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pieces = re.split(f"({pattern})", text)
    return "".join(names.get(piece, template_text(piece)) for piece in pieces)
