"""WebDataset: tar files whose members of one name make a sample; they are read where they lie, nothing is unpacked."""

import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avllm.data.conversations import Conversations, Kind, read_record
from avllm.data.packed import PackedTexts
from avllm.data.records import FilePart, Record
from avllm.errors import DataError

KIND_OF: dict[str, Kind] = {
    **dict.fromkeys(("mp4", "webm", "mkv", "avi", "mov", "gif", "m4v"), "video"),
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp"), "image"),
    **dict.fromkeys(("wav", "flac", "mp3", "ogg", "m4a"), "audio"),
}
TEXTS = ("json", "txt", "caption")


class WebDataset:
    """Media with their conversations or captions in tar files.

    Layout: members `KEY.mp4`, `KEY.json`: the part of a name before its first dot is the sample, folders included; the
    part after it tells what it is: `json` an entry as `Conversations` reads it, without its media; `txt` or `caption` a
    caption; the others its videos, pictures and sounds, `KEY.0.jpg`, `KEY.1.jpg` in this order. Samples without a text
    and members of another kind are left out.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where it is.

        Args:
            shards: a tar file, a folder of them, a pattern with `*`, or a range as in `clips-{00000..00019}.tar`.
            ratio: share among the datasets of a stage.
            form: see `Conversations`.
            sound: see `Conversations`.
            sampling: which frames, as named by `avllm.media.Sampling`; None is the system's setting.
            num_frames: how many; None is the system's setting.
            crop: share of the picture that a random cut keeps, see `Medium`.
        """

        shards: str
        ratio: float = 1.0
        form: Literal["train", "caption"] = "train"
        sound: Literal["none", "auto", "require"] = "none"
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None

        def build(self, context: object) -> "WebDataset":
            """Reads the lists of members and the texts.

            Raises:
                DataError: a tar or an entry is wrong; file and sample are named.
            """
            source = WebDataset(self)
            for index in range(len(source)):
                source.record(index, 0)
            return source

    def __init__(self, config: Config) -> None:
        self.config = config
        options = {name: getattr(config, name) for name in ("form", "sound", "sampling", "num_frames", "crop")}
        self._conversations = Conversations.Config(annotations="", root="", **options)
        self.files = shards(config.shards)
        self._rows = PackedTexts(json.dumps(row) for number in range(len(self.files)) for row in self._read(number))

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        """File and sample."""
        number, key, _, _ = json.loads(self._rows[index])
        return f"{self.files[number]}:{key}"

    def record(self, index: int, seed: int) -> Record:
        """The conversation or caption; its media are read when they are opened."""
        number, key, entry, members = json.loads(self._rows[index])
        record = read_record(entry, f"{self.files[number]}:{key}", self._conversations)
        turns = []
        for turn in record.turns:
            media = tuple(
                replace(medium, source=FilePart(self.files[number], *members[str(medium.source)]))
                for medium in turn.media
            )
            turns.append(replace(turn, media=media))
        return replace(record, turns=tuple(turns))

    def _read(self, number: int) -> Iterator[tuple[int, str, Any, dict[str, tuple[int, int]]]]:
        path = self.files[number]
        try:
            with tarfile.open(path, "r:") as tar:  # compressed ones would have to be unpacked for every sample
                samples: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
                for member in tar:
                    folder, _, name = member.name.rpartition("/")
                    key, dot, kind = name.partition(".")
                    if member.isfile() and key and dot:
                        samples[f"{folder}/{key}" if folder else key][kind.lower()] = member
                for key, members in samples.items():
                    entry = self._entry(tar, members, f"{path}:{key}")
                    if entry is not None:
                        yield (number, key, *_with_media(entry, members, f"{path}:{key}"))
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path}: no tar file that can be read in place: {error}; unpack .tar.gz first") from error

    def _entry(self, tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], where: str) -> Any:
        kind = next((kind for kind in TEXTS if kind in members), None)
        if kind is None:
            return None
        file = tar.extractfile(members[kind])
        assert file is not None
        try:
            said = file.read().decode("utf-8")
            return json.loads(said) if kind == "json" else {"caption": said}
        except ValueError as error:
            raise DataError(f"{where}.{kind}: expected {'JSON' if kind == 'json' else 'a text'}: {error}") from error


def _with_media(entry: Any, members: dict[str, tarfile.TarInfo], where: str) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The entry with the names of its media, and where they lie: first byte and size."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}.json: expected keys and values, got {type(entry).__name__}")
    found: dict[str, list[str]] = defaultdict(list)
    places = {}
    for suffix, member in members.items():
        kind = KIND_OF.get(suffix.rpartition(".")[2])
        if kind is not None:
            found[kind].append(suffix)
            places[suffix] = (member.offset_data, member.size)
    kept = {key: value for key, value in entry.items() if key.rstrip("s") not in ("video", "image", "audio")}
    return {**kept, **{kind: sorted(names, key=_numbers) for kind, names in found.items()}}, places


def _numbers(suffix: str) -> tuple[Any, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in suffix.split(".")), suffix


def shards(pattern: str) -> list[Path]:
    """Paths of the tar files that a folder, a pattern or a range means, in order.

    Raises:
        DataError: there are none, or one of a range is missing.
    """
    path = Path(pattern)
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if found:
        head, first, last, tail = found.groups()
        paths = [Path(f"{head}{number:0{len(first)}d}{tail}") for number in range(int(first), int(last) + 1)]
    elif path.is_dir():
        paths = sorted(path.glob("*.tar"))
    elif "*" in pattern:
        paths = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    else:
        paths = [path]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise DataError(f"{missing[0] if missing else pattern}: no such tar file; expected shards of a WebDataset")
    return paths
