"""Keys of an entry: used, known to change nothing, refused with a reason, or unknown; none is left out in silence."""

import difflib
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from avllm.data.annotations import mapping
from avllm.errors import DataError

# What people and tools write beside a sample without a meaning for what is learned: names, origins, sizes, grades.
NAMES = re.compile(r"(.+_)?(id|ids|idx|index|uid|qid|uuid|key|hash|md5|sha256|url|link|license|source|dataset|version)")
OF_A_MEDIUM = re.compile(r"(video|image|audio|clip|frame|img|vid|youtube|yt)_?.*")
HARMLESS = frozenset(
    """
    source data_source dataset dataset_name datasource subset split origin author annotator creator worker date created
    created_at updated_at model model_name generator meta metadata info extra_info comment comments note notes tags
    keywords title name category categories topic domain task task_name task_type type subtype question_type answer_type
    qtype difficulty level quality score rating similarity clip_score clipscore aesthetic aesthetic_score language lang
    locale width height original_width original_height resolution size aspect_ratio duration duration_s length num_turns
    max_new_tokens temperature num_bytes file_size filesize status error_message exif nsfw punsafe pwatermark channel
    """.split()  # noqa: SIM905  (a list of so many words is easier to read as a text)
)
COMMON = (
    "video",
    "image",
    "audio",
    "videos",
    "images",
    "audios",
    "frames",
    "conversations",
    "messages",
    "caption",
    "QA",
)
_PAIRS = "pairs of better and worse answers are not trained"
_TOOLS = "calls of tools are not trained"
_SAMPLING = "which frames are taken is said for the whole data set: sampling and num_frames"
_SIZE = "the size of pictures is the system's"
_QUESTION = "write it into the question"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("rejected_response", "rejected", "chosen", "rejected_messages", "rejected_images"), _PAIRS),
    **dict.fromkeys(("negative_messages", "positive_messages", "margin"), _PAIRS),
    **dict.fromkeys(("tools", "functions", "tool_choice", "tool_calls", "function_call"), _TOOLS),
    **dict.fromkeys(("fps", "nframes", "num_frames", "max_frames", "min_frames", "sampling"), _SAMPLING),
    **dict.fromkeys(("max_pixels", "min_pixels", "resized_height", "resized_width"), _SIZE),
    **dict.fromkeys(("options", "choices", "candidates"), f"answers to choose from: {_QUESTION}"),
    **dict.fromkeys(("subtitle", "subtitles", "transcript", "asr"), f"what is said: {_QUESTION}"),
    **dict.fromkeys(("objects", "bbox", "bboxes", "boxes"), f"where things are: {_QUESTION}"),
    **dict.fromkeys(("weight", "loss_weight", "sample_weight"), "samples all weigh the same; set ratio of a data set"),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "write it into the answer"),
    "history": "stands beside a question and its answer only",
}


def is_absent(value: Any) -> bool:
    """Whether a value says nothing: null, NaN (as pandas writes what is missing), an empty text, list or mapping."""
    if value is None or (isinstance(value, str | list | tuple | dict) and not value):
        return True
    return isinstance(value, float) and math.isnan(value)


def present(entry: Any, where: str, ignore: Collection[str] = ()) -> dict[str, Any]:
    """An entry without the keys that say nothing and those that are to be ignored.

    Raises:
        DataError: it is no mapping.
    """
    return {key: value for key, value in mapping(entry, where).items() if key not in ignore and not is_absent(value)}


def unused(entry: Mapping[str, Any], used: Collection[str], where: str, *, has_media: bool = True) -> list[str]:
    """The keys that change nothing.

    Args:
        entry: what `present` gave.
        used: keys that are read.
        where: names the entry.
        has_media: it has a medium; without one, a key such as `video_id` is taken for a forgotten file.

    Raises:
        DataError: a key is neither used nor known to change nothing.
    """
    left = [str(key) for key in entry if key not in used]
    for key in left:
        if key in REFUSED:
            raise DataError(f"{where}.{key}: is not used, {REFUSED[key]}; or leave it out by ignore: [{key}]")
        if not has_media and OF_A_MEDIUM.fullmatch(key.lower()):
            raise DataError(
                f"{where}.{key}: seems to name a medium, but the entry has none; expected its file under video, image "
                f"or audio, or leave the key out by ignore: [{key}]"
            )
        if key.lower() not in HARMLESS and not NAMES.fullmatch(key.lower()):
            near = difflib.get_close_matches(key.lower(), {*used, *COMMON}, n=1)
            advice = f"did you mean {near[0]}? If not, " if near else ""
            raise DataError(
                f"{where}.{key}: this key is not known and may change what is learned; {advice}leave it out by "
                f"ignore: [{key}]"
            )
    return left
