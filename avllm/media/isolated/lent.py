"""Files that a decoder process reads without opening them: the parent opens them and lends it the descriptors."""

import io
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from avllm.errors import MediaError
from avllm.media.limits import Limits
from avllm.media.source import Source


class Borrower(Protocol):
    """Asks the parent for a file."""

    def __call__(self, number: int, member: str | None = None) -> tuple["LentSource", int]:
        """A source by its number, or one of the pictures of a folder; with a descriptor of its own."""
        ...


# Set in a decoder process, where alone lent sources are opened.
borrow: Borrower | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LentSource(Source):
    """A container, picture or folder as the child has it.

    Args:
        number: by which the parent knows it.
        label: what FFmpeg takes for the file's name, which can tell it the format.
        members: names of what a folder holds.
    """

    number: int
    label: str = "<none>"
    members: Sequence[str] = ()

    @property
    def file(self) -> Any:
        raw = self._raw()
        raw.name = self.label  # type: ignore[misc]
        return raw

    def open(self) -> io.BufferedReader:
        return io.BufferedReader(self._raw())

    def names(self) -> list[str]:
        return list(self.members)

    def member(self, name: str, limits: Limits) -> Source:
        assert borrow is not None
        source, descriptor = borrow(self.number, name)
        os.close(descriptor)
        return source

    def _raw(self) -> io.FileIO:
        assert borrow is not None
        return io.FileIO(borrow(self.number)[1])


class Lender:
    """What is lent to a child for one medium.

    Args:
        limits: that a picture of a folder is checked against when it is opened.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self._sources = limits, list[Source]()
        self._numbers: dict[tuple[int, str], int] = {}
        self._paths: dict[int, str | Path] = {}
        self._files = ExitStack()

    def lend(self, source: Source) -> Source:
        """The source as the child gets it; what is no file, or a list of some, goes as it is."""
        if isinstance(source.frames, Sequence):
            frames = [self.lend(item) if isinstance(item, Source) else item for item in source.frames]
            return Source(kind=source.kind, name=source.name, frames=frames)
        if source.path is None and source.data is None:
            return source
        return self._add(source)

    def open(self, number: int, member: str | None) -> tuple[LentSource, int]:
        """A source that was lent, or a picture of a folder that was, and a new descriptor of it.

        Raises:
            MediaError: it cannot be opened.
            LookupError: nothing of the kind was lent.
        """
        if member is not None:
            folder = self._sources[number]
            if folder.kind != "folder" or os.path.basename(member) != member or member in ("", ".", ".."):
                raise LookupError(member)
            if (number, member) not in self._numbers:
                self._numbers[number, member] = self._add(folder.member(member, self.limits)).number
            number = self._numbers[number, member]
        source = self._sources[number]
        return _lent(source, number), self._descriptor(number)

    def close(self) -> None:
        """Frees what was in memory."""
        self._files.close()

    def _add(self, source: Source) -> LentSource:
        number = len(self._sources)
        self._sources.append(source)
        if source.data is not None:
            self._paths[number] = self._stored(source.data)
        elif source.path is not None:
            self._paths[number] = source.path
        return _lent(source, number)

    def _stored(self, data: bytes) -> str:
        """Path of a file of these bytes: in memory, where the system has such files."""
        if hasattr(os, "memfd_create"):
            file = self._files.enter_context(os.fdopen(os.memfd_create("avllm-medium"), "wb"))
            path = f"/proc/self/fd/{file.fileno()}"
        else:
            temporary = tempfile.NamedTemporaryFile(prefix="avllm-medium-")  # noqa: SIM115  (the stack closes it)
            file = self._files.enter_context(temporary)
            path = file.name
        file.write(data)
        file.flush()
        return path

    def _descriptor(self, number: int) -> int:
        name = self._sources[number].name
        try:
            # Without waiting for a writer, should it have become a pipe.
            descriptor = os.open(self._paths[number], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise MediaError(f"{name}: cannot be opened ({error.strerror}); check the path") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise MediaError(f"{name}: not a regular file; expected a media file")
        return descriptor


def _lent(source: Source, number: int) -> LentSource:
    about: dict[str, Any] = {} if source.path is None else {"label": source.file}
    if source.kind == "folder":
        about["members"] = source.names()
    return LentSource(kind=source.kind, name=source.name, format=source.format, number=number, **about)
