"""The child: reads media that its parent lends it, one after the other, and sends back what it found."""

import gc
import logging
import os
import pickle
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from avllm import media
from avllm.errors import AvllmError, InternalError, MediaError
from avllm.media.isolated import lent
from avllm.media.isolated.channel import ChildEnd, Ended
from avllm.media.isolated.results import LONGEST_TEXT, MOST_WARNINGS, described, packed

_TOO_LARGE = "the file needs more memory than one file may take; make it smaller"


class _Kept(logging.Handler):
    """Warnings, for the parent to log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.texts) < MOST_WARNINGS:
            self.texts.append(record.getMessage()[:LONGEST_TEXT])


class _Borrower:
    """Asks the parent for files, over the channel that the medium came on."""

    def __init__(self, channel: ChildEnd) -> None:
        self.channel = channel

    def __call__(self, number: int, member: str | None = None) -> tuple[lent.LentSource, int]:
        self.channel.send({"is": "open", "number": number, "member": member})
        data, descriptors = self.channel.receive()
        found = pickle.loads(data)
        if isinstance(found, Exception):
            raise found
        return found, descriptors[0]


def serve(end: socket.socket, confined: Mapping[str, str]) -> None:
    """Answers until the parent is gone.

    Args:
        end: of the sockets.
        confined: what this process is kept from.
    """
    channel = ChildEnd(end)
    lent.borrow = _Borrower(channel)
    if hasattr(select, "poll"):
        threading.Thread(target=_end_with_parent, args=(end,), daemon=True).start()
    kept = _Kept()
    logging.getLogger("avllm").addHandler(kept)
    channel.send({"is": "ready", "confined": dict(confined)})
    while True:
        try:
            data, _ = channel.receive()
            header, arrays = _outcome(data)
        except (Ended, OSError):
            return
        except MemoryError:  # for the medium on its way here
            header, arrays = described(MediaError(_TOO_LARGE)), []
        channel.send({**header, "warnings": kept.texts}, *arrays)
        del arrays
        gc.collect()
        kept.texts = []


def _outcome(data: bytearray) -> tuple[dict[str, Any], Sequence[np.ndarray]]:
    try:
        name, source, args, options = pickle.loads(data)
        function: Callable[..., Any] = getattr(media, name)
        return packed(function(source, *args, **options))
    except Ended:
        raise
    except AvllmError as error:
        return described(error), []
    except MemoryError:
        return described(MediaError(_TOO_LARGE)), []
    except PermissionError as error:  # this process was kept from something that a library needs
        return described(InternalError.of(error)), []
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # said by the operating system, about the file
            return described(MediaError(f"the file cannot be read ({error.strerror})")), []
        return described(InternalError.of(error)), []


def _end_with_parent(end: socket.socket) -> None:
    """Ends this process when the other end is closed, whatever it is at."""
    waiting = select.poll()
    waiting.register(end, 0)  # a hang-up is always told
    waiting.poll()
    os._exit(1)
