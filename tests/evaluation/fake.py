"""A benchmark whose samples are given, and an assistant that answers without a model."""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from avllm.chat.reply import Reply
from avllm.errors import MediaError
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.sample import PromptText, Sample
from avllm.evaluation.scoring import Contains, MultipleChoice

OPTIONS = ("left", "right", "up")
OPEN = "XYZ"  # answers to open questions


@dataclass(frozen=True, kw_only=True)
class Given:
    """Clips with five questions each, multiple choice or open; files are empty."""

    folder: str
    clips: int = 8
    is_open: bool = False

    def samples(self) -> Sequence[Sample]:
        return [
            Sample(
                id=f"{clip}/{index}",
                question=f"Where does thing {index} go?",
                media={"video": Path(self.folder) / f"{clip}.mp4"},
                options=() if self.is_open else OPTIONS,
                truth=None if self.is_open else (clip + index) % 3,
                accepted=(f"({OPEN[(clip + index) % 3]})",) if self.is_open else (),
                category="odd" if index % 2 else "even",
                groups={"length": "short" if clip < 4 else "long"},
            )
            for clip in range(self.clips)
            for index in range(5)
        ]


class FakeAssistant:
    """Chooses by a hash of medium and question; counts what it opens and answers."""

    name = "fake"
    processor = SimpleNamespace(branches={"video": None}, check_reading=lambda kind, **options: kind)

    def __init__(self, *, seconds: float = 0.0, broken: str = "none", letters: str = "ABC") -> None:
        self.opened: list[str] = []
        self.asked: list[str] = []
        self.seconds, self.broken, self.letters = seconds, broken, letters

    def perceive_all(self, *, video, **options):
        self.opened.append(Path(video).name)
        if self.broken in Path(video).name:
            raise MediaError(f"{Path(video).name}: broken")
        medium = SimpleNamespace(kind="video", times_s=(0.0, 1.0))
        return [SimpleNamespace(key=Path(video).name, medium=medium)]

    def answers(self, requests, *, media, **options):
        time.sleep(self.seconds)
        self.asked += [f"{found[0].key}: {item.question}" for item, found in zip(requests, media, strict=True)]
        return [
            Reply(question=item.question, answer=self._choice(found[0].key + item.question), frames=(0.0, 1.0))
            for item, found in zip(requests, media, strict=True)
        ]

    def _choice(self, text: str) -> str:
        return f"({self.letters[zlib.crc32(text.encode()) % len(self.letters)]})"


def benchmark(folder: Path, *, clips: int = 8, **changes) -> Benchmark:
    """A benchmark of `Given`; its clips are made."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for clip in range(clips):
        (folder / "clips" / f"{clip}.mp4").touch()
    settings = {
        "name": "given",
        "data": Given(folder=str(folder / "clips"), clips=clips),
        "score": MultipleChoice(),
        "prompt": PromptText(template="{question}\n{options}"),
        "out": str(folder / "out"),
        "batch": 3,
        **changes,
    }
    return Benchmark(**settings)


def open_benchmark(folder: Path, *, clips: int = 2, **changes) -> Benchmark:
    """The same with open questions."""
    data = Given(folder=str(folder / "clips"), clips=clips, is_open=True)
    return benchmark(folder, clips=clips, data=data, score=Contains(), prompt=PromptText(), **changes)
