"""From a medium to what a branch's encoder takes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from avllm import media
from avllm.model.configuration import Frames
from avllm.model.options import AudioOptions, ImageOptions, VideoOptions, checked, sampling_of
from avllm.model.prompts import Kind


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A medium that has been opened.

    Args:
        kind: what it was opened as.
        branch: whose slots it fills.
        values: normalised frames [t c h w] or log-mel segments [t c f n].
        times_s: seconds of its frames, or of the starts of its segments.
        num_damaged: packets or frames that were damaged and left out.
    """

    kind: Kind
    branch: str
    values: Float[Tensor, "t c *rest"]
    times_s: tuple[float, ...]
    num_damaged: int = 0


def read_image(
    door: Any,
    settings: Frames,
    source: Any,
    options: Mapping[str, Any],
    *,
    branch: str,
    quirks: Collection[str] = (),
) -> Loaded:
    """An image, as a video that shows it `settings.image_frames` times.

    Args:
        door: `avllm.media`, or what takes its place.
        settings: of the video branch.
        source: whatever `avllm.media.open_image` opens.
        options: see `avllm.model.options.ImageOptions`.
        branch: whose slots it shall fill.
        quirks: faults of the published code that are wanted back.

    Raises:
        MediaError: it cannot be read.
        ConfigError: an option is wrong.
    """
    given = checked(ImageOptions, options)
    fit = {**settings.fit_options("image"), "drops_transparency": "drop_transparency" in quirks}
    opened = door.open_image(source, **fit, **_limits(given))
    values = repeat(normalise(opened.frames, settings), "1 c h w -> t c h w", t=settings.image_frames)
    return Loaded(kind="image", branch=branch, values=values, times_s=(0.0,) * settings.image_frames)


def read_video(
    door: Any,
    settings: Frames,
    source: Any,
    options: Mapping[str, Any],
    *,
    branch: str,
    limit: int | None = None,
    quirks: Collection[str] = (),
) -> Loaded:
    """The sampled frames of a video.

    Args:
        door: `avllm.media`, or what takes its place.
        settings: of the video branch.
        source: whatever `avllm.media.open_video` opens.
        options: see `avllm.model.options.VideoOptions`; in place of the settings.
        branch: whose slots it shall fill.
        limit: most frames that the branch holds; None is without.
        quirks: faults of the published code that are wanted back.

    Raises:
        MediaError: it cannot be read.
        ConfigError: an option is wrong, or asks for more frames than the branch holds.
    """
    given = checked(VideoOptions, options)
    opened = door.open_video(
        source,
        sampling_of(given, settings, limit, quirks),
        source_fps=given.source_fps or settings.source_fps,
        **settings.fit_options("video"),
        drops_transparency="drop_transparency" in quirks,
        **_limits(given),
    )
    times = tuple(float(time) for time in opened.times_s)
    values = normalise(opened.frames, settings)
    return Loaded(kind="video", branch=branch, values=values, times_s=times, num_damaged=opened.num_damaged)


def read_audio(
    door: Any,
    settings: media.SegmentConfig | media.FbankConfig,
    source: Any,
    options: Mapping[str, Any],
    *,
    quirks: Collection[str] = (),
) -> Loaded:
    """A sound, as the segments that its encoder looks at.

    Args:
        door: `avllm.media`, or what takes its place.
        settings: of the audio branch.
        source: whatever `avllm.media.open_audio` opens; a video is a source of sound too.
        options: see `avllm.model.options.AudioOptions`.
        quirks: faults of the published code that are wanted back.

    Raises:
        MediaError: it cannot be read, or has no sound.
        ConfigError: an option is wrong.
    """
    wanted = checked(AudioOptions, options)
    part = {"start_s": wanted.start_s, "end_s": wanted.end_s, "source_rate": wanted.source_rate}
    given = {**{name: value for name, value in part.items() if value is not None}, **_limits(wanted)}
    if isinstance(settings, media.FbankConfig):
        rate, is_video = _rate_and_kind(door, settings, source, given)
        audio = door.open_audio(source, sample_rate=rate, **given)
        pictures = media.fbank_of(audio, settings, is_video=is_video, crops_at_random="crop_sounds_at_random" in quirks)
    else:
        audio = door.open_audio(source, sample_rate=settings.sample_rate, **given)
        pictures = media.audio_segments(audio, settings)
    values = torch.from_numpy(pictures)
    return Loaded(kind="audio", branch="audio", values=values, times_s=(), num_damaged=audio.num_damaged)


def _rate_and_kind(door: Any, settings: media.FbankConfig, source: Any, given: Mapping[str, Any]) -> tuple[int, bool]:
    """The rate in Hz at which a sound is opened, and whether it is the track of a video.

    A short sound keeps its own rate, as `fbank_of` resamples it in the published way.
    """
    what = media.resolve(source, given.get("limits"))
    if what.kind == "sound" and what.audio is not None:
        return what.audio.sample_rate, False
    if what.kind in ("samples", "frames"):  # of no rate, or without sound, which the door says
        return settings.sample_rate, False
    info = door.probe(what, **{key: value for key, value in given.items() if key == "limits"})
    tracks = [track for track in info.streams if track.kind == "audio"]
    end_s = min(info.duration_s or float("inf"), given.get("end_s") or float("inf"))
    is_short = end_s - (given.get("start_s") or 0.0) <= settings.seconds
    if info.has_video or not is_short or len(tracks) != 1 or not tracks[0].sample_rate:
        return settings.sample_rate, info.has_video
    return tracks[0].sample_rate, False


def _limits(options: ImageOptions | AudioOptions | VideoOptions) -> dict[str, Any]:
    """As an argument of the door, whose own limits hold where a call has none."""
    return {} if options.limits is None else {"limits": options.limits}


def normalise(frames: Any, settings: Frames) -> Float[Tensor, "t c h w"]:
    """Frames [t h w c] around [0, 255] as a vision encoder takes them."""
    mean, std = (rearrange(torch.tensor(v), "c -> c 1 1") for v in (settings.mean, settings.std))
    pixels = frames if isinstance(frames, Tensor) else torch.tensor(frames)
    return (rearrange(pixels, "t h w c -> t c h w").float() / 255 - mean) / std


def stack_media(loaded: Sequence[Loaded]) -> dict[str, Tensor | list[Tensor]]:
    """Opened media by branch, stacked where they have one shape."""
    stacked: dict[str, Tensor | list[Tensor]] = {}
    for branch in dict.fromkeys(item.branch for item in loaded):
        clips = [item.values for item in loaded if item.branch == branch]
        stacked[branch] = torch.stack(clips) if len({clip.shape for clip in clips}) == 1 else clips
    return stacked
