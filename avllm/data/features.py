"""Stored features of media in place of the media: found by medium, refused when they are stale."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from avllm.config import to_plain
from avllm.data.feature_shards import SHARDS, Entry, ShardIndex, digest, file_of, files_of, stamp_of
from avllm.data.records import FilePart, Medium
from avllm.durable import write_json
from avllm.errors import ConfigError, DataError, MediaError, NoAudioStream
from avllm.media import content_key
from avllm.model import Branch

MANIFEST, FORMAT = "features.json", 1
HASHED_AT_ONCE = 1 << 24  # values
DRAWN = ("head_tail", "interval_random")  # kinds of sampling that take other frames each time


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Features of a medium, and when its frames are shown."""

    values: Float[Tensor, "t q d"]
    times_s: tuple[float, ...] = ()


class Reading:
    """How the media of a system are read: keys of media, and which of them have fixed features.

    Args:
        processor: of the system.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def settings(self, medium: Medium) -> Any:
        """The media settings that hold for it."""
        return self.processor.branches["audio" if medium.kind == "audio" else "video"].media

    def options(self, medium: Medium) -> dict[str, Any]:
        """Options of `AvllmProcessor.read`, with the system's own where the medium says nothing."""
        given = {name: value for name, value in medium.options.items() if value is not None}
        if medium.kind != "video" or "fps" in given:  # a rate says how many by itself
            return given
        settings = self.settings(medium)
        return {"num_frames": settings.num_frames, "sampling": settings.sampling, **given}

    def key(self, branch: str, medium: Medium) -> str:
        """A digest of where the medium lies and how it is read; of its content when it lies nowhere."""
        source = medium.source
        place = "\n".join(map(str, files_of(source))) or content_key(source, {})
        if isinstance(source, FilePart):
            place += f" {source.start} {source.size}"
        return digest(f"{branch} {medium.kind} {sorted(self.options(medium).items())!r} {place}")

    def content(self, branch: str, medium: Medium, opened: Any = None) -> str:
        """A digest of what the medium holds and how it is read.

        Args:
            branch: that reads it.
            medium: the medium.
            opened: what `medium.opened` gave, if that is done already.
        """
        opened = medium.opened() if opened is None else opened
        return content_key(opened, {"branch": branch, "kind": medium.kind, **self.options(medium)})

    def require_fixed(self, medium: Medium, where: str) -> None:
        """Raises ConfigError when each reading of the medium gives another choice of it."""
        quirks = self.processor.published_quirks
        sampling = self.options(medium).get("sampling")
        if medium.crop is not None:
            drawn, advice = f"crop {list(medium.crop)} cuts at random", "crop=null"
        elif sampling in DRAWN:
            drawn, advice = f"sampling {sampling} draws other frames each time", "sampling=uniform"
        elif medium.kind == "audio" and "crop_sounds_at_random" in quirks:
            drawn, advice = "quirk crop_sounds_at_random cuts at random", "a system without it"
        else:
            return
        raise ConfigError(f"{where}: {drawn}, stored features hold one choice for good; set {advice} of its dataset")


def describe(branch: Branch, name: str, processor: Any) -> dict[str, Any]:
    """What features of a branch depend on, as plain data.

    Args:
        branch: with the weights of its frozen part, where that ends, and its modality.
        name: of the branch.
        processor: of the system.
    """
    fed = "video" if branch.modality == "vision" else name
    return {
        "end": branch.stored_end,
        "modality": branch.modality,
        "weights": fingerprint(branch.feature_weights(branch.stored_end)),
        "encoder": to_plain(processor.branches[name].encoder),
        "media": to_plain(processor.branches[fed].media),
        "quirks": sorted(processor.published_quirks),
    }


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """A digest of names, shapes and values; the same whichever type the values are held in without loss."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(weights.items()):
        found.update(f"{name} {tuple(value.shape)}\n".encode())
        for part in value.detach().flatten().split(HASHED_AT_ONCE):
            found.update(part.float().cpu().numpy().data)
    return found.hexdigest()


def begin(folder: Path, dtype: str, branches: Mapping[str, Any]) -> None:
    """Makes the folder of a store, or goes on in one whose branches are the same or others.

    Raises:
        ConfigError: it holds features of something else.
    """
    path, known = folder / MANIFEST, {}
    if path.exists():
        manifest = read_manifest(folder)
        known = manifest["branches"]
        require_equal(folder, {name: known[name] for name in known if name in branches}, branches)
        if manifest["dtype"] != dtype:
            raise ConfigError(f"{folder}: holds features in {manifest['dtype']}, not {dtype}; give another folder")
        if set(branches) <= set(known):
            return
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    manifest = {"format": FORMAT, "dtype": dtype, "branches": {**known, **branches}}
    write_json(path, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a store says of itself.

    Raises:
        ConfigError: the folder holds no features, or of another version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"features: {folder} holds no features ({error}); make them: avllm features") from error
    if manifest.get("format") != FORMAT:
        raise ConfigError(f"features: {folder} has format {manifest.get('format')}, this version reads {FORMAT}")
    return manifest


def require_equal(folder: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ConfigError, and names what differs, unless the store was made by exactly these branches."""
    for branch in stored:
        if branch not in now:
            raise ConfigError(
                f"features: {folder} holds features of branch {branch}, of which this stage has none: its encoder is "
                f"trained, or there is no such branch; leave features out, or make others: avllm features"
            )
        for name, value in now[branch].items():
            before = stored[branch].get(name)
            if before != value:
                raise ConfigError(
                    f"features: {folder} is stale: {name} of branch {branch} was {_brief(before, value)}; "
                    f"make the features again in another folder: avllm features"
                )


class FeatureStore:
    """Finds stored features by medium. Media need not be there any more; those that are must not have changed.

    Args:
        folder: that `avllm features` wrote.
        processor: of the system that is trained.
    """

    def __init__(self, folder: str | Path, processor: Any) -> None:
        self.folder, self.reading = Path(folder), Reading(processor)
        manifest = read_manifest(self.folder)
        self.branches: dict[str, dict[str, Any]] = manifest["branches"]
        self.index = ShardIndex(self.folder)
        self._unchanged: set[Any] = set()  # media that were only touched or moved

    def load(self, branch: str, medium: Medium) -> Stored:
        """Features of a medium.

        Raises:
            MediaError: the medium could not be read when features were made.
            NoAudioStream: it had no sound.
            DataError: it is not in the store, or has changed since.
        """
        self.reading.require_fixed(medium, str(medium.source))
        found = self._find(branch, medium)
        if found is None:
            raise DataError(
                f"{_shown(medium)}: {self.folder} holds no features of it as branch {branch} reads it now "
                f"({self.reading.options(medium)}); make them: avllm features with this stage and --out {self.folder}"
            )
        file, entry = found
        if entry.state == "silent":
            raise NoAudioStream(entry.reason)
        if entry.state == "unreadable":
            raise MediaError(entry.reason)
        if self._has_changed(branch, medium, entry):
            raise DataError(
                f"{_shown(medium)}: it has changed since its features were stored; make them again: avllm features "
                f"with this stage and --out {self.folder}"
            )
        return Stored(values=file.get_tensor(entry.content), times_s=entry.times_s)

    def is_current(self, key: str, medium: Medium) -> bool:
        """Whether nothing is left to do for a medium, by its file's size and time of change."""
        found = self.index.peek(key)
        if found is None or found[0] == "unreadable":
            return False
        return stamp_of(medium.source) in ((0, 0), found[1])

    def _find(self, branch: str, medium: Medium) -> tuple[Any, Entry] | None:
        found = self.index.find(self.reading.key(branch, medium))
        if found is None and stamp_of(medium.source) != (0, 0):  # moved: found by what it holds
            found = self.index.find(self.reading.content(branch, medium))
        return found

    def _has_changed(self, branch: str, medium: Medium, entry: Entry) -> bool:
        stamp = stamp_of(medium.source)
        seen = (self.reading.key(branch, medium), stamp)
        if stamp in ((0, 0), entry.stamp) or seen in self._unchanged:
            return False
        if self.reading.content(branch, medium) != entry.content:
            return True
        self._unchanged.add(seen)
        return False


def _shown(medium: Medium) -> str:
    file = file_of(medium.source)
    return Path(file).name if file is not None else medium.kind


def _brief(before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        before, now = ({name: side.get(name) for name in changed} for side in (before, now))
    return f"{before}, now it is {now}"
