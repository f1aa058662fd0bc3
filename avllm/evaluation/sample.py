"""A question of a benchmark with its media and its truth, and how it is worded."""

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avllm.errors import ConfigError
from avllm.evaluation.extraction import LETTERS

FIELDS = {"question", "options", "context", "system"}


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
        context: text that goes with the media, such as subtitles.
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
    context: str = ""

    @property
    def media_key(self) -> tuple[Any, ...]:
        """What is looked at and how; samples with equal keys share the work."""
        return (*sorted((k, str(v)) for k, v in self.media.items()), self.start_s, self.end_s, self.source_fps)

    @property
    def missing(self) -> list[str]:
        """Media that are not there."""
        return [str(path) for path in self.media.values() if not path.exists()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, without what is empty."""
        plain = {**asdict(self), "media": {kind: str(path) for kind, path in self.media.items()}}
        plain["options"], plain["accepted"] = list(self.options), list(self.accepted)
        return {key: value for key, value in plain.items() if value not in (None, "", {}, [])}


@dataclass(frozen=True, kw_only=True)
class PromptText:
    """How a sample is worded.

    Args:
        template: with the fields `{question}`, `{options}` (a line each, with its letter), `{context}` and `{system}`.
        option: one line of the options, with `{letter}` and `{text}`.
        context: wording of a context that is there, with `{context}`; put before the template's text.
        system: the system text, in place of the model's own.
        answer_start: what the answer begins with; the model goes on from there.
    """

    template: str = "{question}"
    option: str = "({letter}) {text}"
    context: str = ""
    system: str | None = None
    answer_start: str = ""

    def __post_init__(self) -> None:
        for name, known in (("template", FIELDS), ("option", {"letter", "text"}), ("context", {"context"})):
            try:
                used = {key for _, key, _, _ in string.Formatter().parse(getattr(self, name)) if key is not None}
            except ValueError as error:
                raise ConfigError(f"prompt.{name}: {error}; write a brace that is text twice") from error
            if used - known:
                fields = ", ".join(f"{{{key}}}" for key in sorted(known))
                raise ConfigError(f"prompt.{name}: unknown field {{{sorted(used - known)[0]}}}, known are: {fields}")

    def text(self, sample: Sample) -> str:
        """The question as the model gets it."""
        lines = [
            self.option.format(letter=letter, text=text) for letter, text in zip(LETTERS, sample.options, strict=False)
        ]
        before = self.context.format(context=sample.context) if sample.context else ""
        fields = {"question": sample.question, "options": "\n".join(lines), "context": sample.context}
        return before + self.template.format(**fields, system=self.system or "")
