"""Where the media stand in a question: tags such as `<video>` in the user's text."""

import re
from collections.abc import Collection
from typing import NamedTuple

from avllm.data.records import Kind

# `<Video><VideoHere></Video>` of VideoChat and `<image></image>` are one place each.
TAG = re.compile(r"<\s*(video|image|audio)\s*/?>(?:<\1Here>)?(?:</\1>)?", re.IGNORECASE)
# As tags are written by other tools; they are words here, which `avllm data check` tells.
FOREIGN = re.compile(r"<\|?/?(?:image|video|audio|vision)_?(?:pad|start|end|here|placeholder)?\|?>", re.IGNORECASE)
LINE_END = re.compile(r"[ \t\r]*(?:\n|$)")


class Placed(NamedTuple):
    """A text without its tags.

    Args:
        text: what is left.
        kinds: of the media whose tags were taken out, in order.
        places: for each of them the character of `text` in front of which it stands; None when all stand in front.
    """

    text: str
    kinds: tuple[Kind, ...] = ()
    places: tuple[int, ...] | None = None


def take_tags(said: str, kinds: Collection[Kind]) -> Placed:
    """Takes the tags of some kinds out of a text; those of others are words.

    A text that begins with its tags and goes on in a line of its own (`<video>\\nWhat moves?`) leaves their place to
    the form of the system. Any other is kept to the letter around its tags.

    Args:
        said: by the user.
        kinds: of the media that the entry has.
    """
    found = [tag for tag in TAG.finditer(said) if kind_of(tag) in kinds]
    if not found:
        return Placed(said.strip())
    text, places, end = "", [], 0
    for tag in found:
        text += said[end : tag.start()]
        places.append(len(text))
        end = tag.end()
    named: tuple[Kind, ...] = tuple(kind_of(tag) for tag in found)
    rest = said[end:]
    if not text.strip() and (LINE_END.match(rest) or not rest.strip()):
        return Placed(rest.strip(), named)
    return Placed(text + rest, named, tuple(places))


def words_like_tags(said: str, kinds: Collection[Kind] = ()) -> list[str]:
    """What looks like a tag and stays in the text, each once.

    Args:
        said: by the user.
        kinds: whose tags are taken out.
    """
    tags = [tag.group() for tag in TAG.finditer(said) if kind_of(tag) not in kinds]
    return list(dict.fromkeys([*tags, *(tag for tag in FOREIGN.findall(said) if not TAG.fullmatch(tag))]))


def kind_of(tag: re.Match[str]) -> Kind:
    """Kind of medium whose tag was found."""
    return tag[1].lower()  # type: ignore[return-value]
