"""Members of a tar to samples, by their names alone."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from avllm.data.records import Kind

KIND_OF: Mapping[str, Kind] = {
    **dict.fromkeys(("mp4", "webm", "mkv", "avi", "mov", "gif", "m4v", "mpg", "mpeg"), "video"),
    **dict.fromkeys(("ts", "m2ts", "mts", "vob", "flv", "wmv", "ogv", "3gp"), "video"),
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "heic", "heif", "avif"), "image"),
    **dict.fromkeys(("wav", "flac", "mp3", "ogg", "oga", "m4a", "aac", "opus", "wma"), "audio"),
}
TEXTS = ("json", "txt", "caption")
RULE = "a key ends at the first dot of a name (WebDataset)"


@dataclass(kw_only=True)
class Members:
    """The members of one sample.

    Args:
        key: of the sample, with its folder.
        texts: suffix -> member, of `TEXTS`.
        media: suffix -> member.
        fault: why it is none that can be read; empty where it is.
    """

    key: str
    texts: dict[str, str] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)
    fault: str = ""


def group(names: Iterable[str]) -> tuple[list[Members], Counter[str]]:
    """Samples in the order of the tar, and how many members of each suffix belong to none.

    A key ends at the first dot of a name, as WebDataset has it: `KEY.mp4`, `KEY.0.jpg`, `KEY.json`. Where that would
    tear a medium from its text, because keys have dots (`yt_10.0-20.5.mp4` and `yt_10.0-20.5.json`), the text's name up
    to its last dot is the key.

    Args:
        names: of the members that are files.
    """
    names, others = [name for name in names if _suffix(name)], Counter[str]()
    keys = {name[: -len(_suffix(name)) - 1] for name in names if _suffix(name) in TEXTS}
    samples: dict[str, Members] = {}
    for name in names:
        suffix = _suffix(name)
        if suffix not in TEXTS and suffix not in KIND_OF:
            others[suffix] += 1
            continue
        key = next((start for start in _starts(name) if start in keys), _starts(name)[-1])
        sample = samples.setdefault(key, Members(key=key))
        kind = name[len(key) + 1 :].lower()
        members = sample.texts if suffix in TEXTS else sample.media
        if kind in members:
            sample.fault = f"{name} is there twice"
        members[kind] = name
    for key, sample in list(samples.items()):
        first = samples.get(_starts(f"{key}.")[-1])
        if not sample.media and first not in (None, sample):  # KEY.meta.json beside KEY.json
            others.update(map(_suffix, samples.pop(key).texts.values()))
        sample.fault = sample.fault or _fault(sample)
    return list(samples.values()), others


def _suffix(name: str) -> str:
    """What stands behind the last dot; nothing for hidden files, which tools leave behind."""
    base = name.rpartition("/")[2]
    return "" if base.startswith(".") else base.rpartition(".")[2].lower() if "." in base else ""


def _starts(name: str) -> list[str]:
    """A name up to each of its dots, the last one first."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return [f"{folder}{slash}{'.'.join(parts[:count])}" for count in range(len(parts) - 1, 0, -1)]


def _fault(sample: Members) -> str:
    if not sample.texts:
        names = ", ".join([*sample.media.values()][:3])
        return f"{names}: no .json, .txt or .caption of the same name beside it; {RULE}"
    for kind in ("video", "image", "audio"):
        own = [suffix for suffix in sample.media if KIND_OF[suffix.rpartition(".")[2]] == kind]
        plain = [suffix for suffix in own if "." not in suffix]
        if plain and len(own) > len(plain):
            dotted = next(sample.media[suffix] for suffix in own if "." in suffix)
            return (
                f"{dotted} would be one more {kind} beside {sample.media[plain[0]]}: {RULE}; rename it if it is of "
                f"another sample, or number both (KEY.0.{plain[0]}, KEY.1.{plain[0]})"
            )
    return ""
