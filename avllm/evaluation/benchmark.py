"""A benchmark as typed data: one YAML of `eval_configs/`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from avllm import config
from avllm.config import Choice
from avllm.errors import ConfigError, DataError
from avllm.evaluation.extraction import LETTERS
from avllm.evaluation.judge import Judge
from avllm.evaluation.readers import READERS
from avllm.evaluation.sample import PromptText, Sample
from avllm.evaluation.scoring import SCORERS, MultipleChoice
from avllm.evaluation.shuffling import in_orders
from avllm.evaluation.submissions import FORMATS


class Reader(Protocol):
    """Reads a benchmark's published layout."""

    def samples(self) -> Iterable[Sample]:
        """All samples, in a fixed order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is asked, how it is worded and scored, and of which model.

    Args:
        name: for tables.
        data: the reader, by its `kind`, and its options.
        score: how answers are scored, by its `kind`, and its options.
        prompt: how samples are worded.
        judge: who judges open answers beside the score; by default nobody.
        model: name or folder of a system.
        out: folder of the run; by default outputs/eval/NAME_OF_THE_YAML.
        limit: at most so many questions, spread evenly over the benchmark.
        shuffle_options: in how many orders of its options each multiple choice is asked, the published one among them.
        batch: questions answered side by side.
        workers: threads that decode and encode media ahead.
        trusted_media: decode in this process, and not in others that a file can do less harm in.
        audio: whether the sound of a video is used.
        num_frames: frames to look at; by default the system's.
        max_new_tokens: longest answer.
        max_missing: highest share of samples without an answer (no media, or unreadable ones); more is a failure.
        dtype: of the weights, fp32, bf16 or fp16; by default the model's.
        device: for example cpu or cuda; by default what there is.
        submission: also write the file that this benchmark's server wants; see `avllm.evaluation.submissions`.
    """

    name: str
    data: Any
    score: Annotated[Any, Choice(SCORERS)]
    prompt: PromptText = field(default_factory=PromptText)
    judge: Judge = field(default_factory=Judge)
    model: str = "nano"
    out: str = ""
    limit: int | None = None
    shuffle_options: int = 1
    batch: int = 16
    workers: int = 1
    trusted_media: bool = False
    audio: Literal["auto", "require", "off"] = "auto"
    num_frames: int | None = None
    max_new_tokens: int = 64
    max_missing: float = 0.0
    dtype: str | None = None
    device: str | None = None
    submission: str = ""

    def __post_init__(self) -> None:
        for name in ("batch", "workers", "limit", "num_frames", "max_new_tokens", "shuffle_options"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected 1 or more, got {value}")
        if self.submission and self.submission not in FORMATS:
            raise ConfigError(f"submission: {self.submission!r} is unknown, known are: {', '.join(FORMATS)}")
        if not 0 <= self.max_missing <= 1:
            raise ConfigError(f"max_missing: expected a share from 0 to 1, got {self.max_missing}")

    def samples(self) -> list[Sample]:
        """The samples to answer.

        Raises:
            DataError: the annotations are missing or wrong, an id occurs twice, there are no options to shuffle, or
                samples cannot be scored as `score` says.
        """
        found = list(self.data.samples())
        self._require_scored(found)
        seen: set[str] = set()
        for sample in found:
            if sample.id in seen:
                raise DataError(f"{self.name}: the id {sample.id!r} occurs twice")
            seen.add(sample.id)
        units: dict[str, list[Sample]] = {}
        for sample in found:
            units.setdefault(sample.together or sample.id, []).append(sample)
        whole = list(units.values())
        if self.limit is not None and self.limit < len(whole):
            whole = [whole[index * len(whole) // self.limit] for index in range(self.limit)]
            found = [sample for unit in whole for sample in unit]
        shows = "{options}" in self.prompt.template and any(sample.options for sample in found)
        if self.shuffle_options > 1 and not shows:  # ScienceQA's stand in its questions
            raise DataError(f"shuffle_options: {self.name} has no options in its prompt; leave it at 1")
        return [one for sample in found for one in in_orders(sample, self.shuffle_options)]

    def _require_scored(self, samples: Sequence[Sample]) -> None:
        """Raises DataError where what is right is of another kind than the score, or options are more than letters."""
        for sample in samples:
            if isinstance(self.score, MultipleChoice) and not sample.options:
                raise DataError(f"score.kind: choice is for multiple choice, the sample {sample.id} has no options")
            if len(sample.options) > len(LETTERS):
                count = len(sample.options)
                raise DataError(f"{self.name}: the sample {sample.id} has {count} options, letters are {len(LETTERS)}")
        is_choice = any(sample.options for sample in samples) and not any(sample.accepted for sample in samples)
        if is_choice and not isinstance(self.score, MultipleChoice):
            raise DataError(f"score.kind: {self.name} has options and no accepted answers; it is scored by kind choice")


def read_benchmark(
    name: str | Path, overrides: Sequence[str] = (), readers: Mapping[str, type] | None = None
) -> Benchmark:
    """Reads a benchmark's YAML.

    Args:
        name: a path, or a name in `eval_configs/`.
        overrides: `a.b=c`.
        readers: kinds of data beside the published layouts.

    Raises:
        ConfigError: no such file, or a key or value is wrong.
    """
    path = config.find_file("eval_configs", name)
    table = {**READERS, **(readers or {})}
    # The reader's kinds are known only here: layers above bring their own.
    typed = make_dataclass(
        "Benchmark", [("data", Annotated[Any, Choice(table)])], bases=(Benchmark,), frozen=True, kw_only=True
    )
    benchmark = config.load(typed, path, overrides)
    return benchmark if benchmark.out else replace(benchmark, out=f"outputs/eval/{path.stem}")
