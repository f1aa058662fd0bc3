"""The media that an entry names: by any of the usual keys, with the part of each that is meant."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from avllm.data.annotations import show
from avllm.data.content_parts import KINDS
from avllm.data.medium_options import SPANS, spans
from avllm.data.records import Kind, Medium, media_path
from avllm.errors import DataError

KEYS: Mapping[Kind, tuple[str, ...]] = {
    kind: tuple(f"{kind}{end}" for end in ("", "s", "_path", "_paths", "_file", "_files", "_url", "_urls"))
    for kind in KINDS
}
FRAMES = "frames"
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the entries of a data set are read.

    Args:
        roots: folder of the media of each kind; None where the data set has none.
        form: see `avllm.data.Conversations`, as the others.
        sound: of videos.
        sampling: of videos.
        num_frames: of videos.
        crop: of pictures.
        ignore: keys that are left out.
    """

    roots: Mapping[Kind, str | None]
    form: Literal["train", "caption"] = "train"
    sound: Literal["none", "auto", "require"] = "none"
    sampling: str | None = None
    num_frames: int | None = None
    crop: tuple[float, float] | None = None
    ignore: Collection[str] = ()

    def medium(self, kind: Kind, name: Any, options: Mapping[str, Any], where: str) -> Medium:
        """A medium by its name; what is no text, such as an array, is its own source.

        Raises:
            DataError: a name that is no path below the folder.
        """
        if isinstance(name, list) and kind == "video":
            source: Any = [self._source(kind, item, f"{where}[{index}]") for index, item in enumerate(name)]
        else:
            source = self._source(kind, name, where)
        chosen: dict[str, Any] = {}
        if kind == "video" and "fps" not in options:  # which says how many by itself
            chosen = {"sampling": self.sampling, "num_frames": self.num_frames}
        crop = None if kind == "audio" else self.crop
        return Medium(kind=kind, source=source, options={**chosen, **options}, crop=crop)

    def _source(self, kind: Kind, name: Any, where: str) -> Any:
        if isinstance(name, Mapping):  # as Hugging Face's data sets write a file
            found = [key for key in ("path", "url", "bytes") if name.get(key) is not None]
            if len(found) != 1 or len(set(name) - {"path", "url", "bytes"}):
                raise DataError(f'{where}: expected a path, or {{"path": PATH}}, got {show(name)}')
            return self._source(kind, name[found[0]], f"{where}.{found[0]}")
        if isinstance(name, str | os.PathLike):
            return self._path(kind, os.fspath(name), where)
        if name is None or isinstance(name, bool | int | float | list):
            raise DataError(f"{where}: expected a path below the media root, got {show(name)}")
        return name

    def _path(self, kind: Kind, name: str, where: str) -> Any:
        if name[:5].lower() == "data:":
            return name
        if not name.strip():
            raise DataError(f"{where}: expected a path below the media root, got {name!r}")
        if "://" in name and not name.lower().startswith("file://"):
            raise DataError(f"{where}: {name[:60]} is a URL, which is not read; download it and name the file")
        root = self.roots.get(kind)
        if root is None:
            raise DataError(f"{where}: is about the {kind} {name}; set {kind}s to the folder of the {kind}s")
        return media_path(Path(root), unquote(urlsplit(name).path) if "://" in name else name, where)


def kinds_of(entry: Mapping[str, Any]) -> list[Kind]:
    """Kinds of the media that an entry names."""
    return [kind for kind in KINDS if any(key in entry for key in _keys(kind))]


def read_media(
    entry: Mapping[str, Any], where: str, reading: Reading, num_places: int, options: Mapping[str, Any]
) -> tuple[dict[Kind, list[Medium]], list[str]]:
    """The media of an entry, by kind.

    Args:
        entry: what `avllm.data.keys.present` gave.
        where: names it.
        reading: how.
        num_places: of videos in the questions: pictures in a list under `video` are as many videos of one frame each
            when there are as many places, and the frames of one video when there is one place or none.
        options: of every video.

    Returns:
        The media, and the keys that they were read from.

    Raises:
        DataError: two keys for one kind, a wrong name or a wrong part.
    """
    media: dict[Kind, list[Medium]] = {}
    used: list[str] = []
    for kind in KINDS:
        keys = [key for key in _keys(kind) if key in entry]
        if len(keys) > 1:
            raise DataError(f"{where}: has both {keys[0]} and {keys[1]}; expected one of them")
        media[kind] = []
        for key in keys:
            names = _names(entry[key], key, num_places)
            spots = [f"{where}.{key}[{index}]" for index in range(len(names))]
            own = options if kind == "video" else {}
            media[kind] = [reading.medium(kind, name, own, spot) for name, spot in zip(names, spots, strict=True)]
        used += keys
    timed = [medium for kind in ("video", "audio") for medium in media[kind]]
    given = spans(entry, [medium.kind for medium in timed], where)
    timed = [replace(medium, options={**medium.options, **part}) for medium, part in zip(timed, given, strict=True)]
    for kind in ("video", "audio"):
        media[kind] = [medium for medium in timed if medium.kind == kind]
    return media, [*used, *SPANS]


def _keys(kind: Kind) -> tuple[str, ...]:
    return (*KEYS[kind], FRAMES) if kind == "video" else KEYS[kind]


def _names(value: Any, key: str, num_places: int) -> list[Any]:
    """The names of the media of one kind; the frames of a video are a list within."""
    if not isinstance(value, list):
        return [value]
    is_nested = any(isinstance(item, list) for item in value)
    if key == FRAMES and not is_nested:
        return [value]
    are_frames = len(value) > 1 and key in _keys("video") and all(map(_is_picture, value))
    return [value] if are_frames and num_places <= 1 else value


def _is_picture(name: Any) -> bool:
    return isinstance(name, str) and name.lower().endswith(PICTURES)
