"""WebDataset: tar files whose members of one name make a sample; they are read where they lie, nothing is unpacked."""

import codecs
import json
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avllm.data.annotations import mapping, parse_json
from avllm.data.content_parts import KINDS
from avllm.data.conversations import READING, read_record
from avllm.data.entry_media import KEYS, Reading, kinds_of
from avllm.data.keys import present
from avllm.data.layouts import LAYOUTS
from avllm.data.medium_options import SPANS
from avllm.data.packed import PackedTexts
from avllm.data.records import FilePart, Kind, Record
from avllm.data.tar_members import KIND_OF, RULE, group
from avllm.errors import DataError, MediaError
from avllm.textfile import decoded

log = logging.getLogger(__name__)


class WebDataset:
    """Media with their conversations or captions in tar files.

    Layout: members `KEY.mp4`, `KEY.json`: the part of a name before its first dot is the sample, folders included; keys
    with dots are known by a text of the same name (`avllm.data.tar_members`). The part after it tells what it is:
    `json` an entry as `Conversations` reads it, whose media are the members; `txt` or `caption` a caption; the others
    its videos, pictures and sounds, `KEY.0.jpg`, `KEY.1.jpg` in this order. Samples without a text, and texts without
    the media that they name, are unreadable media; members of another kind are left out and told in `notes`.
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
            ignore: see `Conversations`.
        """

        shards: str
        ratio: float = 1.0
        form: Literal["train", "caption"] = "train"
        sound: Literal["none", "auto", "require"] = "none"
        sampling: str | None = None
        num_frames: int | None = None
        crop: tuple[float, float] | None = None
        ignore: tuple[str, ...] = ()

        def build(self, context: object) -> "WebDataset":
            """Reads the lists of members and the texts.

            Raises:
                DataError: a tar or an entry is wrong, or there are no samples; file and sample are named.
            """
            return WebDataset(self).checked()

    def __init__(self, config: Config) -> None:
        self._reading = Reading(roots=dict.fromkeys(KINDS, ""), **{name: getattr(config, name) for name in READING})
        self.files = shards(config.shards)
        self._others = Counter[str]()
        self._rows = PackedTexts(json.dumps(row) for number in range(len(self.files)) for row in self._read(number))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def notes(self) -> list[str]:
        """What is in the tars and not read."""
        return [f"members .{suffix} are not read ({count})" for suffix, count in sorted(self._others.items())]

    def checked(self) -> "WebDataset":
        """Itself, when there are samples and every entry is right; those that lack a part are logged.

        Raises:
            DataError: none, or a wrong one; file and sample are named.
        """
        faults = []
        for index in range(len(self)):
            try:
                self.record(index, 0)
            except MediaError as error:
                faults.append(str(error))
        if len(faults) == len(self):
            why = faults[0] if faults else "it is empty"
            raise DataError(f"{self.files[0]}: no samples of media and a text; {why}")
        if faults:
            log.warning("%d of %d samples lack a part, the first: %s", len(faults), len(self), faults[0])
        return self

    def record(self, index: int, seed: int) -> Record:
        """The conversation or caption; its media are read when they are opened.

        Raises:
            MediaError: the text or the media are not there.
            DataError: the entry is wrong.
        """
        number, key, text, members, fault = json.loads(self._rows[index])
        where = f"{self.files[number]}:{key}"
        if fault:
            raise MediaError(f"{where}: {fault}")
        record = read_record(_with_media(text, members, where), where, self._reading)
        turns = []
        for turn in record.turns:
            media = tuple(
                replace(medium, source=FilePart(self.files[number], *members[str(medium.source)]))
                for medium in turn.media
            )
            turns.append(replace(turn, media=media))
        return replace(record, turns=tuple(turns))

    def _read(self, number: int) -> Iterator[tuple[int, str, dict[str, str], dict[str, tuple[int, int]], str]]:
        path = self.files[number]
        try:
            with tarfile.open(path, "r:") as tar:  # compressed ones would have to be unpacked for every sample
                infos = [info for info in tar if info.isfile()]
                samples, others = group(info.name for info in infos)
                self._others += others
                by_name = {info.name: info for info in infos}
                for sample in samples:
                    texts, fault = {}, sample.fault
                    for suffix in () if fault else sample.texts:
                        file = tar.extractfile(by_name[sample.texts[suffix]])
                        assert file is not None
                        try:
                            texts[suffix] = decoded(file.read().removeprefix(codecs.BOM_UTF8), f"{suffix}")
                        except DataError as error:
                            fault = str(error)
                    members = {
                        suffix: (by_name[name].offset_data, by_name[name].size) for suffix, name in sample.media.items()
                    }
                    yield number, sample.key, texts, members, fault
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path}: no tar file that can be read in place: {error}; unpack .tar.gz first") from error


def _with_media(texts: Mapping[str, str], members: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entry of a sample with the names of its media.

    Raises:
        MediaError: it names media that are not there.
        DataError: its text is no JSON.
    """
    found: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for suffix in sorted(members, key=_numbers):
        found[KIND_OF[suffix.rpartition(".")[2]]].append(suffix)
    entry = _entry(texts, where)
    for kind in kinds_of(present(entry, f"{where}.json")):
        if not found[kind]:
            raise MediaError(f"{where}: names a {kind}, and the tar has none beside it; {RULE}")
    if "caption" in entry and not members:
        raise MediaError(f"{where}: a caption without a medium beside it; {RULE}")
    media_keys = {key for kind in KINDS for key in KEYS[kind]}
    kept = {key: _without_sources(value) for key, value in entry.items() if key not in media_keys}
    return {**kept, **{kind: names for kind, names in found.items() if names}}


def _entry(texts: Mapping[str, str], where: str) -> Mapping[str, Any]:
    """The JSON; the caption of a text file where there is none, or where it holds facts about the file alone."""
    captions = [text for suffix, text in texts.items() if suffix != "json"]
    if "json" not in texts:
        return {"caption": captions[0]}
    try:
        entry = parse_json(texts["json"], f"{where}.json")
    except json.JSONDecodeError as error:
        raise DataError(f"{where}.json: expected JSON: {error}") from error
    has_layout = any(name in mapping(entry, f"{where}.json") for names in LAYOUTS for name in names)
    return entry if has_layout or not captions else {**entry, "caption": captions[0]}


def _without_sources(turns: Any) -> Any:
    """Turns whose content parts take the sample's media in their order."""
    if not isinstance(turns, list):
        return turns
    bare = []
    for turn in turns:
        if isinstance(turn, dict) and isinstance(turn.get("content"), list):
            turn = {**turn, "content": [_bare_part(part) for part in turn["content"]]}
        bare.append(turn)
    return bare


def _bare_part(part: Any) -> Any:
    kind = next((kind for kind in KINDS if isinstance(part, dict) and str(part.get("type")).startswith(kind)), None)
    if kind is None:
        return part
    return {"type": kind} | {key: value for key, value in part.items() if key in SPANS}


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
