"""NExT-QA (arXiv:2105.08276): five options about causes, times and descriptions.

Below the folder: `test.csv` and `val.csv` of the multiple choice, `map_vid_vidorID.json`, and the videos as
`NExTVideo/1164/3238737531.mp4`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avllm.data.annotations import mapping, read_json, text
from avllm.errors import DataError
from avllm.evaluation.files import find_video, read_csv
from avllm.evaluation.sample import Sample

TYPES = {
    "CW": "causal: why",
    "CH": "causal: how",
    "TN": "temporal: next",
    "TC": "temporal: at that time",
    "TP": "temporal: before",
    "DC": "descriptive: count",
    "DL": "descriptive: where",
    "DO": "descriptive: other",
}
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")


@dataclass(frozen=True, kw_only=True)
class NextQA:
    """Reader of NExT-QA's multiple choice.

    Args:
        folder: see above.
        split: name of the CSV file.
    """

    folder: str
    split: str = "test"

    def samples(self) -> Iterator[Sample]:
        """The questions.

        Raises:
            DataError: a row is wrong; file and line are named.
        """
        folder = Path(self.folder)
        path = folder / f"{self.split}.csv"
        places_path = folder / "map_vid_vidorID.json"
        places = mapping(read_json(places_path), str(places_path))
        for line, row in enumerate(read_csv(path, ("video", "question", "answer", "qid", "type", *_OPTIONS)), start=2):
            if row["answer"] not in {"0", "1", "2", "3", "4"} or row["video"] not in places:
                raise DataError(
                    f"{path}, line {line}: expected an answer from 0 to 4 and a video of map_vid_vidorID.json, got "
                    f"{row['answer']!r} and {row['video']!r}"
                )
            kind = TYPES.get(row["type"], row["type"])
            yield Sample(
                id=f"{row['video']}_{row['qid']}",
                question=row["question"][:1].upper() + row["question"][1:].strip().rstrip("?") + "?",
                media={"video": find_video(folder / "NExTVideo", text(places, row["video"], str(places_path)))},
                options=tuple(row[name] for name in _OPTIONS),
                truth=int(row["answer"]),
                category=kind,
                groups={"kind": kind.split(":")[0]},
            )
