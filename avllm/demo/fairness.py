"""Whose file is decoded next: the slow files of one visitor hold one decoder, never all of them."""

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avllm.errors import MediaError

_DECODES = frozenset({"probe", "open_video", "open_audio", "open_image"})


class FairMedia:
    """Takes the place of `avllm.media`; every file goes through one of a few decoders, in turn.

    Files that lie in one folder belong to one visitor, who is given so many decoders at once that one is left for the
    others. Who waits is served in the order of coming, past those whose share is used up.

    Args:
        make_door: makes a decoder, `avllm.media.isolated.IsolatedMedia` or the like; it reads one file at a time.
        num_decoders: files decoded at the same time.
        share: how many of them one visitor has at most.
        wait_seconds: longest wait for a decoder.
    """

    def __init__(
        self, make_door: Callable[[], Any], *, num_decoders: int, share: int = 1, wait_seconds: float = 120.0
    ) -> None:
        self._doors = [make_door() for _ in range(num_decoders)]
        self._idle = list(self._doors)  # the last one used is taken first, so that few processes are ever started
        self._share, self._wait_seconds = share, wait_seconds
        self._busy: Counter[Hashable] = Counter()
        self._waiting: list[tuple[object, Hashable]] = []
        self._changed = threading.Condition()

    def __getattr__(self, name: str) -> Any:
        if name not in _DECODES:
            return getattr(self._doors[0], name)

        def call(source: Any, *args: Any, **options: Any) -> Any:
            with self._decoder(_owner(source)) as door:
                return getattr(door, name)(source, *args, **options)

        return call

    @contextmanager
    def _decoder(self, owner: Hashable) -> Any:
        ticket = object()
        with self._changed:
            self._waiting.append((ticket, owner))
            is_served = self._changed.wait_for(lambda: self._is_next(ticket), self._wait_seconds)
            self._waiting.remove((ticket, owner))
            if is_served:
                door = self._idle.pop()
                self._busy[owner] += 1
            self._changed.notify_all()
        if not is_served:
            raise MediaError("too many files are being read at the moment; try again in a minute")
        try:
            yield door
        finally:
            with self._changed:
                self._idle.append(door)
                self._busy[owner] -= 1
                self._busy += Counter()  # forgets those at zero
                self._changed.notify_all()

    def _is_next(self, ticket: object) -> bool:
        served = next((waiting for waiting, owner in self._waiting if self._busy[owner] < self._share), None)
        return bool(self._idle) and served is ticket

    def start(self) -> None:
        """Starts the decoder that is taken first, ahead of its first file."""
        self._idle[-1].start()

    def close(self) -> None:
        """Ends the decoders."""
        for door in self._doors:
            door.close()


def _owner(source: Any) -> Hashable:
    path = getattr(source, "path", source)
    return Path(path).parent if isinstance(path, str | Path) else None
