"""How a medium is read where a call says it: options checked by name, type and value before anything is opened."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import numpy as np

from avllm import config as yaml_config
from avllm.errors import ConfigError
from avllm.media import Sampling
from avllm.media.sampling import Kind as FrameChoice
from avllm.model.prompts import Kind

BY_RATE = ("fps", "fps_time")  # samplings that take a rate in place of a number
# Names that other libraries write into content parts for the same things.
SYNONYMS = {
    "start": "start_s",
    "end": "end_s",
    "video_start": "start_s",
    "video_end": "end_s",
    "nframes": "num_frames",
    "sampling_rate": "source_rate",
}
Checked = TypeVar("Checked", "ImageOptions", "VideoOptions", "AudioOptions")


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Of an image.

    Args:
        limits: what it may cost, as `avllm.media.Limits`.
    """

    limits: Any = None


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """Of a sound.

    Args:
        start_s: the part to hear, in seconds from its start.
        end_s: where that part ends, exclusive.
        source_rate: in Hz, of an array, which has no rate of its own.
        limits: what it may cost, as `avllm.media.Limits`.
    """

    start_s: float | None = None
    end_s: float | None = None
    source_rate: int | None = None
    limits: Any = None

    def __post_init__(self) -> None:
        _check_span(self.start_s, self.end_s)
        _check_positive(self, "source_rate")


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Of a video; what is None is as the system's settings say. The fields are those of `avllm.media.Sampling`.

    Args:
        num_frames: how many frames, for samplings that take a number.
        sampling: which ones; its `kind`.
        fps: frames per second. Alone it means the sampling of that name.
        max_frames: most frames; further ones are thinned out evenly.
        keep: see `Sampling`.
        starts_early: see `Sampling`.
        seed: of what is drawn at random, if anything is.
        start_s: the part to see, in seconds from its start.
        end_s: where that part ends, exclusive.
        source_fps: rate of a list or folder of frames; a file has its own.
        limits: what it may cost, as `avllm.media.Limits`.
    """

    num_frames: int | None = None
    sampling: FrameChoice | None = None
    fps: float | None = None
    max_frames: int | None = None
    keep: Literal["spread", "first"] | None = None
    starts_early: bool | None = None
    seed: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    source_fps: float | None = None
    limits: Any = None

    def __post_init__(self) -> None:
        _check_span(self.start_s, self.end_s)
        _check_positive(self, "num_frames", "fps", "max_frames", "source_fps")
        if self.fps is not None and self.sampling not in (None, *BY_RATE):
            raise ConfigError(f"fps: sampling {self.sampling} takes no rate; leave one of them out")
        if self.fps is not None and self.num_frames is not None:
            raise ConfigError("fps, num_frames: give one of them; max_frames bounds how many an fps takes")


OPTIONS: Mapping[Kind, type] = {"video": VideoOptions, "image": ImageOptions, "audio": AudioOptions}
NAMES: Mapping[Kind, frozenset[str]] = {
    kind: frozenset(f.name for f in fields(options)) for kind, options in OPTIONS.items()
}
# Of a whole turn: what its media have in common. `seed` is there that of the answer.
SHARED = ("num_frames", "sampling", "fps", "max_frames", "start_s", "end_s", "source_fps", "source_rate", "limits")


def checked(options: type[Checked], given: Mapping[str, Any]) -> Checked:
    """Options as typed data.

    Args:
        options: those of the kind of medium.
        given: by name; None stands for what was not given.

    Raises:
        ConfigError: an unknown name, one that has no use for this kind, or a wrong value.
    """
    kind: Kind = next(kind for kind, known in OPTIONS.items() if known is options)
    values = {name: _plain(value) for name, value in named(given).items()}
    for name in values:
        others = [other for other, names in NAMES.items() if name in names and name not in NAMES[kind]]
        if others:
            raise ConfigError(f"{name}: has no use for {_a(kind)}, it is an option of {_a(others[0])}")
    return yaml_config.parse(options, values)


def named(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names that are ours, without those that are None.

    Raises:
        ConfigError: one is given under two names.
    """
    result: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if SYNONYMS.get(name, name) in result:
            raise ConfigError(f"{name}: given twice, as {SYNONYMS.get(name, name)} too; leave one out")
        result[SYNONYMS.get(name, name)] = value
    return result


def for_kind(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of options given for media of several kinds, those that one kind has use for; unknown ones stay, to be named."""
    others = frozenset[str]().union(*NAMES.values()) - NAMES[kind]
    return {name: value for name, value in named(given).items() if name not in others}


def require_use(kinds: Collection[Kind], given: Mapping[str, Any]) -> None:
    """That each option given for several media is known, and one of them has use for it.

    Raises:
        ConfigError: one has none; it is named.
    """
    for name in named(given):
        useful = [kind for kind, names in NAMES.items() if name in names]
        if not useful:
            near = yaml_config.nearest(name, (*SHARED, *OPTIONS))
            raise ConfigError(f"{name}: unknown option{near}; media are read by: {', '.join(SHARED)}")
        if not any(kind in useful for kind in kinds):
            there = ", ".join(dict.fromkeys(kinds)) or "none"
            raise ConfigError(f"{name}: is an option of {_a(useful[0])}, and there is none here (new media: {there})")


def sampling_of(options: VideoOptions, settings: Any, limit: int | None, quirks: Collection[str] = ()) -> Sampling:
    """Which frames are taken.

    Args:
        options: of the call.
        settings: `Frames` of the system.
        limit: most frames that the branch holds.
        quirks: faults of the published code that are wanted back.

    Raises:
        ConfigError: more frames are asked for than the branch holds. A rate whose frames are too many in a long video
            is refused when its length is known, unless `max_frames` says to thin them out.
    """
    kind = options.sampling or settings.sampling
    if options.fps is not None and kind not in BY_RATE:
        kind = "fps"
    is_free = kind in (*BY_RATE, "all")
    if is_free and options.num_frames not in (None, settings.num_frames):
        raise ConfigError(f"num_frames: sampling {kind} takes no number; give max_frames, or another sampling")
    num_frames = options.num_frames or settings.num_frames
    max_frames, keep = options.max_frames or settings.max_frames, "first" if "cut_long_videos" in quirks else "spread"
    keep = options.keep or keep
    most = max_frames if is_free else min(num_frames, max_frames or num_frames)
    if limit is not None and most is not None and most > limit:
        name = "max_frames" if most == max_frames else "num_frames"
        raise ConfigError(f"{name}: {most} frames are more than the {limit} that this model holds; ask for {limit}")
    if limit is not None and most is None:
        max_frames, keep = limit, "refuse"
    early = "window_starts_early" in quirks if options.starts_early is None else options.starts_early
    return Sampling(
        kind=kind,
        num_frames=num_frames,
        fps=options.fps or settings.fps,
        start_s=options.start_s,
        end_s=options.end_s,
        starts_early=early,
        max_frames=max_frames,
        keep=keep,  # type: ignore[arg-type]
        seed=options.seed,
    )


def _check_span(start_s: float | None, end_s: float | None) -> None:
    start, end = start_s or 0.0, math.inf if end_s is None else end_s
    if not (0 <= start < end) or end_s == math.inf:
        raise ConfigError(f"start_s, end_s: expected seconds with 0 <= start_s < end_s, got {start_s} and {end_s}")


def _check_positive(options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name}: expected a number above 0, got {value}")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "ai" else f"a {kind}"
