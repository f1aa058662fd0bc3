"""MUSIC-AVQA (arXiv:2203.14072): questions about what is seen and heard in videos of music, in its authors' files.

Below the folder: `avqa-test.json`, and the videos as `VIDEO_ID.mp4` in folders of real and of synthetic ones.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avllm.data.annotations import read_entries, text
from avllm.errors import DataError
from avllm.evaluation.files import find_video
from avllm.evaluation.sample import Sample


@dataclass(frozen=True, kw_only=True)
class MusicAVQA:
    """Reader of MUSIC-AVQA.

    Args:
        folder: see above.
        file: of the split.
        videos: folders of the videos below `folder`; a video is looked for in each.
    """

    folder: str
    file: str = "avqa-test.json"
    videos: tuple[str, ...] = ("MUSIC-AVQA-videos-Real", "MUSIC-AVQA-videos-Synthetic")

    def samples(self) -> Iterator[Sample]:
        """The questions; those that are marked as deleted are left out.

        Raises:
            DataError: an entry is wrong; file, index and key are named.
        """
        for entry, where in read_entries(Path(self.folder) / self.file):
            name, kinds = text(entry, "video_id", where), _listed(entry, "type", where)
            if entry.get("question_deleted"):
                continue
            found = [find_video(Path(self.folder) / videos, name) for videos in self.videos]
            yield Sample(
                id=text(entry, "question_id", where),
                question=_filled(text(entry, "question_content", where), _listed(entry, "templ_values", where), where),
                media={"video": next((path for path in found if os.path.isfile(path)), found[0])},
                accepted=(text(entry, "anser", where),),  # so it is spelled there
                category=": ".join(kinds),
                groups={"about": kinds[0]} if kinds else {},
            )


def _listed(entry: Any, key: str, where: str) -> list[str]:
    """A list that is written as JSON within a text."""
    try:
        found = json.loads(text(entry, key, where))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}.{key}: no JSON within the text ({error})") from error
    if not isinstance(found, list):
        raise DataError(f"{where}.{key}: expected a list within the text, got {found!r}")
    return [str(item) for item in found]


def _filled(question: str, values: list[str], where: str) -> str:
    """The question with its values in place of `<Object>` and the like."""
    parts = re.split(r"<[^<>]+>", question.strip())
    if len(parts) != len(values) + 1:
        raise DataError(f"{where}: {len(parts) - 1} places to fill in {question!r}, and {len(values)} values")
    return "".join(part + value for part, value in zip(parts, [*values, ""], strict=True))
