"""Turns read back from texts in which tags mark the places of media, as the cases store them."""

import re
from collections.abc import Callable, Mapping, Sequence

from avllm.model import Form, Medium, Turn
from avllm.model.prompts import show, user_parts


def turn_of(
    text: str,
    tags: str,
    medium_of: Callable[[re.Match[str]], Medium],
    *,
    behind: str | Mapping[str, str] = "\n",
    answer: str | None = None,
) -> Turn:
    """The turn of a question with tags: in front of it, without places, else with the place of each.

    Args:
        text: the question with its tags.
        tags: regular expression of a tag.
        medium_of: the medium of a tag.
        behind: what a form writes between media in front and the question; by the kind of the last one if it depends.
        answer: the answer.
    """
    question, media, places, end = "", [], [], 0
    for found in re.finditer(tags, text, re.DOTALL):
        question += text[end : found.start()]
        places.append(len(question))
        media.append(medium_of(found))
        end = found.end()
    rest = text[end:]
    if media and not any(places):
        space = behind if isinstance(behind, str) else behind[media[-1].kind]
        if rest.startswith(space):
            return Turn(question=rest.removeprefix(space), media=tuple(media), answer=answer)
    return Turn(question=question + rest, media=tuple(media), answer=answer, places=tuple(places) if media else None)


def behind_media(form: Form, message: str, media: Sequence[Medium], slots: Mapping[str, str] | None = None) -> str:
    """The question of a message that begins with its media in the form's own words; all of one that does not."""
    words = show(user_parts(form, Turn(media=tuple(media))), slots=slots)
    return message.removeprefix(words)
