"""What comes back from a question."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and how it came about.

    Args:
        question: as it was asked.
        answer: the model's text.
        streams_used: what the model was given: "video", "image", "audio".
        frames: seconds of the frames it was given.
        model: name or folder of the model.
        timings_s: seconds spent: `decode`, `encode`, `first_token`, `generate`, `total`.
        num_damaged: packets or frames of its media that were damaged and left out.
    """

    question: str
    answer: str
    streams_used: tuple[str, ...] = ()
    frames: tuple[float, ...] = ()
    model: str = ""
    timings_s: Mapping[str, float] = field(default_factory=dict)
    num_damaged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        plain = asdict(self)
        return {
            **plain,
            "streams_used": list(self.streams_used),
            "frames": [round(time, 3) for time in self.frames],
            "timings_s": {name: round(seconds, 4) for name, seconds in self.timings_s.items()},
        }

    def __str__(self) -> str:
        return self.answer
