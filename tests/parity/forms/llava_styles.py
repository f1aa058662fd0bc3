"""Conversation templates of the LLaVA family, as cases of Video-LLaVA and VideoLLaMA 2 store them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from avllm.model import Form, Medium, Turn
from avllm.model.prompts import Text, conversation, fill, llava, show, template_text
from tests.parity import tags
from tests.parity.check import Check

RUNS = r"(?:<video>)+|(?:<image>)+|(?:<audio>)+"
PARTS = ("one", "two", "three", "four", "five")


def style_form(stored: Mapping[str, Any]) -> Form:
    """Our form of a stored style; the system text is not part of it."""
    style, sep, sep2 = stored["style"], stored["sep"], stored["sep2"]
    if style == "SINGLE":
        return llava.single("")
    if style == "TWO":
        return llava.two("")
    if style in ("LLAMA_2", "LLAMA2"):
        form = llava.llama2("")
        return form if sep else replace(form, later=form.later.removeprefix("{bos}"))
    if style in ("MPT", "QWEN"):
        return llava.chatml("", end="\n" if style == "QWEN" else "")
    if style == "PLAIN" and "<|im_start|>" in stored["one"]:
        form = llava.chatml("")
        return replace(form, first=form.later)
    return Form(
        first=f"{{user}}{template_text(sep or '')}",
        later=f"{{user}}{template_text(sep or '')}",
        answer=f"{{answer}}{template_text(sep2 or '')}",
        media=llava.MEDIA,
    )


@dataclass(frozen=True)
class Said:
    """What stands between the words of the templates.

    Args:
        system: the system text.
        users: questions with the tags of their media.
        answers: the answers.
    """

    system: str
    users: tuple[str, ...]
    answers: tuple[str, ...]


def read(form: Form, text: str, *, system: str | None = None, num_answers: int = 0) -> Said:
    """Takes a prompt apart that a form has written.

    Args:
        form: the form.
        text: the prompt.
        system: its system text; the longest possible if it is not given.
        num_answers: answers in it; each is followed by another question.

    Raises:
        ValueError: the form has not written it.
    """
    template = form.first + (form.answer + form.later) * num_answers
    fields = {name: [Text(f"\0{name}\0")] for name in ("system", "user", "answer")}
    written = re.escape(show(fill(template, fields)))
    longest = "(?P<system>.*)" if system is None else f"(?P<system>{re.escape(system)})"
    written = written.replace(re.escape("\0system\0"), longest)
    for name in ("user", "answer"):
        written = re.sub(re.escape(re.escape(f"\0{name}\0")), "(.*?)", written)
    found = re.fullmatch(written, text, re.DOTALL)
    if found is None:
        raise ValueError(f"no prompt of this form: {text!r}")
    groups = list(found.groups())
    taken = groups.pop(0) if "system" in found.groupdict() else ""
    return Said(taken, tuple(groups[::2]), tuple(groups[1::2]))


def turn_of(user: str, answer: str | None = None) -> Turn:
    """A question with runs of tags as a turn: as many media as runs, with as many slots as a run has tags."""

    def medium(run: re.Match[str]) -> Medium:
        return Medium(kind="video", branch="video", num_tokens=run[0].count("<"))

    return tags.turn_of(user, RUNS, medium, answer=answer)


def run_templates(templates: Mapping[str, Any], check: Check, name: str) -> None:
    """Writes every stored conversation of one turn, of two and so on with our form of its style."""
    for key, stored in templates.items():
        if isinstance(stored, str):
            check.skip(f"{name}.{key}", f"the original stops with {stored}")
            continue
        form, parts = style_form(stored), [part for part in PARTS if part in stored]
        system = read(form, stored["one"]).system
        for part in parts:
            said = read(form, stored[part], system=system, num_answers=PARTS.index(part))
            pairs = zip(said.users, (*said.answers, None), strict=True)
            turns = [turn_of(user, answer) for user, answer in pairs]
            mark = next(iter(re.findall("<video>|<image>|<audio>", stored[part])), "")
            shown = show(conversation(form, turns, system), slots={"video": mark})
            check.same(f"{name}.{key}.{part}", shown, stored[part])
