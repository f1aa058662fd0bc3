"""MMBench (arXiv:2307.06281): two to four options about an image, asked again with the options turned round.

Below the folder: `mmbench_dev_20230712.tsv`, whose images are in the table; they are unpacked into `images`.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from avllm.durable import write_whole
from avllm.errors import DataError
from avllm.evaluation.files import letter_index, read_csv
from avllm.evaluation.sample import Sample

_ROUND = 1_000_000  # the index of a question that is asked again is higher by a multiple of this
_NONE, _SUFFIXES = ("", "nan", "none"), (".jpg", ".png")


@dataclass(frozen=True, kw_only=True)
class MMBench:
    """Reader of MMBench.

    Args:
        folder: see above.
        file: the table, of any language or split.
    """

    folder: str
    file: str = "mmbench_dev_20230712.tsv"

    def samples(self) -> Iterator[Sample]:
        """The questions; the rounds of one count together, and it is right if all of them are.

        Raises:
            DataError: a row is wrong; file and line are named.
        """
        path = Path(self.folder) / self.file
        rows = read_csv(path, ("index", "question", "hint", "A", "B", "image", "category"), delimiter="\t")
        pictures = {row["index"]: row["image"] for row in rows}
        for line, row in enumerate(rows, start=2):
            where = f"{path}, row {line}"
            if not re.fullmatch(r"\d{1,18}", row["index"], re.ASCII):
                raise DataError(f"{where}: expected a whole number as index, got {row['index']!r}")
            options = tuple(row[letter] for letter in "ABCD" if not _is_none(row.get(letter)))
            answer, hint = row.get("answer"), row["hint"]
            yield Sample(
                id=row["index"],
                question=row["question"] if _is_none(hint) else f"{hint}\n{row['question']}",
                media={"image": self._picture(row["index"], pictures, where)},
                options=options,
                truth=None if _is_none(answer) else letter_index(answer, options, f"{where}.answer"),
                category=row["category"],
                groups={name: row[name] for name in ("l2-category", "split") if not _is_none(row.get(name))},
                together=f"question {int(row['index']) % _ROUND}",
            )

    def _picture(self, index: str, pictures: Mapping[str, str], where: str) -> Path:
        """The image as a file; a cell may name another row's in place of one of its own."""
        text = pictures[index]
        if text in pictures:
            index, text = text, pictures[text]
        stem = Path(self.folder) / "images" / str(int(index) % _ROUND)
        found = next((path for path in map(stem.with_suffix, _SUFFIXES) if os.path.isfile(path)), None)
        if found is not None:
            return found
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise DataError(f"{where}.image: no base64 ({error})") from error
        path = stem.with_suffix(_SUFFIXES[data.startswith(b"\x89PNG")])
        write_whole(path, data)
        return path


def _is_none(value: str | None) -> bool:
    return value is None or value.strip().lower() in _NONE
