"""What a visitor set for an answer, within what the configuration allows."""

from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from avllm.demo.config import DemoConfig

Streams = Literal["auto", "require", "off", "only"]
_STREAMS: dict[str, Streams] = {"auto": "auto", "require": "require", "off": "off", "only": "only"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the next answer is made.

    Args:
        model: which of the configured models answers.
        streams: of a video: its sound if there is any, sound required, the picture only (off), the sound only.
        frames: how many are sampled; None takes the model's own number.
        temperature, top_p, num_beams, seed, max_new_tokens: how the answer is written.
        system: in place of the system text of the model's prompt; None keeps that.
    """

    model: str
    streams: Streams
    frames: int | None
    temperature: float
    top_p: float
    num_beams: int
    max_new_tokens: int
    seed: int | None = None
    system: str | None = None

    @classmethod
    def default(cls, config: DemoConfig) -> "Settings":
        """What the configuration says."""
        media, generation = config.media, config.generation
        return cls(
            model=config.model,
            streams=media.audio,
            frames=media.frames,
            temperature=generation.temperature,
            top_p=generation.top_p,
            num_beams=generation.num_beams,
            max_new_tokens=generation.max_new_tokens,
            seed=generation.seed,
            system=config.system,
        )

    @classmethod
    def checked(cls, config: DemoConfig, **given: object) -> "Settings":
        """Takes values from the page, which a visitor can forge; what is out of range is brought back into it.

        Args:
            config: limits and defaults.
            given: values of any type under the names of the fields; those left out stand as configured.
        """
        media, generation, start = config.media, config.generation, cls.default(config)
        seed, system, most = given.get("seed", start.seed), given.get("system"), media.max_frames
        model = str(given.get("model"))
        if isinstance(system, str):
            system = system.strip()[: config.page.max_system_chars] or None
        else:
            system = start.system
        return cls(
            model=model if model in (config.model, *config.models) else start.model,
            streams=_STREAMS.get(str(given.get("streams")), media.audio) if "audio" in media.branches else "off",
            frames=media.frames if most is None else _whole(given.get("frames"), 1, most, media.frames),
            temperature=_within(given.get("temperature"), 0.0, 2.0, generation.temperature),
            top_p=_within(given.get("top_p"), 0.01, 1.0, generation.top_p),
            num_beams=_whole(given.get("num_beams"), 1, generation.max_beams, generation.num_beams),
            max_new_tokens=_whole(
                given.get("max_new_tokens"), 1, generation.max_new_tokens_limit, generation.max_new_tokens
            ),
            seed=_whole(int(seed) if _is_digits(seed) else seed, 0, 2**32 - 1, None),
            system=system,
        )

    def context(self) -> tuple[Any, ...]:
        """What a conversation must be begun anew for, because its files are read in another way."""
        return self.model, self.streams, self.frames

    def generation(self) -> dict[str, Any]:
        """As options of `Session.ask`, where a temperature of 0 is greedy whatever stands beside it."""
        names = ("max_new_tokens", "num_beams", "temperature", "top_p", "seed")
        return {name: getattr(self, name) for name in names}


def _within(value: object, low: float, high: float, default: float) -> float:
    if not _is_number(value):
        return default
    return min(max(value, low), high)


def _whole(value: object, low: int, high: int, default: Any) -> Any:
    return round(_within(value, low, high, low)) if _is_number(value) else default


def _is_digits(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdecimal()


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
