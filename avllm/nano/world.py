"""nano's world as plain data: scenes of no, one or two things that move, and of sounds."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

THINGS = ("drum", "bell", "clock", "car", "rocket", "ghost", "bird", "drone")
# Hues at least 40 degrees apart, so that no change of brightness carries one colour into another.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (228, 30, 38),
    "yellow": (248, 226, 40),
    "green": (40, 190, 60),
    "cyan": (40, 222, 232),
    "blue": (45, 80, 250),
    "purple": (150, 45, 225),
    "pink": (255, 125, 200),
    "white": (238, 238, 238),
}
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "still")
# Pairs that no training clip ever shows; every thing and every colour is in at most one of them.
HELD_OUT = (("drum", "blue"), ("bell", "green"), ("car", "pink"), ("ghost", "yellow"))

Split = Literal["train", "held_out", "any"]
Rgb = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing of a scene. Lengths are fractions of the frame; `size` of the square root of its area.

    Args:
        colour: name of the colour; None for a colour without a name.
        x, y: middle of its path, from the left and from the top.
        size: radius at the middle of the clip.
        travel: way over the whole clip for left, right, up, down; ratio of sizes for grow and shrink.
        leaves_s: end of its presence; the clip's duration when it stays.
    """

    name: str
    colour: str | None
    rgb: Rgb
    motion: str = "still"
    size: float = 0.18
    x: float = 0.5
    y: float = 0.5
    travel: float = 0.0
    appears_s: float = 0.0
    leaves_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One sound of a scene; `pitch` multiplies all frequencies, `gain` the amplitude."""

    name: str
    start_s: float
    seconds: float = 1.1
    pitch: float = 1.0
    gain: float = 0.6


@dataclass(frozen=True, kw_only=True)
class Background:
    """Four dark corner colours (top left, top right, bottom left, bottom right) and a faint pattern over them."""

    corners: tuple[Rgb, Rgb, Rgb, Rgb] = ((20, 20, 28), (20, 20, 28), (20, 20, 28), (20, 20, 28))
    pattern: str = "plain"
    strength: float = 0.0
    scale: float = 6.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything a clip shows and plays, and how its file is compressed.

    Args:
        things: in order of appearance.
        sounds: in order of time; no two of one name.
        noise: standard deviation of the pixel noise at 48 x 48, in 0..1.
        jitter: standard deviation of the position from frame to frame, as a fraction of the frame.
        noise_floor: standard deviation of the noise under all sounds.
    """

    things: tuple[Thing, ...] = ()
    sounds: tuple[Sound, ...] = ()
    duration_s: float = 4.5
    background: Background = Background()
    brightness: float = 1.0
    noise: float = 0.02
    jitter: float = 0.0
    noise_floor: float = 0.001
    seed: int = 0
    fps: int = 20
    height: int = 240
    width: int = 320
    crf: int = 26
    audio_bit_rate: int = 64_000
    sample_rate: int = 16_000

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def sound_names(self) -> tuple[str, ...]:
        """What is heard, in order."""
        return tuple(sound.name for sound in self.sounds)

    @property
    def matches(self) -> bool | None:
        """Whether the sound is of the thing seen; None unless there is exactly one of each."""
        if len(self.things) != 1 or len(self.sounds) != 1:
            return None
        return self.things[0].name == self.sounds[0].name

    @property
    def shows_held_out(self) -> bool:
        """Whether any thing has a colour that training never showed it in."""
        return any(is_held_out(thing.name, thing.colour) for thing in self.things)


def is_held_out(thing: str, colour: str | None) -> bool:
    """Whether training never shows this thing in this colour."""
    return (thing, colour) in HELD_OUT


def nearest_colour(rgb: Sequence[float]) -> str:
    """The named colour of most similar hue and saturation, whatever the brightness."""
    distances = np.linalg.norm(_directions() - _direction(rgb), axis=1)
    return list(COLOURS)[int(np.argmin(distances))]


def _direction(rgb: Sequence[float]) -> np.ndarray:
    vector = np.asarray(rgb, dtype=np.float64)
    mean = vector.mean()
    return np.array([*(vector - mean), mean * 0.5]) / (vector.max() + 1e-6)


@cache
def _directions() -> np.ndarray:
    return np.stack([_direction(value) for value in COLOURS.values()])


def scene_rng(purpose: str, seed: int, index: int = 0) -> np.random.Generator:
    """A random stream of its own for each purpose ("train", "score", ...), seed and index: no two ever coincide."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), seed % 2**64, index])
