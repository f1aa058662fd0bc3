"""What a judge is asked, the form of its reply, and how the reply is read."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avllm.evaluation.aspects import HIGHEST, Aspect


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge said.

    Args:
        score: a whole number from 0 to `HIGHEST`.
        is_match: whether it took the answer for right, where that was asked.
    """

    score: int
    is_match: bool | None = None


def messages(aspect: Aspect, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The conversation that asks for a verdict on one row of a log, or on those that belong together."""
    example = '{"pred": "yes", "score": 4}' if aspect.asks_verdict else '{"score": 4}'
    pred = ' "pred" is "yes" if they match, else "no".' if aspect.asks_verdict else ""
    form = f"Reply with JSON alone, such as {example}.{pred}"
    return [
        {"role": "system", "content": f"{aspect.instructions}\n{form}"},
        {"role": "user", "content": aspect.asked(rows)},
    ]


def schema(aspect: Aspect) -> dict[str, Any]:
    """JSON schema of a reply."""
    properties: dict[str, Any] = {"score": {"type": "integer", "enum": list(range(HIGHEST + 1))}}
    if aspect.asks_verdict:
        properties = {"pred": {"type": "string", "enum": ["yes", "no"]}, **properties}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def read(aspect: Aspect, reply: str) -> Verdict:
    """Reads a reply: JSON, or a Python dictionary as the published prompts asked for, also within other text.

    A fraction of a score is cut off, as published.

    Raises:
        ValueError: it is not of the form that was asked for.
    """
    found = _mapping(reply)
    score, pred = found.get("score"), str(found.get("pred", "")).strip().lower()
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= HIGHEST:
        raise ValueError(f"expected a score from 0 to {HIGHEST}, got {reply[:80]!r}")
    if aspect.asks_verdict and pred not in ("yes", "no"):
        raise ValueError(f"expected pred yes or no, got {reply[:80]!r}")
    return Verdict(score=int(score), is_match=pred == "yes" if aspect.asks_verdict else None)


def _mapping(reply: str) -> Mapping[str, Any]:
    for braces in re.findall(r"\{[^{}]*\}", reply):
        for parse in (json.loads, ast.literal_eval):
            try:
                found = parse(braces)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(found, Mapping):
                return found
    raise ValueError(f"expected a JSON object, got {reply[:80]!r}")
