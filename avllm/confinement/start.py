"""The first code of a decoder process: it is confined before it imports what reads files."""

import base64
import gc
import importlib
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from avllm.confinement.confine import confine


def start(*, end: int | str, memory_bytes: int, cpu_seconds: int, readable: Sequence[str]) -> None:
    """Gives up rights, then serves its parent until that ends.

    Args:
        end: of the sockets: a descriptor, or on Windows what `socket.share` gave.
        memory_bytes: see `confine`.
        cpu_seconds: see `confine`.
        readable: see `confine`.
    """
    channel = socket.socket(fileno=end) if isinstance(end, int) else _shared(end)
    try:
        confined = confine(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, readable=readable)
        gc.disable()
        serve = importlib.import_module("avllm.media.isolated.child").serve
        gc.freeze()
        gc.enable()
    except Exception as error:
        text = f"a decoder process cannot start: {type(error).__name__}: {error}"
        data = json.dumps({"is": "error", "kind": "InternalError", "text": text[:2000]}).encode()
        channel.sendall(len(data).to_bytes(4, "big") + data)
        os._exit(1)
    serve(channel, confined)
    os._exit(0)


def _shared(end: str) -> Any:
    return socket.fromshare(base64.b64decode(end))  # type: ignore[attr-defined]  (Windows)
