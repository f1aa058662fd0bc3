"""nano's world as a benchmark: clips that were never trained on, and the questions about them."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avllm.durable import lock_beside, locked
from avllm.errors import DataError
from avllm.evaluation.sample import Sample
from avllm.nano.sample import TRUTH, sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NanoWorld:
    """Clips as `avllm nano sample` writes them; they are made when they are not there.

    Args:
        folder: gets a folder for each pair of seed and number of clips.
        clips: how many; about nine questions are asked of each.
        seed: of the clips.
    """

    folder: str = "outputs/eval/nano_clips"
    clips: int = 61
    seed: int = 1

    def samples(self) -> Iterator[Sample]:
        """The questions of all clips.

        Raises:
            DataError: the folder holds what is no truth of clips.
            MediaError: a clip cannot be written.
        """
        folder = Path(self.folder) / f"seed{self.seed}_clips{self.clips}"
        truth = folder / TRUTH
        if not truth.is_file():
            logger.info("making %d clips in %s", self.clips, folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock_beside(folder), folder, wait=True):  # of several processes one makes them
                if not truth.is_file():
                    sample(folder, num_clips=self.clips, seed=self.seed)
        for number, line in enumerate(truth.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                for index, asked in enumerate(entry["questions"]):
                    yield Sample(
                        id=f"{Path(entry['file']).stem}/{index}",
                        question=asked["question"],
                        media={"video": folder / entry["file"]},
                        accepted=tuple(asked["accepted"]),
                        category=asked["type"].replace("_", " "),
                        groups={"pairs": "never trained on" if entry["held_out"] else "trained on"},
                    )
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{truth}, line {number}: not as avllm nano sample writes it; remove it") from error


READERS: dict[str, type] = {"nano": NanoWorld}
