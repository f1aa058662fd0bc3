"""The sounds of nano's things and the sound track of a scene."""

import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32

from avllm.nano.world import THINGS, Scene, Sound

LOUDNESS = 0.2  # root mean square of the loudest 50 ms of every sound at gain 1
_FADE_S = 0.01
_NOISE_RATE = 16_000  # noise is drawn at this rate, so that it sounds the same at every sample rate

Wave = Float[np.ndarray, " s"]
# t in seconds from the start, pitch, random generator -> wave of any loudness
Voice = Callable[[Wave, float, np.random.Generator], Wave]


def _tone(t: Wave, hertz: float | Wave) -> Wave:
    """A sine; `hertz` may change over time."""
    if isinstance(hertz, np.ndarray):
        return np.sin(2 * np.pi * np.cumsum(hertz) * (t[1] - t[0]))
    return np.sin(2 * np.pi * hertz * t)


def _buzz(t: Wave, hertz: float, highest: float, tilt: float) -> Wave:
    """Harmonics up to `highest` Hz, each weaker by (1 / number) ** tilt: no alias at any sample rate."""
    numbers = np.arange(1, max(int(highest / hertz), 1) + 1)[:, None]
    turn = np.linspace(0.0, 1.0, 2049)
    # Schroeder's phases keep the sum of many harmonics flat, so that it is loud without a high peak.
    phases = 2 * np.pi * numbers * turn - np.pi * numbers * (numbers - 1) / len(numbers)
    period = (np.sin(phases) / numbers**tilt).sum(0)
    return np.interp((t * hertz) % 1.0, turn, period)


def _hiss(t: Wave, rng: np.random.Generator) -> Wave:
    grid = np.arange(0.0, t[-1] + 2 / _NOISE_RATE, 1 / _NOISE_RATE)
    return np.interp(t, grid, rng.standard_normal(len(grid)))


def _since(t: Wave, period_s: float) -> Wave:
    """Seconds since the last of regular strokes."""
    return t % period_s


def _drum(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """Low beats, four a second."""
    since = _since(t, rng.uniform(0.23, 0.29))
    hertz = pitch * (75 + 90 * np.exp(-since / 0.03))
    return _tone(t, hertz) * np.exp(-since / 0.06) + 0.15 * _hiss(t, rng) * np.exp(-since / 0.006)


def _bell(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """One high stroke whose partials die away."""
    partials = ((1.0, 1.0, 0.55), (2.0, 0.6, 0.4), (2.76, 0.45, 0.3), (5.4, 0.25, 0.15))
    hertz = pitch * rng.uniform(1150, 1250)
    waves = (level * _tone(t, hertz * ratio) * np.exp(-t / decay) for ratio, level, decay in partials)
    return sum(waves, np.zeros_like(t))


def _clock(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """Short dry ticks, five a second, each second one lower."""
    period_s = rng.uniform(0.18, 0.22)
    since = _since(t, period_s)
    hertz = np.where((t // period_s) % 2 == 0, 3200.0, 2300.0) * pitch
    return (np.sin(2 * np.pi * hertz * since) + 0.6 * _hiss(t, rng)) * np.exp(-since / 0.007)


def _car(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """A horn: two long notes of the same chord."""
    length_s = t[-1] + t[1] - t[0]
    middle = rng.uniform(0.42, 0.5) * length_s
    on = (np.abs(t - middle) > 0.06).astype(float)
    chord = sum((_buzz(t, pitch * hertz, 3000, 0.7) for hertz in (330.0, 415.0, 495.0)), np.zeros_like(t))
    return chord * _smooth(on, t)


def _rocket(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """A steady roar of white noise that swells."""
    return _hiss(t, rng) * (0.5 + 0.5 * np.minimum(t / (0.4 * t[-1]), 1.0))


def _ghost(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """A siren: one pure tone that slides up and down an octave."""
    rate = rng.uniform(1.5, 1.9)
    hertz = pitch * 620 * 2 ** (0.62 * np.sin(2 * np.pi * rate * t - np.pi / 2))
    return _tone(t, hertz) + 0.12 * _tone(t, 2 * hertz)


def _bird(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """Quick chirps that rise, seven a second."""
    period_s = rng.uniform(0.13, 0.16)
    since = _since(t, period_s)
    part = np.clip(since / (0.62 * period_s), 0, 1)
    return _tone(t, pitch * (3200 + 2600 * part)) * np.sin(np.pi * part)


def _drone(t: Wave, pitch: float, rng: np.random.Generator) -> Wave:
    """A rough low buzz with many harmonics, fluttering twelve times a second."""
    flutter = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(11, 14) * t)
    return _buzz(t, pitch * 118, 4500, 0.35) * flutter


VOICES: dict[str, Voice] = {
    "drum": _drum,
    "bell": _bell,
    "clock": _clock,
    "car": _car,
    "rocket": _rocket,
    "ghost": _ghost,
    "bird": _bird,
    "drone": _drone,
}
assert set(VOICES) == set(THINGS)


def _smooth(switch: Wave, t: Wave) -> Wave:
    """Rounds the edges of an on/off envelope over the fade time."""
    width = max(int(_FADE_S / (t[1] - t[0])), 1)
    return np.convolve(switch, np.ones(width) / width, mode="same")


def render_sound(sound: Sound, sample_rate: int, seed: int = 0) -> Float32[np.ndarray, " s"]:
    """One sound from its first sample to its last, in -1..1."""
    num = round(sound.seconds * sample_rate)
    t = np.arange(num) / sample_rate
    rng = np.random.default_rng([zlib.crc32(sound.name.encode()), seed])
    wave = VOICES[sound.name](t, sound.pitch, rng)
    fade = np.minimum(np.minimum(t, t[::-1]) / _FADE_S, 1.0)
    wave = wave * fade
    window = max(round(0.05 * sample_rate), 1)
    power = np.cumsum(np.concatenate([[0.0], wave**2]))
    loudest = np.sqrt(max((power[window:] - power[:-window]).max() / window, 1e-12))
    return np.clip(sound.gain * LOUDNESS / loudest * wave, -1, 1).astype(np.float32)


def render_audio(scene: Scene, sample_rate: int = 16_000) -> Float32[np.ndarray, " s"]:
    """The whole sound track of a scene, mono; between the sounds there is only the noise floor."""
    track = np.zeros(round(scene.duration_s * sample_rate), dtype=np.float32)
    rng = np.random.default_rng([zlib.crc32(b"floor"), scene.seed])
    if scene.noise_floor and len(track) > 1:
        t = np.arange(len(track)) / sample_rate
        track += (scene.noise_floor * _hiss(t, rng)).astype(np.float32)
    for place, sound in enumerate(scene.sounds):
        start = round(sound.start_s * sample_rate)
        wave = render_sound(sound, sample_rate, scene.seed + place)[: len(track) - start]
        track[start : start + len(wave)] += wave
    return np.clip(track, -1, 1)
