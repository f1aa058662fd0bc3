"""Perception Test (arXiv:2305.13786), multiple choice: three options about memory, physics, semantics and abstraction.

Below the folder: `mc_question_test.json` (or `mc_question_valid.json`, which has answers) and `videos/video_1.mp4`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avllm.data.annotations import entries, member, read_json, text
from avllm.errors import DataError
from avllm.evaluation.files import find_video, whole_number
from avllm.evaluation.sample import Sample


@dataclass(frozen=True, kw_only=True)
class PerceptionTest:
    """Reader of Perception Test's multiple choice.

    Args:
        folder: see above.
        split: the answers of `test` are held by a server.
    """

    folder: str
    split: Literal["test", "valid"] = "valid"

    def samples(self) -> Iterator[Sample]:
        """The questions.

        Raises:
            DataError: an entry is wrong; file, video, index and key are named.
        """
        folder = Path(self.folder)
        path = folder / f"mc_question_{self.split}.json"
        videos = read_json(path)
        if not isinstance(videos, Mapping):
            raise DataError(f"{path}: expected names of videos with their questions")
        for video, entry in videos.items():
            asked = entries(member(entry, "mc_question", f"{path}: {video}"), f"{path}: {video}.mc_question")
            for index, question in enumerate(asked):
                where = f"{path}: {video}.mc_question[{index}]"
                options = tuple(map(str, entries(member(question, "options", where), f"{where}.options")))
                truth = question.get("answer_id")
                if truth is not None:
                    truth = whole_number(truth, below=len(options), where=f"{where}.answer_id")
                yield Sample(
                    id=f"{video}/{member(question, 'id', where)}",
                    question=text(question, "question", where),
                    media={"video": find_video(folder / "videos", video)},
                    options=options,
                    truth=truth,
                    category=str(question.get("area", "")),
                    groups={"reasoning": str(question["reasoning"])} if "reasoning" in question else {},
                )
