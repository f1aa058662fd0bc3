"""EgoSchema (arXiv:2308.09126): five options about three minutes of first-person video.

Below the folder: `questions.json`, `subset_answers.json` (500 answers that are published) and `good_clips_git/UID.mp4`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avllm.data.annotations import entries, mapping, read_json, text
from avllm.evaluation.files import find_video, whole_number
from avllm.evaluation.sample import Sample


@dataclass(frozen=True, kw_only=True)
class EgoSchema:
    """Reader of EgoSchema.

    Args:
        folder: see above.
        subset: the 500 questions with published answers alone; else all 5031, whose answers a server holds.
    """

    folder: str
    subset: bool = True

    def samples(self) -> Iterator[Sample]:
        """The questions.

        Raises:
            DataError: an entry is wrong; file, index and key are named.
        """
        folder = Path(self.folder)
        path, answers_path = folder / "questions.json", folder / "subset_answers.json"
        answers = mapping(read_json(answers_path), str(answers_path)) if self.subset or answers_path.is_file() else {}
        for index, entry in enumerate(entries(read_json(path), str(path))):
            where = f"{path}[{index}]"
            name = text(entry, "q_uid", where)
            if self.subset and name not in answers:
                continue
            truth = answers.get(name)
            if truth is not None:
                truth = whole_number(truth, below=5, where=f"{answers_path}: {name}")
            yield Sample(
                id=name,
                question=text(entry, "question", where),
                media={"video": find_video(folder / "good_clips_git", name)},
                options=tuple(text(entry, f"option {number}", where) for number in range(5)),
                truth=truth,
            )
