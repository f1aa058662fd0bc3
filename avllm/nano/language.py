"""What can be asked about a scene of nano's world, in many wordings, and the right answers."""

from dataclasses import dataclass

import numpy as np

from avllm.nano.grammar import Wording, draw_wording
from avllm.nano.world import COLOURS, MOTIONS, THINGS, Scene, is_held_out

NUMBERS = ("none", "one", "two", "three")
MOTION_PHRASES = {
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "down": "moving down",
    "grow": "growing",
    "shrink": "shrinking",
    "still": "standing still",
}
NOTHING, SILENCE = "nothing", "silence"
NO_PICTURE, NO_SOUND = "there is no picture", "there is no sound track"
FILLER = "none"
NUM_VIDEO_FACTS, NUM_AUDIO_FACTS = 5, 4


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a scene.

    Args:
        type: kind of question, as scores are listed.
        text: the question as a user might type it.
        answer: the answer that nano is taught.
        accepted: all answers that are right, in lower case.
    """

    type: str
    text: str
    answer: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is true in a clip, as far as words go; None for a stream that is not there.

    Args:
        things: colour (None when it has no name), name and motion of each, in order of appearance.
        sounds: names in order.
    """

    things: tuple[tuple[str | None, str, str], ...] | None
    sounds: tuple[str, ...] | None

    @classmethod
    def of(cls, scene: Scene, *, has_video: bool = True, has_audio: bool = True) -> "Facts":
        """Reads the facts off a scene."""
        things = tuple((thing.colour, thing.name, thing.motion) for thing in scene.things)
        return cls(things=things if has_video else None, sounds=scene.sound_names if has_audio else None)

    @property
    def has_unnamed(self) -> bool:
        """Whether some thing's colour has no name, so that no caption can be asked."""
        return any(colour is None for colour, _, _ in self.things or ())

    def video_words(self) -> list[str]:
        """What stands for the video in a decoder taught on text: count, colour and thing of each, motion of one alone.

        Two more places hold colour and thing of each at once (`red drum`: both words in one place): what is asked of a
        thing by its name is then found in one place.
        """
        things = self.things or ()
        words = [NUMBERS[len(things)]]
        for colour, name, motion in things:
            words += [colour or FILLER, name, *([motion] if len(things) == 1 else [])]
        words += [FILLER] * (NUM_VIDEO_FACTS - len(words))
        both = [f"{colour or ''} {name}" for colour, name, _ in things]
        return words + both + [FILLER] * (2 - len(both))

    def audio_words(self) -> list[str]:
        """The words that stand for the sound: count, then the names in order."""
        sounds = self.sounds or ()
        return [NUMBERS[len(sounds)], *sounds, *[FILLER] * (NUM_AUDIO_FACTS - 1 - len(sounds))]

    def caption(self) -> str:
        """What is seen, in a phrase."""
        shown = [*(self.things or ())]
        things = [f"a {colour} {name}" for colour, name, _ in shown]
        if len(things) == 1:
            return f"{things[0]} {MOTION_PHRASES[shown[0][2]]}"
        return in_order(things) if things else NOTHING

    def heard(self) -> str:
        """What is heard, in a phrase."""
        return in_order([f"a {name}" for name in self.sounds or ()]) or SILENCE


def in_order(phrases: list[str]) -> str:
    """`a drum`; `first a drum, then a bell`; ..."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"first {phrases[0]}" + "".join(f", then {phrase}" for phrase in phrases[1:])


def answers(facts: Facts) -> dict[str, str]:
    """The answers to every kind of question that these facts decide and that names no thing."""
    found: dict[str, str] = {}
    if facts.things is not None:
        found |= _seen(facts)
    if facts.sounds is not None:
        found |= _heard(facts.sounds)
    if facts.things is None or facts.sounds is None:
        only_seen, only_heard = facts.sounds is None, facts.things is None
        found |= {"hearing": NO_SOUND} if only_seen else {"caption": NO_PICTURE}
        if not facts.has_unnamed:
            found["joint"] = (
                facts.caption()
                if only_seen
                else (f"the sound of {facts.heard().removeprefix('first ')}" if facts.sounds else SILENCE)
            )
        assert only_seen != only_heard, "a clip without any stream has no facts"
        return found
    if not facts.has_unnamed:
        with_sound = f"with the sound of {facts.heard().removeprefix('first ')}" if facts.sounds else f"in {SILENCE}"
        found["joint"] = f"{facts.caption()}, {with_sound}"
    if len(facts.things) == 1 and len(facts.sounds) == 1:
        found["match"] = "yes" if facts.things[0][1] == facts.sounds[0] else "no"
    return found


def _seen(facts: Facts) -> dict[str, str]:
    things = facts.things or ()
    found = {"count": NUMBERS[len(things)]}
    if not facts.has_unnamed:
        found["caption"] = facts.caption()
    if len(things) == 1:
        colour, name, motion = things[0]
        found |= {"thing": f"a {name}", "motion": MOTION_PHRASES[motion]}
        found |= {"colour": colour} if colour else {}
        found["what_moves"] = NOTHING if motion == "still" else f"the {name}"
    elif len(things) == 2:
        found |= {"first": f"the {things[0][1]}", "second": f"the {things[1][1]}", "what_moves": NOTHING}
    else:
        found |= {"thing": NOTHING, "what_moves": NOTHING}
    return found


def _heard(sounds: tuple[str, ...]) -> dict[str, str]:
    heard = in_order([f"a {name}" for name in sounds]) or SILENCE
    found = {"sound_count": NUMBERS[len(sounds)], "hearing": heard}
    found |= {"silence": "no" if sounds else "yes", "any_sound": "yes" if sounds else "no"}
    if len(sounds) > 1:
        found |= {"sound_order": heard, "sound_first": f"a {sounds[0]}", "sound_last": f"a {sounds[-1]}"}
    return found


# How often each kind is asked in training, before what a scene leaves open is taken out.
SHARES = {
    "caption": 3.0, "thing": 1.0, "colour": 1.0, "colour_of": 2.0, "motion": 2.0, "what_moves": 1.5, "count": 0.7,
    "first": 1.5, "second": 1.5, "hearing": 2.5, "sound_order": 1.0, "sound_first": 0.6, "sound_last": 0.6,
    "sound_count": 1.0, "silence": 0.8, "any_sound": 1.0, "match": 3.0, "sees": 3.5, "hears": 2.0, "joint": 1.5,
}  # fmt: skip
PRIMER_SHARES = {"sees": 4.0, "hears": 2.0, "match": 5.0, "colour_of": 5.0}
HARD_SHARE = 0.4  # of training's questions for no
_ALWAYS_OPEN = ("colour_of", "sees", "hears")


def ask(
    facts: Facts,
    kind: str,
    rng: np.random.Generator,
    *,
    wording: Wording = "train",
    held_out: bool = False,
    hard: float = 0.0,
) -> Question | None:
    """One question of a kind in a random wording; None when the facts do not decide it.

    Args:
        wording: drawn from those for training, or from those kept for testing.
        held_out: allows a question to name a pair of thing and colour that training never shows.
        hard: share of the questions for no that name what is nearly there.
    """
    text = draw_wording(kind, wording, rng)
    if kind in _ALWAYS_OPEN:
        named = _named(facts, kind, rng, held_out=held_out, hard=hard)
        if named is None:
            return None
        name, answer = named
        return _question(kind, text.format(thing=name, sound=name), answer, rng)
    answer = answers(facts).get(kind)
    if answer is None:
        return None
    if "{thing}" in text:
        text = text.format(thing=(facts.things or ((None, "thing", ""),))[0][1])
    return _question(kind, text, answer, rng)


def _named(facts: Facts, kind: str, rng: np.random.Generator, *, held_out: bool, hard: float) -> tuple[str, str] | None:
    """What a question names (`red drum`, `bell`), and its answer; yes and no equally often."""
    is_true = bool(rng.random() < 0.5)
    if hard and kind != "colour_of" and not is_true and rng.random() < hard:
        name = _nearly_there(facts, kind, rng)
        return (name, "no") if name else None
    if kind == "hears":
        if facts.sounds is None or (is_true and not facts.sounds):
            return None
        names = facts.sounds if is_true else [name for name in THINGS if name not in facts.sounds]
        return str(rng.choice(names)), "yes" if is_true else "no"
    things = facts.things
    if things is None:
        return None
    if kind == "colour_of":
        known = [(colour, name) for colour, name, _ in things if colour]
        if len(things) != 2 or not known:
            return None
        colour, name = known[int(rng.integers(len(known)))]
        return name, colour
    if is_true:
        if not things:
            return None
        colour, name, _ = things[int(rng.integers(len(things)))]
        return (f"{colour} {name}" if colour and rng.random() < 0.5 else name), "yes"
    absent = [name for name in THINGS if name not in {name for _, name, _ in things}]
    if rng.random() < 0.5 or facts.has_unnamed or not things:
        return str(rng.choice(absent)), "no"
    colour, name, _ = things[int(rng.integers(len(things)))]
    if rng.random() < 0.3:
        name = str(rng.choice(absent))
    else:
        colour = str(rng.choice([other for other in COLOURS if other != colour]))
    if is_held_out(name, colour) and not held_out:
        return None
    return f"{colour} {name}", "no"


def _nearly_there(facts: Facts, kind: str, rng: np.random.Generator) -> str | None:
    """What is not there but nearly: a thing that is only heard, or seen in another colour; a sound of what is seen."""
    if (facts.things if kind == "sees" else facts.sounds) is None:
        return None
    seen = {name: colour for colour, name, _ in facts.things or ()}
    sounds = facts.sounds or ()
    if kind == "hears":
        groups = [[name for name in seen if name not in sounds]]
    else:
        pairs = [(other, name) for name, own in seen.items() for other in COLOURS if own and other != own]
        groups = [
            [name for name in sounds if name not in seen],
            [f"{colour} {name}" for colour, name in pairs if not is_held_out(name, colour)],
        ]
    groups = [group for group in groups if group]
    return str(rng.choice(groups[int(rng.integers(len(groups)))])) if groups else None


def _question(kind: str, text: str, answer: str, rng: np.random.Generator) -> Question:
    draw = rng.random()
    text += "" if draw < 0.2 else "." if draw < 0.25 else "?"
    if rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    accepted = {answer}
    for article in ("a ", "the "):
        if answer.startswith(article) and kind in ("thing", "first", "second", "what_moves", "hearing"):
            accepted |= {answer.removeprefix(article), "a " + answer.removeprefix(article)}
            accepted.add("the " + answer.removeprefix(article))
    return Question(type=kind, text=text, answer=answer, accepted=tuple(sorted(accepted)))


def draw_questions(
    facts: Facts,
    rng: np.random.Generator,
    num: int,
    *,
    kinds: tuple[str, ...] = tuple(SHARES),
    wording: Wording = "train",
) -> list[Question]:
    """Random questions by `SHARES`; no kind comes twice unless the facts decide too few."""
    decided = set(answers(facts)) | set(_ALWAYS_OPEN)
    open_kinds = [kind for kind in kinds if kind in decided]
    shares = np.array([SHARES[kind] for kind in open_kinds])
    chosen: list[Question] = []
    while len(chosen) < num and open_kinds:
        order = rng.choice(len(open_kinds), size=len(open_kinds), replace=False, p=shares / shares.sum())
        asked = (ask(facts, open_kinds[i], rng, wording=wording, hard=HARD_SHARE) for i in order)
        found = [question for question in asked if question is not None]
        chosen += found[: num - len(chosen)]
        if not found:
            break
    return chosen


def primer_questions(facts: Facts, rng: np.random.Generator, num: int) -> list[Question]:
    """Bare questions, most of them such as compare what is asked with what is there; a kind may come often."""
    decided = set(answers(facts)) | set(_ALWAYS_OPEN)
    kinds = [kind for kind in SHARES if kind in decided]
    shares = np.array([PRIMER_SHARES.get(kind, 0.4) for kind in kinds])
    chosen = rng.choice(kinds, size=num, p=shares / shares.sum())
    asked = (ask(facts, str(kind), rng, wording="bare", hard=HARD_SHARE) for kind in chosen)
    return [question for question in asked if question is not None]


def random_facts(rng: np.random.Generator, *, colours: tuple[str, ...] = tuple(COLOURS)) -> Facts:
    """Facts as scenes have them, without a scene: never a held-out pair; match and silence often enough to learn."""
    draw = rng.random()
    has_video, has_audio = draw > 0.1, draw < 0.1 or draw > 0.2
    is_pair = draw > 0.65  # one thing and one sound: match can be asked
    num_things = 1 if is_pair else int(rng.choice(3, p=(0.08, 0.32, 0.6)))
    names = [str(name) for name in rng.choice(THINGS, num_things, replace=False)]
    motion = str(rng.choice(MOTIONS)) if num_things == 1 else "still"
    things = tuple((_colour(rng, name, colours), name, motion) for name in names)
    num_sounds = 1 if is_pair else int(rng.choice(4, p=(0.12, 0.28, 0.35, 0.25)))
    sounds = [str(name) for name in rng.choice(THINGS, num_sounds, replace=False)]
    if names and sounds and rng.random() < 0.45:
        other = names[int(rng.integers(num_things))]
        if other not in sounds:
            sounds[int(rng.integers(num_sounds))] = other
    return Facts(things=things if has_video else None, sounds=tuple(sounds) if has_audio else None)


def _colour(rng: np.random.Generator, name: str, colours: tuple[str, ...]) -> str:
    while True:
        colour = str(rng.choice(colours))
        if not is_held_out(name, colour):
            return colour
