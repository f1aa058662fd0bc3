"""nano's kinds of dataset for `avllm train`: scenes drawn at random, seen through the frozen parts of a system."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

BUILD = "avllm nano build"  # makes what stages of this data start from


@dataclass(frozen=True, kw_only=True)
class NanoVideo:
    """Clips of nano's world as the video branch's frozen part sees them, and questions about them.

    Args:
        clips: how many scenes are drawn and encoded, once per system; stages with equal options share them.
        questions: captions alone (stage 1), or every kind (stage 2).
        words: share of the samples whose slots of sound hold words in place of a medium: the decoder compares both.
        turns: questions per sample.
        unnamed: share of things in a colour without a name, so that no look is tied to named colours.
        seed: of the scenes.
        ratio: share among a stage's datasets.
    """

    MADE_BY: ClassVar[str] = BUILD
    DRAWS_FEATURES: ClassVar[bool] = True
    clips: int = 5000
    questions: Literal["captions", "all"] = "all"
    words: float = 0.0
    turns: int = 2
    unnamed: float = 0.3
    seed: int = 0
    ratio: float = 1.0

    def build(self, context: Any) -> Any:
        """Opens it, see `avllm.data.DatasetConfig`."""
        from avllm.nano.stage_data import VideoSource

        return VideoSource(self, context)


@dataclass(frozen=True, kw_only=True)
class NanoAudio:
    """Sequences of pictures in place of sounds, through the frozen vision trunk of the audio branch, and questions.

    Args:
        samples: how many make one pass; each is drawn anew whenever it comes up.
        pictures: how many are encoded, once per system.
        questions: what is heard alone (stage 1), or every kind (stage 2).
        video: share of the samples with a clip in the slots of the video branch, which is frozen.
        clips: scenes for those, see `NanoVideo`.
        turns: questions per sample.
        unnamed: see `NanoVideo`.
        seed: of pictures and scenes.
        ratio: share among a stage's datasets.
    """

    MADE_BY: ClassVar[str] = BUILD
    DRAWS_FEATURES: ClassVar[bool] = True
    samples: int = 6000
    pictures: int = 2400
    questions: Literal["captions", "all"] = "all"
    video: float = 0.0
    clips: int = 5000
    turns: int = 2
    unnamed: float = 0.3
    seed: int = 0
    ratio: float = 1.0

    def build(self, context: Any) -> Any:
        """Opens it, see `avllm.data.DatasetConfig`."""
        from avllm.nano.stage_data import AudioSource

        return AudioSource(self, context)


DATASETS: dict[str, type] = {"nano_video": NanoVideo, "nano_audio": NanoAudio}
