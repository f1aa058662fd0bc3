"""Code of tests that runs in a decoder process, in place of a decoder that a file has taken over."""


class OnArrival:
    """Does something in the child, as soon as it is received there."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def taken_over(code: str) -> OnArrival:
    """What makes the child run `code`, which knows `end`, the child's end of the sockets, and `send(header, data)`."""
    return OnArrival(exec, f"{_PRELUDE}\n{code}", {})


_PRELUDE = """
import json, os, sys, threading, time
from avllm.errors import MediaError
from avllm.media.isolated import lent
end = lent.borrow.channel.end

def send(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    end.sendall(len(text).to_bytes(4, "big") + text + data)
"""
