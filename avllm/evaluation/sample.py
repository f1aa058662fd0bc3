"""A question of a benchmark with its media and its truth, and how it is worded."""

import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avllm.errors import ConfigError
from avllm.evaluation.extraction import LETTERS

FIELDS = {"question", "options", "system"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question.

    Args:
        id: unique within the benchmark.
        question: as published, without options.
        media: kind ("video", "image", "audio") -> file or folder of frames.
        options: texts of a multiple choice; none for an open question.
        truth: index of the right option; None when it is not published.
        accepted: right answers to an open question; VQA has ten, of which some may be equal.
        category: what the main table is split by.
        groups: further splits, name -> value, for example duration -> short.
        start_s: where the part that is asked about begins, in seconds.
        end_s: where it ends.
        source_fps: rate of a folder of frames.
        subtitles: start and end in seconds, and text, of each.
        shuffle_of: id of the sample that has the same options in the published order.
        order: where each option stands there.
        together: samples that name the same here count as one question, whose score is that of the worst of them.
        aspects: names in `avllm.evaluation.aspects` of what a judge looks at in the answer.
    """

    id: str
    question: str
    media: Mapping[str, Path] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    truth: int | None = None
    accepted: tuple[str, ...] = ()
    category: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    start_s: float | None = None
    end_s: float | None = None
    source_fps: float | None = None
    subtitles: tuple[tuple[float, float, str], ...] = ()
    shuffle_of: str = ""
    order: tuple[int, ...] = ()
    together: str = ""
    aspects: tuple[str, ...] = ()

    @property
    def media_key(self) -> tuple[Any, ...]:
        """What is looked at and how; samples with equal keys share the work."""
        media = sorted((kind, str(path)) for kind, path in self.media.items())
        return (*(media or [self.id]), self.start_s, self.end_s, self.source_fps)  # text alone has nothing to share

    @property
    def missing(self) -> list[str]:
        """Media that are not there."""
        return [str(path) for path in self.media.values() if not os.path.exists(path)]

    def subtitles_at(self, times_s: Sequence[float]) -> str:
        """The subtitles that are shown at these times, a line each, none twice in a row."""
        shown = [text for time_s in times_s for start, end, text in self.subtitles if start <= time_s <= end]
        return "\n".join(text for text, before in zip(shown, [None, *shown], strict=False) if text != before)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, without what is empty."""
        plain = {**asdict(self), "media": {kind: str(path) for kind, path in self.media.items()}}
        plain |= {name: list(plain[name]) for name in ("options", "accepted", "aspects", "order")}
        plain["subtitles"] = [list(line) for line in self.subtitles]
        return {key: value for key, value in plain.items() if value not in (None, "", {}, [])}


@dataclass(frozen=True, kw_only=True)
class PromptText:
    """How a sample is worded.

    Args:
        template: with the fields `{question}`, `{options}` (a line each, with its letter) and `{system}`.
        option: one line of the options, with `{letter}` and `{text}`.
        subtitles: goes before the template's text if there are subtitles, `{subtitles}`, at the times of the frames.
        system: the system text, in place of the model's own.
        answer_start: what the answer begins with; the model goes on from there.
    """

    template: str = "{question}"
    option: str = "({letter}) {text}"
    subtitles: str = "This video's subtitles are listed below:\n{subtitles}\n"
    system: str | None = None
    answer_start: str = ""

    def __post_init__(self) -> None:
        for name, known in (("template", FIELDS), ("option", {"letter", "text"}), ("subtitles", {"subtitles"})):
            try:
                used = {key for _, key, _, _ in string.Formatter().parse(getattr(self, name)) if key is not None}
            except ValueError as error:
                raise ConfigError(f"prompt.{name}: {error}; write a brace that is text twice") from error
            if used - known:
                fields = ", ".join(f"{{{key}}}" for key in sorted(known))
                raise ConfigError(f"prompt.{name}: unknown field {{{sorted(used - known)[0]}}}, known are: {fields}")

    def text(self, sample: Sample, times_s: Sequence[float] = ()) -> str:
        """The question as the model gets it with frames of these times."""
        lines = [
            self.option.format(letter=letter, text=text) for letter, text in zip(LETTERS, sample.options, strict=False)
        ]
        shown = sample.subtitles_at(times_s)
        before = self.subtitles.format(subtitles=shown) if shown else ""
        fields = {"question": sample.question, "options": "\n".join(lines), "system": self.system or ""}
        return before + self.template.format(**fields)
