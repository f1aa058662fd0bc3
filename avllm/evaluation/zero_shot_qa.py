"""MSVD-QA, MSRVTT-QA, TGIF-QA and ActivityNet-QA as open questions, in the layout of Video-ChatGPT and Video-LLaVA.

Below the folder, for example `MSVD_Zero_Shot_QA`: `test_q.json`, `test_a.json`, and the videos in `videos` (or another
folder) as `NAME.mp4`, `.avi`, `.gif`, ...; ActivityNet's files are named `v_NAME`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avllm.data.annotations import entries, member, read_json, text
from avllm.errors import DataError
from avllm.evaluation.files import find_video
from avllm.evaluation.sample import Sample

# The types of ActivityNet-QA (arXiv:1906.02467), by the number in its annotations.
ACTIVITYNET = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")


@dataclass(frozen=True, kw_only=True)
class ZeroShotQA:
    """Reader of the four.

    Args:
        folder: see above.
        videos: folder of the videos, below `folder`.
        prefix: what the names of the files begin with.
    """

    folder: str
    videos: str = "videos"
    prefix: str = ""

    def samples(self) -> Iterator[Sample]:
        """The questions; answers are found by question_id, or by place where there are none.

        Raises:
            DataError: an entry is wrong or has no answer; file, index and key are named.
        """
        folder = Path(self.folder)
        path, answers_path = folder / "test_q.json", folder / "test_a.json"
        asked = entries(read_json(path), str(path))
        answers = _by_id(entries(read_json(answers_path), str(answers_path)))
        for index, entry in enumerate(asked):
            where = f"{path}[{index}]"
            name = str(entry.get("question_id", index)) if isinstance(entry, Mapping) else str(index)
            if name not in answers:
                raise DataError(f"{where}: no answer with question_id {name} in {answers_path}")
            question, kind = text(entry, "question", where).strip(), answers[name].get("type")
            yield Sample(
                id=name,
                question=question if question.endswith("?") else f"{question}?",
                media={"video": self._video(folder, text(entry, "video_name", where))},
                accepted=(text(answers[name], "answer", f"{answers_path}: {name}"),),
                category=_kind(kind, question),
                aspects=("match",),
            )

    def _video(self, folder: Path, name: str) -> Path:
        found = find_video(folder / self.videos, f"{self.prefix}{name}")
        plain = find_video(folder / self.videos, name)
        return plain if self.prefix and not os.path.isfile(found) and os.path.isfile(plain) else found


def _by_id(answers: list[Any]) -> dict[str, Mapping[str, Any]]:
    return {
        str(entry.get("question_id", index)): entry
        for index, entry in enumerate(answers)
        if member(entry, "answer", f"test_a.json[{index}]") is not None
    }


def _kind(kind: Any, question: str) -> str:
    """ActivityNet's type where there is one, else the first word of the question."""
    if isinstance(kind, int) or (isinstance(kind, str) and re.fullmatch(r"\d{1,9}", kind)):
        return ACTIVITYNET[int(kind)] if 0 <= int(kind) < len(ACTIVITYNET) else str(kind)
    first = question.split()[0].lower().strip("?,")
    return first if first in {"what", "who", "how", "when", "where", "is", "does", "which", "why"} else "other"
