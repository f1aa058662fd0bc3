"""Makes world.png, the things, motions and sounds of nano: python docs/images/make_world.py"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avllm.nano.render import render_frames
from avllm.nano.sound import render_sound
from avllm.nano.world import COLOURS, MOTIONS, THINGS, Background, Scene, Sound, Thing, is_held_out, scene_rng
from avllm.nano.world_sampling import sample_scene

CELL, GAP, LABEL = 96, 6, 84
PAPER, INK, FAINT = (250, 250, 248), (30, 30, 34), (120, 120, 126)
DARK = Background(corners=((26, 26, 36), (36, 34, 46), (18, 18, 26), (24, 24, 32)))
# Shades of dark violet over orange to light yellow, as is usual for spectrograms.
RAMP = np.array([(8, 6, 22), (74, 16, 92), (190, 54, 76), (248, 142, 36), (252, 250, 180)], dtype=float)


def picture(scene: Scene, time_s: float, height: int = CELL, width: int = CELL) -> Image.Image:
    return Image.fromarray(render_frames(scene, np.array([time_s]), (height, width))[0])


def thing(name: str, colour: str, **options) -> Thing:
    return Thing(name=name, colour=colour, rgb=COLOURS[colour], leaves_s=4.0, **options)


def motion(name: str, thing_name: str, colour: str) -> Image.Image:
    """The path of a thing: its picture at five moments, the earlier the fainter."""
    travel = {"grow": 2.4, "shrink": 2.4, "still": 0.0}.get(name, 0.5)
    size = 0.26 if name in ("grow", "shrink") else 0.2
    scene = Scene(
        things=(thing(thing_name, colour, motion=name, size=size, travel=travel),), background=DARK, noise=0.0,
        duration_s=4.0, height=CELL, width=CELL,
    )  # fmt: skip
    times = np.linspace(0.0, 4.0, 4)
    frames = render_frames(scene, times, CELL).astype(float)
    ground = render_frames(Scene(background=DARK, noise=0.0, height=CELL, width=CELL), times[:1], CELL)[0].astype(float)
    out = ground.copy()
    if name == "grow":  # else the last picture would hide all before it
        frames = frames[::-1]
    for level, frame in zip((0.18, 0.3, 0.5, 1.0), frames, strict=True):
        out = np.where(np.abs(frame - ground).max(-1, keepdims=True) > 6, (1 - level) * out + level * frame, out)
    return Image.fromarray(out.astype(np.uint8))


def spectrogram(name: str, height: int = CELL, width: int = CELL) -> Image.Image:
    wave = render_sound(Sound(name=name, start_s=0, seconds=1.2, gain=1.0), 16_000)
    starts = np.linspace(0, len(wave) - 512, width).astype(int)
    windows = np.stack([wave[start : start + 512] for start in starts]) * np.hanning(512)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    rows = np.geomspace(2, 256, height)[::-1]
    level = 10 * np.log10(np.stack([power[:, int(row)] for row in rows]) + 1e-6)
    shade = np.clip((level + 30) / 60, 0, 1)[..., None] * (len(RAMP) - 1)
    low = np.minimum(shade[..., 0].astype(int), len(RAMP) - 2)
    return Image.fromarray(
        ((1 - shade + low[..., None]) * RAMP[low] + (shade - low[..., None]) * RAMP[low + 1]).astype(np.uint8)
    )


def main() -> None:
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    step = CELL + GAP
    rows = len(COLOURS) + 3
    sheet = Image.new("RGB", (LABEL + len(THINGS) * step + GAP, 34 + rows * step + 3 * 26), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(THINGS):
        draw.text((LABEL + column * step + CELL / 2, 18), name, INK, font=font, anchor="mm")
    y = 34
    for colour in COLOURS:
        draw.text((LABEL - 12, y + CELL / 2), colour, INK, font=font, anchor="rm")
        for column, name in enumerate(THINGS):
            scene = Scene(things=(thing(name, colour, size=0.4),), background=DARK, noise=0.0, height=CELL, width=CELL)
            x = LABEL + column * step
            sheet.paste(picture(scene, 1.0), (x, y))
            if is_held_out(name, colour):
                draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), outline=(255, 255, 255), width=2)
                draw.text(
                    (x + CELL - 6, y + 5), "test only", (255, 255, 255), font=ImageFont.load_default(11), anchor="ra"
                )
        y += step
    y += 4
    draw.text((LABEL - 12, y + CELL / 2), "sound", INK, font=font, anchor="rm")
    for column, name in enumerate(THINGS):
        sheet.paste(spectrogram(name), (LABEL + column * step, y))
    draw.text((LABEL, y + CELL + 3), "1.2 s across, 60 Hz to 8 kHz upwards", FAINT, font=small)
    y += step + 26
    draw.text((LABEL - 12, y + CELL / 2), "motion", INK, font=font, anchor="rm")
    for column, name in enumerate(MOTIONS):
        x = LABEL + column * step
        sheet.paste(motion(name, THINGS[column], list(COLOURS)[column]), (x, y))
        draw.text((x + CELL / 2, y + CELL + 10), name, FAINT, font=small, anchor="mm")
    y += step + 26
    draw.text((LABEL - 12, y + CELL / 2), "clips", INK, font=font, anchor="rm")
    x, index = LABEL, 0
    while x + 3 * CELL // 4 < sheet.width - GAP:
        scene = sample_scene(scene_rng("sheet", 2, index), num_things=1 + index % 2)
        if any(thing.leaves_s < scene.duration_s for thing in scene.things):
            index += 1
            continue
        width = min(round(CELL * scene.aspect), sheet.width - 2 * GAP - x)
        if width >= round(CELL * scene.aspect):
            sheet.paste(picture(scene, 0.8 * scene.duration_s, CELL, width), (x, y))
            x += width + GAP
        index += 1
        if index > 60:
            break
    sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        Path(__file__).with_name("world.png"), optimize=True
    )


if __name__ == "__main__":
    main()
