"""Shards of stored features: each written whole or not at all, and an index of what they all hold."""

import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from avllm.data.records import FilePart
from avllm.durable import file_whole
from avllm.errors import DiskError

SHARDS = "shards"
MAX_OPEN = 32  # shards, in each process that reads
State = Literal["stored", "silent", "unreadable"]
STATES: tuple[State, ...] = ("stored", "silent", "unreadable")
CONTENT = len(STATES)  # state of a row that finds a medium by its content
KEY, SHARD, STATE, SIZE, MTIME = range(5)  # rows of the index


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a shard says of one medium.

    Args:
        key: of where the medium lies and how it is read.
        content: of what it holds and how it is read; the name of its tensor. Empty when it could not be read.
        source: for people.
        stamp: size and time of change of its file; zeros for what is no file.
        state: stored, without a track of sound, or unreadable.
        reason: of the latter two.
        times_s: seconds of its frames.
    """

    key: str
    content: str = ""
    source: str = ""
    stamp: tuple[int, int] = (0, 0)
    state: State = "stored"
    reason: str = ""
    times_s: tuple[float, ...] = ()


def write_shard(folder: Path, entries: Sequence[Entry], tensors: Mapping[str, Tensor]) -> Path:
    """Writes a shard; it is there whole or not at all, also after a crash.

    Args:
        folder: of the store.
        entries: what it holds; its name is made of their keys.
        tensors: content -> features.
    """
    name = digest(" ".join(entry.key for entry in entries))
    path = folder / SHARDS / f"{name}.safetensors"
    about = {"entries": json.dumps([asdict(entry) for entry in entries]), "written_s": repr(time.time())}
    with file_whole(path) as unfinished:
        save_file(dict(tensors), unfinished, metadata=about)
        unfinished.chmod(folder.stat().st_mode & 0o666)  # safetensors writes for the owner alone
    return path


class ShardIndex:
    """Finds what the shards of a folder hold. Files are opened anew in each process that it is sent to.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names, self._rows = _open_index(folder)
        self._open: OrderedDict[int, _Shard] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardIndex, (self.folder,)

    def peek(self, key: str) -> tuple[State, tuple[int, int]] | None:
        """State and stamp of a key, without opening a shard."""
        row = self._row(key)
        if row is None:
            return None
        state, size, mtime = self._rows[STATE : MTIME + 1, row].tolist()
        return STATES[state], (size, mtime)

    def find(self, key: str) -> tuple[Any, Entry] | None:
        """The open shard that holds the medium of this key or content, and its entry."""
        row = self._row(key)
        if row is None:
            return None
        shard = self._shard(int(self._rows[SHARD, row]))
        entry = shard.entries.get(key)  # None: another key with the same 8 bytes
        return None if entry is None else (shard.file, entry)

    def entries(self) -> list[Entry]:
        """Those of all shards, older ones of the same medium included."""
        return [entry for name in self.names for entry in _read_about(_open_shard(self.folder / SHARDS / name))[0]]

    def _row(self, key: str) -> int | None:
        keys, number = self._rows[KEY], key_number(key)
        row = int(np.searchsorted(keys, number))
        return row if row < len(keys) and keys[row] == number else None

    def _shard(self, number: int) -> "_Shard":
        if number in self._open:
            self._open.move_to_end(number)
        else:
            self._open[number] = _Shard(self.folder / SHARDS / self.names[number])
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return self._open[number]


class _Shard:
    """An open shard; its tensors stay in the file until they are asked for."""

    def __init__(self, path: Path) -> None:
        self.file = _open_shard(path)
        entries = _read_about(self.file)[0]
        self.entries = {entry.key: entry for entry in entries}
        self.entries |= {entry.content: entry for entry in entries if entry.content}


def file_of(source: Any) -> str | os.PathLike[str] | None:
    """The file or folder that a source lies in, if it is named by one."""
    if isinstance(source, FilePart):
        return source.path
    return source if isinstance(source, str | os.PathLike) else None


def files_of(source: Any) -> list[str | os.PathLike[str]]:
    """The files of a source: one, those of a list of frames, or none where frames are in memory."""
    found = [file_of(item) for item in (source if isinstance(source, list) else [source])]
    return [file for file in found if file is not None] if None not in found else []


def stamp_of(source: Any) -> tuple[int, int]:
    """Size and time of change of the files or the folder of a source; zeros where there are none."""
    try:
        found = [os.stat(file) for file in files_of(source)]
    except (OSError, ValueError):  # a URL, or a file is gone
        found = []
    return sum(stat.st_size for stat in found), max((stat.st_mtime_ns for stat in found), default=0)


def digest(text: str) -> str:
    """16 bytes in hexadecimal."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def key_number(key: str) -> int:
    """The first 8 bytes of a key."""
    return int.from_bytes(bytes.fromhex(key)[:8], "little", signed=True)


def _open_shard(path: Path) -> Any:
    return safe_open(path, framework="pt")


def _read_about(file: Any) -> tuple[list[Entry], float]:
    """Entries of an open shard, and when it was written."""
    about = file.metadata()
    plain = json.loads(about["entries"])
    lists = ({**row, "stamp": tuple(row["stamp"]), "times_s": tuple(row["times_s"])} for row in plain)
    return [Entry(**row) for row in lists], float(about["written_s"])


def _open_index(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names of all shards, and [5 n] numbers sorted by key; kept in a file that is named by the shards it covers."""
    names = sorted(path.name for path in (folder / SHARDS).glob("*.safetensors"))
    path = folder / f"index-{digest(' '.join(names))}.npy"
    if not path.exists():
        index = _scan(folder, names)
        if not index.size:
            return names, index
        try:
            with file_whole(path) as unfinished, unfinished.open("wb") as file:
                np.save(file, index)
            for old in folder.glob("index-*.npy"):
                if old != path:
                    old.unlink(missing_ok=True)
        except (OSError, DiskError):  # a store that may only be read
            return names, index
    return names, np.load(path, mmap_mode="r")


def _scan(folder: Path, names: Sequence[str]) -> np.ndarray:
    rows: list[tuple[int, ...]] = []
    written: list[float] = []
    for number, name in enumerate(names):
        entries, written_s = _read_about(_open_shard(folder / SHARDS / name))
        for entry in entries:
            rows.append((key_number(entry.key), number, STATES.index(entry.state), *entry.stamp))
            if entry.content:
                rows.append((key_number(entry.content), number, CONTENT, 0, 0))
        written += [written_s] * (len(rows) - len(written))
    index = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    index = index[:, np.lexsort((np.array(written), index[KEY]))]
    is_newest = np.append(np.diff(index[KEY]) != 0, True)[: index.shape[1]]
    return np.ascontiguousarray(index[:, is_newest])
