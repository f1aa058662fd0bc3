"""The example clips that ship with nano: four scenes that show what it can be asked. No training ever saw them."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from avllm.nano.language import Facts, answers
from avllm.nano.sample import write_clip
from avllm.nano.world import COLOURS, Background, Scene, Sound, Thing

FOLDER = Path(__file__).with_name("examples")
_NIGHT = Background(corners=((18, 20, 44), (30, 22, 52), (10, 12, 26), (16, 14, 30)), pattern="clouds", strength=0.35)
_WOOD = Background(corners=((34, 26, 18), (42, 30, 20), (20, 15, 11), (26, 19, 13)), pattern="stripes", strength=0.2)
_BASE = Scene(duration_s=4.4, noise=0.004, jitter=0.001, noise_floor=0.0006, fps=20, height=240, width=320, crf=27)
_PLAIN = {
    "caption": "What do you see?",
    "motion": "How does it move?",
    "colour": "What color is it?",
    "first": "Which thing came first?",
    "hearing": "What do you hear?",
    "sound_count": "How many sounds do you hear?",
    "match": "Does the sound match the picture?",
    "joint": "What do you see and hear?",
}


def _thing(name: str, colour: str, **options: float | str) -> Thing:
    defaults = {"name": name, "colour": colour, "rgb": COLOURS[colour], "leaves_s": _BASE.duration_s}
    return Thing(**{**defaults, **options})  # type: ignore[arg-type]


# File, title, scene, kinds of question that are offered.
EXAMPLES: tuple[tuple[str, str, Scene, tuple[str, ...]], ...] = (
    (
        "rocket.mp4",
        "A rocket that roars",
        replace(
            _BASE,
            things=(_thing("rocket", "red", motion="up", size=0.19, x=0.46, y=0.5, travel=0.5),),
            sounds=(Sound(name="rocket", start_s=1.5, seconds=1.2, gain=0.8),),
            background=_NIGHT,
            seed=101,
        ),
        ("joint", "motion", "match"),
    ),
    (
        "two_things.mp4",
        "A bell, then a ghost",
        replace(
            _BASE,
            things=(
                _thing("bell", "yellow", size=0.18, x=0.27, y=0.52),
                _thing("ghost", "cyan", size=0.19, x=0.74, y=0.46, appears_s=2.1),
            ),
            sounds=(
                Sound(name="bell", start_s=0.5, seconds=1.2, gain=0.8),
                Sound(name="ghost", start_s=2.6, seconds=1.2, gain=0.7),
            ),
            background=_WOOD,
            seed=102,
        ),
        ("caption", "first", "hearing"),
    ),
    (
        "wrong_sound.mp4",
        "A car that sounds wrong",
        replace(
            _BASE,
            things=(_thing("car", "green", motion="right", size=0.19, x=0.5, y=0.6, travel=0.48),),
            sounds=(Sound(name="bird", start_s=1.1, seconds=1.2, gain=0.7),),
            background=_WOOD,
            seed=103,
        ),
        ("joint", "match", "colour"),
    ),
    (
        "silent.mp4",
        "A silent drone",
        replace(
            _BASE,
            things=(_thing("drone", "white", motion="grow", size=0.17, x=0.52, y=0.48, travel=2.3),),
            background=_NIGHT,
            seed=104,
        ),
        ("caption", "motion", "hearing"),
    ),
)


def write_examples(folder: Path = FOLDER) -> Path:
    """Writes the clips and their truth.json; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for file, title, scene, kinds in EXAMPLES:
        write_clip(scene, folder / file, preset="slow")
        truth = answers(Facts.of(scene))
        asked = [{"question": _PLAIN[kind], "answer": truth[kind]} for kind in kinds]
        clips.append({"file": file, "title": title, "questions": asked})
    path = folder / "truth.json"
    path.write_text(json.dumps({"clips": clips}, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("wrote %s", write_examples())
