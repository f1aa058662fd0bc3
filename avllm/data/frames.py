"""How many frames a medium will have, before it is opened, and whether its branch holds them."""

from typing import Any, NamedTuple

from avllm.data.records import Medium
from avllm.errors import DataError

AT_MOST = ("uniform", "head_tail")  # samplings that take fewer frames of a video that has fewer
BY_LENGTH = ("fps", "fps_time", "all")  # those whose number depends on the length of the video


class TooLong(DataError):
    """A sample with more ids or frames than its system holds."""


class Count(NamedTuple):
    """A number of frames or segments.

    Args:
        most: None when only the medium can tell.
        is_sure: it is that number and not less.
    """

    most: int | None
    is_sure: bool


def num_frames(processor: Any, medium: Medium) -> Count:
    """Frames or segments that `AvllmProcessor.read` will take of a medium.

    Args:
        processor: of the system, which has the branch of this kind of medium.
        medium: not opened.
    """
    settings = processor.branches["audio" if medium.kind == "audio" else "video"].media
    if medium.kind == "audio":  # without segments, a sound is one picture
        return Count(getattr(settings, "num_segments", 1), True)
    if medium.kind == "image":
        return Count(settings.image_frames, True)
    sampling, limit = medium.options.get("sampling") or settings.sampling, medium.options.get("max_frames")
    limit = limit or settings.max_frames
    if sampling in BY_LENGTH or medium.options.get("fps"):
        return Count(limit, False)
    count = medium.options.get("num_frames") or settings.num_frames
    most = count if limit is None else min(count, limit)
    if sampling in AT_MOST and isinstance(medium.source, list) and "start_s" not in medium.options:
        return Count(min(most, len(medium.source)), "end_s" not in medium.options)
    return Count(most, sampling not in AT_MOST)


def require_frames(processor: Any, medium: Medium, branch: str, where: str) -> Count:
    """How many there will be, see `num_frames`.

    Args:
        processor: of the system.
        medium: not opened.
        branch: that it goes to.
        where: names the sample.

    Raises:
        TooLong: more than the branch holds.
    """
    count, limit = num_frames(processor, medium), processor.branches[branch].max_frames
    if count.most is not None and limit is not None and count.most > limit:
        raise TooLong(
            f"{where}: {count.most} frames or segments of a medium, the {branch} branch holds {limit}; ask for fewer "
            f"(num_frames of its data set or entry)"
        )
    return count
