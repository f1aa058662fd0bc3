"""Draws random scenes of nano's world."""

import numpy as np

from avllm.nano.world import (
    COLOURS,
    HELD_OUT,
    MOTIONS,
    THINGS,
    Background,
    Rgb,
    Scene,
    Sound,
    Split,
    Thing,
    is_held_out,
    nearest_colour,
)


def sample_scene(
    rng: np.random.Generator,
    *,
    split: Split = "train",
    num_things: int | None = None,
    num_sounds: int | None = None,
    match: bool | None = None,
    thing: str | None = None,
    colour: str | None = None,
    motion: str | None = None,
    unnamed: float = 0.0,
) -> Scene:
    """Draws a scene; what the keywords leave open is random.

    Args:
        split: "train" never shows a held-out pair, "held_out" always shows one (when it shows a thing), "any" may.
        match: whether the only thing is the only sound; asks for one thing and one sound.
        thing, colour, motion: of the first thing.
        unnamed: share of things that get a random colour without a name.
    """
    if match is not None:
        num_things, num_sounds = 1, 1
    if num_things is None:
        num_things = 1 if split == "held_out" else int(rng.choice(3, p=(0.08, 0.57, 0.35)))
    if num_sounds is None:
        num_sounds = int(rng.choice(4, p=(0.15, 0.42, 0.28, 0.15)))
    shortest = 3.5 if num_sounds < 3 and rng.random() < 0.15 else 4.0
    duration_s = round(float(rng.uniform(max(shortest, (0, 0, 3.0, 4.3)[num_sounds]), 5.0)), 2)
    height, width = _frame_size(rng)
    pairs = _pairs(rng, num_things, split=split, thing=thing, colour=colour, unnamed=unnamed)
    things = _place(rng, pairs, duration_s=duration_s, aspect=width / height, motion=motion)
    return Scene(
        things=things,
        sounds=_sounds(rng, [name for name, _, _ in pairs], num_sounds, duration_s=duration_s, match=match),
        duration_s=duration_s,
        background=_background(rng),
        brightness=round(float(rng.uniform(0.78, 1.0)), 3),
        noise=round(float(rng.uniform(0.0, 0.04)), 4),
        jitter=round(float(rng.uniform(0.0, 0.004)), 4),
        noise_floor=round(float(10 ** rng.uniform(-4.0, -2.5)), 6),
        seed=int(rng.integers(2**31)),
        fps=int(rng.choice((12, 15, 20, 24, 25, 30))),
        height=height,
        width=width,
        crf=int(rng.integers(20, 35)),
        audio_bit_rate=int(rng.choice((32_000, 48_000, 64_000, 96_000))),
        sample_rate=int(rng.choice((16_000, 32_000, 44_100))),
    )


def _frame_size(rng: np.random.Generator) -> tuple[int, int]:
    height = int(rng.choice((160, 180, 200, 240, 288, 360), p=(0.2, 0.2, 0.2, 0.2, 0.1, 0.1)))
    aspect = float(rng.choice((1.0, 4 / 3, 16 / 9)))
    return height, 2 * round(height * aspect / 2)


def _pairs(
    rng: np.random.Generator, num_things: int, *, split: Split, thing: str | None, colour: str | None, unnamed: float
) -> list[tuple[str, str | None, Rgb]]:
    """Names and colours of the things, in order of appearance; no two things of one name."""
    names = [str(name) for name in rng.permutation([name for name in THINGS if name != thing])]
    names = ([thing, *names] if thing else names)[:num_things]
    colours: list[str | None] = [str(rng.choice(list(COLOURS))) for _ in names]
    if colour and colours:
        colours[0] = colour
    if split == "held_out" and names:
        chosen = HELD_OUT[rng.integers(len(HELD_OUT))]
        place = int(rng.integers(num_things))
        names = [other if other != chosen[0] else names[place] for other in names]
        names[place], colours[place] = chosen
    if split == "train":
        for place, name in enumerate(names):
            while is_held_out(name, colours[place]):
                if place == 0 and colour:
                    raise ValueError(
                        f"a {colour} {name} is held out of training; ask for split='any' or another colour"
                    )
                colours[place] = str(rng.choice(list(COLOURS)))
    pairs = []
    for name, own in zip(names, colours, strict=True):
        if unnamed and rng.random() < unnamed:
            pairs.append((name, None, random_rgb(rng, name)))
        else:
            assert own is not None
            pairs.append((name, own, _vary(rng, COLOURS[own])))
    return pairs


def random_rgb(rng: np.random.Generator, thing: str) -> Rgb:
    """A colour of any hue, saturation and brightness, but none near a colour held out for this thing."""
    while True:
        hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.0, 1.0) ** 0.5, rng.uniform(0.6, 1.0)
        wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
        rgb = 255 * value * (1 - saturation * (1 - wheel))
        if not is_held_out(thing, nearest_colour(rgb)):
            return _to_rgb(rgb)


def _vary(rng: np.random.Generator, rgb: Rgb) -> Rgb:
    """A slightly different shade under the same name."""
    return _to_rgb(np.array(rgb) * rng.uniform(0.9, 1.0) + rng.normal(0, 5, 3))


def _to_rgb(values: np.ndarray) -> Rgb:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue


def _place(
    rng: np.random.Generator,
    pairs: list[tuple[str, str | None, Rgb]],
    *,
    duration_s: float,
    aspect: float,
    motion: str | None,
) -> tuple[Thing, ...]:
    if len(pairs) == 2:
        return _place_two(rng, pairs, duration_s)
    things = []
    for name, colour, rgb in pairs:
        chosen = motion or str(rng.choice(MOTIONS))
        radius_x, radius_y = aspect**-0.5, aspect**0.5
        travel = 0.0
        if chosen in ("grow", "shrink"):
            size, travel = rng.uniform(0.15, 0.18), rng.uniform(2.0, 2.5)
            reach_x, reach_y = size * travel**0.5 * radius_x, size * travel**0.5 * radius_y
        elif chosen == "still":
            size = rng.uniform(0.13, 0.24)
            reach_x, reach_y = size * radius_x, size * radius_y
        else:
            size = rng.uniform(0.13, 0.19)
            along = radius_x if chosen in ("left", "right") else radius_y
            travel = rng.uniform(0.37, min(0.55, max(0.38, 0.98 - 2 * size * along)))
            reach_x, reach_y = size * radius_x, size * radius_y
            if chosen in ("left", "right"):
                reach_x += travel / 2
            else:
                reach_y += travel / 2
        things.append(
            Thing(
                name=name,
                colour=colour,
                rgb=rgb,
                motion=chosen,
                size=round(float(size), 4),
                x=_within(rng, reach_x),
                y=_within(rng, reach_y),
                travel=round(float(travel), 4),
                leaves_s=duration_s,
            )
        )
    return tuple(things)


def _within(rng: np.random.Generator, reach: float) -> float:
    """A coordinate that keeps a thing of this reach inside the frame, not too far from the middle."""
    room = min(max(0.5 - 0.01 - reach, 0.0), 0.2)
    return round(float(0.5 + rng.uniform(-room, room)), 4)


def _place_two(
    rng: np.random.Generator, pairs: list[tuple[str, str | None, Rgb]], duration_s: float
) -> tuple[Thing, ...]:
    """Both stand still, each in its half; the second comes in the middle third, and in 30 % the first then goes."""
    appears_s = round(float(rng.uniform(0.33, 0.67)) * duration_s, 2)
    leaves_s = round(appears_s + float(rng.uniform(0.0, 0.1)) * duration_s, 2) if rng.random() < 0.3 else duration_s
    sides = rng.permutation([0.25, 0.75])
    times = ((0.0, leaves_s), (appears_s, duration_s))
    return tuple(
        Thing(
            name=name,
            colour=colour,
            rgb=rgb,
            size=round(float(rng.uniform(0.13, 0.19)), 4),
            x=round(float(side + rng.uniform(-0.05, 0.05)), 4),
            y=round(float(0.5 + rng.uniform(-0.2, 0.2)), 4),
            appears_s=start,
            leaves_s=end,
        )
        for (name, colour, rgb), side, (start, end) in zip(pairs, sides, times, strict=True)
    )


def _sounds(
    rng: np.random.Generator, seen: list[str], num_sounds: int, *, duration_s: float, match: bool | None
) -> tuple[Sound, ...]:
    """Different sounds one after the other, at least 0.2 s apart; half of the time one is of a thing seen."""
    heard_too = bool(seen) and (rng.random() < 0.5 if match is None else match)
    others = [str(name) for name in rng.permutation([name for name in THINGS if name not in seen])]
    names = others[:num_sounds]
    if heard_too and names:
        names[int(rng.integers(len(names)))] = str(rng.choice(seen))
    lengths = rng.uniform(1.0, 1.3 if num_sounds < 3 else 1.2, len(names))
    spare = duration_s - 0.1 - lengths.sum() - 0.2 * len(names)
    gaps = 0.205 + max(spare, 0.0) * rng.dirichlet(np.ones(len(names) + 1))[:-1]
    sounds, now = [], -0.15
    for name, seconds, gap in zip(names, lengths, gaps, strict=True):
        now += gap
        sounds.append(
            Sound(
                name=name,
                start_s=round(float(now), 3),
                seconds=round(float(seconds), 3),
                pitch=round(float(rng.uniform(0.9, 1.1)), 4),
                gain=round(float(10 ** (-rng.uniform(0, 12) / 20)), 4),
            )
        )
        now += seconds
    return tuple(sounds)


def _background(rng: np.random.Generator) -> Background:
    base = rng.uniform(4, 60, 3)
    corners = tuple(_to_rgb(base * rng.uniform(0.4, 1.2) + rng.uniform(0, 12, 3)) for _ in range(4))
    return Background(
        corners=corners,  # type: ignore[arg-type]
        pattern=str(rng.choice(("plain", "stripes", "checks", "dots", "clouds"))),
        strength=round(float(rng.uniform(0.1, 0.4)), 3),
        scale=round(float(rng.uniform(4, 12)), 2),
    )
