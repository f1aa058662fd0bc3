"""A benchmark whose samples are given, and an assistant that answers without a model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from avllm.chat.reply import Reply
from avllm.errors import MediaError
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.sample import PromptText, Sample
from avllm.evaluation.scoring import MultipleChoice

OPTIONS = ("left", "right", "up")


@dataclass(frozen=True, kw_only=True)
class Given:
    """Eight clips with five questions each; files are empty."""

    folder: str
    clips: int = 8

    def samples(self) -> Sequence[Sample]:
        return [
            Sample(
                id=f"{clip}/{index}",
                question=f"Where does thing {index} go?",
                media={"video": Path(self.folder) / f"{clip}.mp4"},
                options=OPTIONS,
                truth=(clip + index) % 3,
                category="odd" if index % 2 else "even",
                groups={"length": "short" if clip < 4 else "long"},
            )
            for clip in range(self.clips)
            for index in range(5)
        ]


class FakeAssistant:
    """Chooses by the length of the question; counts what it opens and answers."""

    name = "fake"

    def __init__(self, *, seconds: float = 0.0, broken: str = "none") -> None:
        self.opened: list[str] = []
        self.asked: list[str] = []
        self.seconds, self.broken = seconds, broken

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
            Reply(question=item.question, answer=f"({'ABC'[len(found[0].key + item.question) % 3]})", frames=(0.0, 1.0))
            for item, found in zip(requests, media, strict=True)
        ]


def benchmark(folder: Path, **changes) -> Benchmark:
    """A benchmark of `Given`; its clips are made."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for clip in range(8):
        (folder / "clips" / f"{clip}.mp4").touch()
    settings = {
        "name": "given",
        "data": Given(folder=str(folder / "clips")),
        "score": MultipleChoice(),
        "prompt": PromptText(template="{question}\n{options}"),
        "out": str(folder / "out"),
        "batch": 3,
        **changes,
    }
    return Benchmark(**settings)
