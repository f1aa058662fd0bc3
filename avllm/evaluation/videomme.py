"""Video-MME (arXiv:2405.21075): four options about short, medium and long videos, with subtitles or without.

Below the folder: `test-00000-of-00001.parquet` (or the same rows as `test.json`), `videos/ID.mp4`, `subtitles/ID.srt`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from avllm.data.annotations import entries, member, read_json, text
from avllm.errors import DataError
from avllm.evaluation.files import find_video, letter_index, read_subtitles
from avllm.evaluation.sample import Sample


@dataclass(frozen=True, kw_only=True)
class VideoMME:
    """Reader of Video-MME.

    Args:
        folder: see above.
        subtitles: those that are shown with the frames that the model gets go before the question.
    """

    folder: str
    subtitles: bool = False

    def samples(self) -> Iterator[Sample]:
        """The questions.

        Raises:
            DataError: a row is wrong; file, index and key are named.
        """
        folder = Path(self.folder)
        rows, path = self._rows(folder)
        for index, row in enumerate(rows):
            where = f"{path}[{index}]"
            video = text(row, "videoID", where)
            listed = entries(member(row, "options", where), f"{where}.options")
            options = tuple(re.sub(r"^[A-D][.)]\s*", "", str(option)) for option in listed)
            yield Sample(
                id=text(row, "question_id", where),
                question=text(row, "question", where),
                media={"video": find_video(folder / "videos", video)},
                options=options,
                truth=letter_index(member(row, "answer", where), options, f"{where}.answer"),
                category=text(row, "task_type", where),
                groups={
                    name: text(row, key, where)
                    for name, key in (("duration", "duration"), ("domain", "domain"), ("sub-domain", "sub_category"))
                },
                subtitles=read_subtitles(folder / "subtitles" / f"{video}.srt") if self.subtitles else (),
            )

    def _rows(self, folder: Path) -> tuple[list[Any], Path]:
        path = folder / "test-00000-of-00001.parquet"
        if not path.is_file():
            return entries(read_json(folder / "test.json"), str(folder / "test.json")), folder / "test.json"
        try:
            parquet = import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise DataError(
                f"{path}: reading Parquet needs the package pyarrow (pip install 'avllm[eval]'); or write the same "
                f"rows as {folder / 'test.json'} and move this file away"
            ) from error
        return parquet.read_table(path).to_pylist(), path
