"""Names with placeholders, as the tables of `avllm.checkpoints.rename` write them."""

import re
from collections.abc import Mapping
from functools import lru_cache

PLACEHOLDER = re.compile(r"\{(\w+)(?::([^}]*))?\}")
KNOWN = {"i": r"\d+", "j": r"\d+", "n": r"\d+", "w": "weight|bias", "rest": ".+"}


@lru_cache(maxsize=4096)
def compiled(template: str) -> re.Pattern[str]:
    """What matches the names that a template stands for, with what its placeholders stand for as groups."""
    pieces, seen, end = [], set(), 0
    for match in PLACEHOLDER.finditer(template):
        name, choices = match.groups()
        inner = choices or KNOWN.get(name, r"[^.]+")
        pieces += [re.escape(template[end : match.start()]), f"(?P={name})" if name in seen else f"(?P<{name}>{inner})"]
        seen.add(name)
        end = match.end()
    return re.compile("".join([*pieces, re.escape(template[end:])]))


def filled(template: str, groups: Mapping[str, str]) -> str:
    """The name that a template gives with these values."""
    return PLACEHOLDER.sub(lambda match: groups[match[1]], template)


def literal_start(template: str) -> str:
    """What every name of a template starts with."""
    placeholder = PLACEHOLDER.search(template)
    return template if placeholder is None else template[: placeholder.start()]
