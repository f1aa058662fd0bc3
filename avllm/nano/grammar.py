"""The wordings of questions about nano's world: a grammar of alternations, and which of them are kept for testing."""

import re
import zlib
from functools import cache
from itertools import product
from typing import Literal

import numpy as np

Wording = Literal["train", "test", "any", "bare"]
TEST_SHARE = 8  # one wording in so many is kept for testing

_HERE = "( here| in the video| in this video| in the clip| in this clip|)"
# A question comes straight (`what does it do`) or in a request (`tell me what it does`), where the order of words changes.
_TELL = "(can you tell me|tell me|please tell me|can you say|say) "
_TELL_IF = "(can you tell me|tell me|please tell me|can you say|say) (if|whether) "
_SHOW = "(the video|this video|the clip|this clip|the scene|the picture|the image|it)"
_IT = "(it|the thing|the object|the {thing})"
_WHICH = "(what|which|which one|which thing|which object)"
_COLOUR = "(what|which) (color|colour) "
_KIND = "(what|which) (thing|object|kind of thing|kind of object|sort of thing) "
_MOTION = "(what|which) (motion|movement|kind of motion|kind of movement) "
_WAY = "(where|which way|in which direction|in what direction)"
_SHOWN = "(came|comes|appeared|appears|was seen|is seen|was shown|is shown)"
_AFTER = "(second|last|later|next|after that)"
_ORDER = "in (what|which) order "

# Alternatives in (a|b|c), an empty one may be left out; {name} is filled per scene. Every text is a correct sentence. A
# pattern is drawn as often as any other of its kind, however many texts it has.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "caption": (
        "(describe|caption|(please|can you|could you) (describe|caption)|summarize|give a description of|"
        "give a caption of|write a caption for) " + _SHOW + "(| briefly| in a sentence)",
        "what (do you see|can you see|can be seen|is shown|is visible|is there to see|appears)" + _HERE,
        _TELL + "what (you see|you can see|can be seen|is shown|is visible|there is to see|appears)" + _HERE,
        "(|" + _TELL + ")what (happens|is happening|is going on|goes on)" + _HERE,
        "(|" + _TELL + ")what is (here|in (the|this) (video|clip|picture|image|scene))",
        "(what is (the video|this video|the clip|this clip) about|what does " + _SHOW + " show|"
        + _TELL + "what " + _SHOW + " shows)",
    ),
    "thing": (
        _KIND + "(is it|is this|is that|is shown|is visible|do you see|can you see|appears)" + _HERE,
        _TELL + _KIND + "(it is|this is|that is|is shown|is visible|you see|you can see|appears)" + _HERE,
        "(what is the (thing|object)|" + _TELL + "what the (thing|object) is|name the (thing|object))" + _HERE,
        "(what is (it|this|that)|" + _TELL + "what (it|this|that) is)",
    ),
    "colour": (
        _COLOUR + "(is (it|the thing|the object|this thing|this object|the {thing})|does " + _IT + " have)" + _HERE,
        _TELL + _COLOUR + _IT + " (is|has)" + _HERE,
        "(what is|tell me|name|say) (the (color|colour) of " + _IT + "|its (color|colour))" + _HERE,
        _COLOUR + "(do you see|is shown|is visible|is this|is that)" + _HERE,
        _TELL + _COLOUR + "(you see|is shown|is visible|this is|that is)" + _HERE,
    ),
    "colour_of": (
        _COLOUR + "(is the {thing}|does the {thing} have)" + _HERE,
        _TELL + _COLOUR + "the {thing} (is|has)" + _HERE,
        "(what is|tell me|name|say) the (color|colour) of the {thing}" + _HERE,
    ),
    "motion": (
        "(how (does " + _IT + " move|is " + _IT + " moving)|" + _WAY
        + " (does " + _IT + " (move|go)|is " + _IT + " (moving|going)))" + _HERE,
        _TELL + "(how " + _IT + " (moves|is moving)|" + _WAY + " " + _IT + " (moves|goes|is moving|is going))" + _HERE,
        "(what (does " + _IT + " do|is " + _IT + " doing)|" + _TELL + "what " + _IT + " (does|is doing))" + _HERE,
        "(describe|name|tell me|what is) (the (motion|movement)|its (motion|movement)|the (motion|movement) of "
        "(it|the thing|the object|the {thing}))" + _HERE,
        "(|" + _TELL + ")what (happens|is happening) (to|with) " + _IT + _HERE,
        _MOTION + "(do you see|can you see|is it|is shown|is this)" + _HERE,
        _TELL + _MOTION + "(you see|you can see|it is|is shown|this is)" + _HERE,
    ),
    "what_moves": (
        "(|" + _TELL + ")(what|which thing|which object) (moves|is moving|is in motion)" + _HERE,
        "(what|which thing|which object) (do|can) you see (moving|in motion)" + _HERE,
        _TELL + "(what|which thing|which object) you (|can )see (moving|in motion)" + _HERE,
    ),
    "count": (
        "how many (things|objects) (are there|do you see|can you see|are shown|are visible|appear)" + _HERE,
        _TELL + "how many (things|objects) (there are|you see|you can see|are shown|are visible|appear)" + _HERE,
        "(count the|what is the number of|tell me the number of) (things|objects)" + _HERE,
    ),
    "first": (
        "(|" + _TELL + ")" + _WHICH + " (" + _SHOWN + "|was there|is there) first" + _HERE,
        "(" + _WHICH + " (do|did) you see|" + _TELL + _WHICH + " you (see|saw)) first" + _HERE,
        "(what|which|which one) (is|was) the first (one|thing|object)(| to appear| to come| that appears| that you see)"
        + _HERE,
        "(name|tell me|say) the first (one|thing|object)(| to appear| to come| that appears| that you see)" + _HERE,
    ),
    "second": (
        "(|" + _TELL + ")" + _WHICH + " " + _SHOWN + " " + _AFTER + _HERE,
        "(" + _WHICH + " (do|did) you see|" + _TELL + _WHICH + " you (see|saw)) " + _AFTER + _HERE,
        "(what|which|which one) (is|was) the (second|last|other) (one|thing|object)"
        "(| to appear| to come| that appears| that you see)" + _HERE,
        "(name|tell me|say) the (second|last|other) (one|thing|object)(| to appear| to come| that appears| that you see)"
        + _HERE,
    ),
    "hearing": (
        "what (do you hear|can you hear|can be heard|is heard|is there to hear)" + _HERE,
        _TELL + "what (you hear|you can hear|can be heard|is heard|there is to hear)" + _HERE,
        "(what|which) ((sound|noise) (do you hear|can you hear|can be heard|is there|is it|is this)|"
        "(sounds|noises) (do you hear|can you hear|can be heard|are there))" + _HERE,
        _TELL + "(what|which) ((sound|noise) (you hear|you can hear|can be heard|there is|it is|this is)|"
        "(sounds|noises) (you hear|you can hear|can be heard|there are))" + _HERE,
        "((describe|name|tell me) the (sound|sounds|noise|noises|audio)|what (is the (sound|noise)|are the (sounds|noises)))"
        + _HERE,
        "(listen|(|" + _TELL + ")what (makes|is making) (the|a|this) (sound|noise))" + _HERE,
        "(what does (it|this|the video|the clip) sound like|" + _TELL + "what (it|this|the video|the clip) sounds like)",
    ),
    "sound_order": (
        _ORDER + "((do|did|can) you hear the (sounds|noises)|(do|did) the (sounds|noises) (come|appear)|"
        "(are|were) the (sounds|noises) heard)" + _HERE,
        _TELL + _ORDER + "(you (hear|heard|can hear) the (sounds|noises)|the (sounds|noises) (come|appear|are heard))"
        + _HERE,
        "(what is|tell me|name|describe) the order of the (sounds|noises)" + _HERE,
        "(name|list|tell me) the (sounds|noises) in order" + _HERE,
        "((what|which sounds|which noises) do you hear|" + _TELL + "(what|which sounds|which noises) you hear)(,|) "
        "(in order|one after the other|one after another)" + _HERE,
    ),
    "sound_first": (
        "(what|which sound|which noise) (do you hear|did you hear|is heard|was heard|can you hear) first" + _HERE,
        _TELL + "(what|which sound|which noise) (you hear|you heard|is heard|was heard|you can hear) first" + _HERE,
        "((what|which) (is|was)|name|tell me|say) the first (sound|noise)" + _HERE,
        "(|" + _TELL + ")which (sound|noise) (came|comes|is|was) first" + _HERE,
    ),
    "sound_last": (
        "(what|which sound|which noise) (do you hear|did you hear|is heard|was heard|can you hear) last" + _HERE,
        _TELL + "(what|which sound|which noise) (you hear|you heard|is heard|was heard|you can hear) last" + _HERE,
        "((what|which) (is|was)|name|tell me|say) the last (sound|noise)" + _HERE,
        "(|" + _TELL + ")which (sound|noise) (came|comes|is|was) last" + _HERE,
    ),
    "sound_count": (
        "how many (|different )(sounds|noises) (are there|do you hear|can you hear|can be heard|are heard|did you hear)"
        + _HERE,
        _TELL + "how many (|different )(sounds|noises) (there are|you hear|you can hear|can be heard|are heard|you heard)"
        + _HERE,
        "(count the|what is the number of|tell me the number of) (sounds|noises)" + _HERE,
    ),
    "silence": (
        "is (it|this|the video|this video|the clip|this clip) (silent|without sound|without any sound)",
        _TELL_IF + "(it|this|the video|this video|the clip|this clip) is (silent|without sound|without any sound)",
        "(is there|" + _TELL_IF + "there is) (|only )silence" + _HERE,
    ),
    "any_sound": (
        "((is|was) there|" + _TELL_IF + "there (is|was)) (a|any) (sound|noise)" + _HERE,
        "((do|can|did) you hear|" + _TELL_IF + "you (|can )hear) (anything|something|a sound|any sound|a noise)" + _HERE,
    ),
    "match": (
        "(does|did) the (sound|noise|audio) (match|fit|go with|belong to|suit) "
        "(the picture|the video|the image|the thing|the object|what you see|what is shown)",
        _TELL_IF + "the (sound|noise|audio) (matches|fits|goes with|belongs to|suits) "
        "(the picture|the video|the image|the thing|the object|what you see|what is shown)",
        "(does the (picture|video|image|thing|object) (match|fit|go with|suit)|"
        + _TELL_IF + "the (picture|video|image|thing|object) (matches|fits|goes with|suits)) "
        "(the sound|the noise|the audio|what you hear)",
        "((is|was) the (sound|noise)|" + _TELL_IF + "the (sound|noise) is) (the sound of the (thing|object)|"
        "(from|made by) the (thing|object)|the right one)" + _HERE,
        "(do|did) (the sound and the picture|the picture and the sound|sound and picture|picture and sound|"
        "audio and video|video and audio) (match|fit together|go together|belong together)",
        "does what you (see (match|fit|go with) what you hear|hear (match|fit|go with) what you see)",
        "does (it|the thing|the object) make (this sound|the sound|that sound|this noise|the noise)" + _HERE,
    ),
    "sees": (
        "((is|was) there|" + _TELL_IF + "there (is|was)) a {thing}" + _HERE,
        "((do|can|did) you see|" + _TELL_IF + "you (|can )see) (a|the) {thing}" + _HERE,
        "((is|was) (a|the) {thing}|" + _TELL_IF + "(a|the) {thing} is) (shown|visible|there|present)" + _HERE,
        "(does (a|the) {thing} appear|" + _TELL_IF + "(a|the) {thing} appears)" + _HERE,
        "(does (the video|this video|the clip|this clip) show|" + _TELL_IF
        + "(the video|this video|the clip|this clip) shows) a {thing}",
    ),
    "hears": (
        "((do|can|did) you hear|" + _TELL_IF + "you (|can )hear) (a|the) {sound}" + _HERE,
        "((is|was) there|" + _TELL_IF + "there is) the (sound|noise) of a {sound}" + _HERE,
        "((is|was) (a|the) {sound}|" + _TELL_IF + "(a|the) {sound} is) (heard|audible)" + _HERE,
        "(can (a|the) {sound}|" + _TELL_IF + "(a|the) {sound} can) be heard" + _HERE,
        "does (the video|it|the clip|this) sound like a {sound}",
    ),
    "joint": (
        "what (do you|can you) (see and hear|hear and see|see and what (do you|can you) hear)" + _HERE,
        _TELL + "what you (|can )(see and hear|hear and see|see and what you hear)" + _HERE,
        "describe (what you see and hear|what you hear and see|the video and the sound|the picture and the sound|"
        "the video and the audio|both picture and sound)",
        "(|" + _TELL + ")what (can be|is) (seen and heard|heard and seen)" + _HERE,
        "(what is there|" + _TELL + "what there is) to (see and hear|hear and see)" + _HERE,
        "(|please |can you )describe the (video|clip|scene) with its (sound|sounds|audio)",
    ),
}  # fmt: skip
# The shortest question of each kind: the decoder learns on these what the others ask for.
BARE = {
    "caption": "describe", "thing": "thing", "colour": "color", "colour_of": "color {thing}", "motion": "motion",
    "what_moves": "moves", "count": "things", "first": "first", "second": "second", "hearing": "hear",
    "sound_order": "sounds in order", "sound_first": "hear first", "sound_last": "hear last", "sound_count": "sounds",
    "silence": "silent", "any_sound": "any sound", "match": "match", "sees": "see {thing}", "hears": "hear {sound}",
    "joint": "see and hear",
}  # fmt: skip
# Never held out: what people type first.
ALWAYS = frozenset({
    "what do you see", "what do you hear", "what moves", "describe the video", "which came first", "which came second",
    "what do you see and hear", "what can you see", "what can you hear", "what is in the video", "what color is it",
    "what colour is it", "how does it move", "does the sound match the picture", "how many sounds do you hear",
    "what happens", "what is it", "what is happening", "how many things do you see", "describe this video",
    "what came first", "which thing came first", "what is moving", "is there a {thing}", "do you see a {thing}",
    "do you hear a {sound}", "what do you hear first", "in what order do you hear the sounds", "is it silent",
})  # fmt: skip


def expand(pattern: str) -> list[str]:
    """All texts of a pattern of nested alternatives."""
    groups: dict[str, list[str]] = {}  # a mark in place of each group whose texts are known

    def texts_of(part: str) -> list[str]:
        pieces = [groups.get(piece, [piece]) for piece in re.split(r"([\ue000-\uf8ff])", part)]
        return ["".join(chosen) for chosen in product(*pieces)]

    while inner := re.search(r"\(([^()]*)\)", pattern):
        mark = chr(0xE000 + len(groups))
        groups[mark] = [text for choice in inner.group(1).split("|") for text in texts_of(choice)]
        pattern = pattern[: inner.start()] + mark + pattern[inner.end() :]
    return [" ".join(text.split()) for text in texts_of(pattern)]


@cache
def patterns(kind: str, which: Wording = "train") -> tuple[tuple[str, ...], ...]:
    """The wordings of a kind of question, without the mark, by pattern: those for training or for testing, or all.

    A pattern all of whose wordings are left out is left out itself.

    Raises:
        KeyError: a kind that the grammar does not have.
    """
    if which == "bare":
        return ((BARE[kind],),)
    found = (sorted({text for text in expand(pattern) if _is_of(text, which)}) for pattern in GRAMMAR[kind])
    return tuple(tuple(texts) for texts in found if texts)


def wordings(kind: str, which: Wording = "train") -> tuple[str, ...]:
    """All wordings of a kind of question, see `patterns`."""
    return tuple(sorted({text for texts in patterns(kind, which) for text in texts}))


def draw_wording(kind: str, which: Wording, rng: np.random.Generator) -> str:
    """A random wording of a random pattern: a way to ask that has few wordings comes as often as one with many."""
    found = patterns(kind, which) or patterns(kind, "any")
    texts = found[int(rng.integers(len(found)))]
    return texts[int(rng.integers(len(texts)))]


def is_test(wording: str) -> bool:
    """Whether a wording is kept for testing."""
    return wording not in ALWAYS and zlib.crc32(wording.encode()) % TEST_SHARE == 0


def _is_of(wording: str, which: Wording) -> bool:
    return which == "any" or is_test(wording) == (which == "test")
