"""The bodies of the page's own requests, checked before Gradio reads them."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 256 * 2**10
_MAX_DEPTH = 8
# Gradio takes whatever has a path for a file on the server that somebody wants.
_RENAMED = {"path": "sent"}
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
NOT_JSON = "the request is no JSON that the page sends; reload the page"
NO_SESSION = "the request names no session; reload the page"
NOT_OF_THE_PAGE = "the request does not fit the page; reload it"


class BadRequest(ValueError):
    """A body that the page would not send; the message is for whoever sent it."""


def is_session(text: object) -> bool:
    """Whether it can be the name of a browser tab."""
    return isinstance(text, str) and _SESSION.fullmatch(text) is not None


def checked(body: bytes, num_inputs: Mapping[int, int]) -> bytes:
    """An event of the page with nothing in it but what an event holds, as JSON; what it calls `path` is called `sent`.

    Args:
        body: as it came.
        num_inputs: by the number of each event, how many values come with it.

    Raises:
        BadRequest: it is something else.
    """
    try:
        given = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise BadRequest(NOT_JSON) from error
    if not isinstance(given, dict):
        raise BadRequest(NOT_JSON)
    if not is_session(given.get("session_hash")):
        raise BadRequest(NO_SESSION)
    event, data, trigger = given.get("fn_index"), given.get("data"), given.get("trigger_id")
    if type(event) is not int or num_inputs.get(event) != (len(data) if isinstance(data, list) else None):
        raise BadRequest(NOT_OF_THE_PAGE)
    if trigger is not None and (type(trigger) is not int or abs(trigger) >= 2**31):
        raise BadRequest(NOT_OF_THE_PAGE)
    kept = {
        "session_hash": given["session_hash"],
        "fn_index": event,
        "trigger_id": trigger,
        "data": _plain(data, 1),
        "event_data": _plain(given.get("event_data"), _MAX_DEPTH),
    }
    return json.dumps(kept).encode()


def _plain(value: Any, depth: int) -> Any:
    """The same value where every text can be written down and every number is one."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # halves of characters cannot be sent back
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        if abs(value) >= 2**53 or not math.isfinite(value):
            raise BadRequest(NOT_OF_THE_PAGE)
        return value
    if depth == 0:
        raise BadRequest(NOT_OF_THE_PAGE)
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    return {_RENAMED.get(key, _plain(key, depth)): _plain(item, depth - 1) for key, item in value.items()}


def _refuse(constant: str) -> None:
    raise ValueError(constant)
