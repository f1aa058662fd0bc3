"""Video-ChatGPT's generative benchmark (arXiv:2306.05424): five aspects of free answers, for a judge.

Below the folder: `generic_qa.json` (whose answers are judged for three aspects), `temporal_qa.json`,
`consistency_qa.json` (two wordings of a question each) and `Test_Videos/NAME.mp4`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avllm.data.annotations import read_entries, text
from avllm.evaluation.files import find_video
from avllm.evaluation.sample import Sample

# File -> keys of the questions of an entry, and what is judged in the answers.
FILES = {
    "generic": (("Q",), ("correctness", "detail", "context")),
    "temporal": (("Q",), ("temporal",)),
    "consistency": (("Q1", "Q2"), ("consistency",)),
}


@dataclass(frozen=True, kw_only=True)
class VideoChatGPT:
    """Reader of the three files.

    Args:
        folder: see above.
        annotations: folder of the JSON files below `folder`, as `Benchmarking_QA`.
        videos: folder of the videos below `folder`.
    """

    folder: str
    annotations: str = ""
    videos: str = "Test_Videos"

    def samples(self) -> Iterator[Sample]:
        """The questions; the two wordings of one belong together.

        Raises:
            DataError: an entry is wrong; file, index and key are named.
        """
        for name, (keys, aspects) in FILES.items():
            rows = read_entries(Path(self.folder) / self.annotations / f"{name}_qa.json")
            for index, (entry, where) in enumerate(rows):
                for key in keys:
                    several = len(keys) > 1
                    yield Sample(
                        id=f"{name}/{index}/{key}" if several else f"{name}/{index}",
                        question=text(entry, key, where),
                        media={"video": find_video(Path(self.folder) / self.videos, text(entry, "video_name", where))},
                        accepted=(text(entry, "A", where),),
                        category=name,
                        together=f"{name}/{index}" if several else "",
                        aspects=aspects,
                    )
