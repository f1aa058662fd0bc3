"""The wordings of questions about nano's world: a grammar of alternations, and which of them are kept for testing."""

import re
import zlib
from functools import cache
from typing import Literal

Wording = Literal["train", "test", "any", "bare"]
TEST_SHARE = 8  # one wording in so many is kept for testing

_SEE = "(what (do you see|can you see|can be seen|is shown|is visible|is there to see|appears)"
_HERE = "( here| in the video| in this video| in the clip| in this clip|)"
_ASK = "(|can you tell me |tell me |please tell me |can you say |say )"
_SHOW = "(the video|this video|the clip|this clip|the scene|the picture|the image|it)"

# Alternatives in (a|b|c), an empty one may be left out; {name} is filled per scene.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "caption": (
        "(describe|caption|(please|can you|could you) (describe|caption)|summarize|give a description of|"
        "give a caption of|write a caption for) " + _SHOW + "(| briefly| please| in a sentence)",
        _ASK + _SEE + _HERE + ")",
        _ASK + "what (happens|is happening|is going on|goes on|is)" + _HERE,
        "what is (this video|the video|this clip|the clip|this) (about|of)",
        "what does " + _SHOW + " show",
    ),
    "thing": (
        _ASK + "(what|which) (thing|object|kind of thing|kind of object|sort of thing) "
        "(is it|is this|is that|is shown|is visible|do you see|can you see|appears)" + _HERE,
        _ASK + "(what|which) is the (thing|object)" + _HERE,
        "name the (thing|object)" + _HERE,
        "what (is it|is this|is that)",
    ),
    "colour": (
        _ASK + "(what|which) (color|colour) (is|has) (it|the thing|the object|this thing|this object|the {thing})" + _HERE,
        _ASK + "(what|which) (color|colour) (does|can) (it|the thing|the object|the {thing}) have" + _HERE,
        "(what is|tell me|name|say) (the (color|colour) of (it|the thing|the object|the {thing})|its (color|colour))"
        + _HERE,
        "(what|which) (color|colour) (do you see|is shown|is visible|is this|is that)" + _HERE,
    ),
    "colour_of": (
        _ASK + "(what|which) (color|colour) (is|has) the {thing}" + _HERE,
        _ASK + "(what|which) (color|colour) does the {thing} have" + _HERE,
        "(what is|tell me|name|say) the (color|colour) of the {thing}" + _HERE,
    ),
    "motion": (
        _ASK + "(how|where|which way|in which direction|in what direction) (does|is) "
        "(it|the thing|the object|the {thing}) (move|moving|go|going)" + _HERE,
        _ASK + "what (does|is) (it|the thing|the object|the {thing}) (do|doing)" + _HERE,
        "(describe|name|tell me|what is) (the (motion|movement)|its (motion|movement)|the (motion|movement) of the "
        "(thing|object|{thing}))" + _HERE,
        "what (happens|is happening) (to|with) (it|the thing|the object|the {thing})" + _HERE,
        "(what|which) (motion|movement|kind of motion|kind of movement) (do you see|can you see|is it|is shown|is this)"
        + _HERE,
    ),
    "what_moves": (
        _ASK + "(what|which thing|which object) (moves|is moving|is in motion|changes)" + _HERE,
        "(what|which thing|which object) do you see (moving|in motion)" + _HERE,
    ),
    "count": (
        _ASK + "how many (things|objects) (are there|do you see|can you see|are shown|are visible|appear)" + _HERE,
        "count the (things|objects)" + _HERE,
        "(what is|tell me) the number of (things|objects)" + _HERE,
    ),
    "first": (
        _ASK + "(what|which|which one|which thing|which object) "
        "(came|comes|appeared|appears|was seen|is seen|was there|is there|was shown|is shown|do you see|did you see) first"
        + _HERE,
        "(what|which|which one) (is|was) the first (one|thing|object)(| to appear| to come| that appears| that you see)"
        + _HERE,
        "name the first (one|thing|object)" + _HERE,
    ),
    "second": (
        _ASK + "(what|which|which one|which thing|which object) "
        "(came|comes|appeared|appears|was seen|is seen|was shown|is shown|do you see|did you see) (second|last|later|next|after that)"
        + _HERE,
        "(what|which|which one) (is|was) the (second|last|other) (one|thing|object)"
        "(| to appear| to come| that appears| that you see)" + _HERE,
        "name the (second|last|other) (one|thing|object)" + _HERE,
    ),
    "hearing": (
        _ASK + "what (do you hear|can you hear|can be heard|is heard|is there to hear)" + _HERE,
        _ASK + "(what|which) (sound|sounds|noise|noises) (do you hear|can you hear|can be heard|are there|is there|is it|is this)"
        + _HERE,
        "(describe|name|tell me|what is|what are) the (sound|sounds|noise|noises|audio)" + _HERE,
        "(listen|what makes the sound|what makes the noise|what makes a sound|what makes a noise|what sounds|what is the sound of)"
        + _HERE,
        "what does (it|this|the video|the clip) sound like",
    ),
    "sound_order": (
        _ASK + "in (what|which) order (do you hear the|do the|are the|can you hear the) (sounds|noises)(| come| heard| appear)"
        + _HERE,
        "(what is|tell me|name|describe) the order of the (sounds|noises)" + _HERE,
        "(name|list|tell me) the (sounds|noises) in order" + _HERE,
        "(what|which sounds|which noises) do you hear(,|) (in order|one after the other|one after another)" + _HERE,
    ),
    "sound_first": (
        _ASK + "(what|which sound|which noise) (do you hear|did you hear|is heard|was heard|can you hear) first" + _HERE,
        "(what|which) (is|was) the first (sound|noise)" + _HERE,
        "which (sound|noise) (came|comes) first" + _HERE,
    ),
    "sound_last": (
        _ASK + "(what|which sound|which noise) (do you hear|did you hear|is heard|was heard|can you hear) last" + _HERE,
        "(what|which) (is|was) the last (sound|noise)" + _HERE,
        "which (sound|noise) (came|comes) last" + _HERE,
    ),
    "sound_count": (
        _ASK + "how many (sounds|noises|different sounds|different noises) "
        "(are there|do you hear|can you hear|can be heard|are heard|did you hear)" + _HERE,
        "count the (sounds|noises)" + _HERE,
        "(what is|tell me) the number of (sounds|noises)" + _HERE,
    ),
    "silence": (
        "is (it|the video|the clip|this) silent",
        "is there silence" + _HERE,
    ),
    "any_sound": (
        "(is|was) there (a|any) (sound|noise)" + _HERE,
        "(do|can|did) you hear (anything|something|a sound|any sound|a noise)" + _HERE,
    ),
    "match": (
        _ASK + "(does|do|did|will|would) the (sound|noise|audio) (match|fit|go with|belong to|suit) "
        "(the picture|the video|the image|the thing|the object|what you see|what is shown)",
        "(does|do) the (picture|video|image|thing|object) (match|fit|go with|suit) "
        "(the sound|the noise|the audio|what you hear)",
        "(is|was) the (sound|noise) (the sound of the thing|from the thing|made by the thing|of the thing|of the object|"
        "from the object|made by the object|the right one|the sound of the object)" + _HERE,
        "do (the sound and the picture|the picture and the sound|sound and picture|picture and sound|"
        "audio and video|video and audio) (match|fit|go together|belong together)",
        "(does|do) what you (see|hear) (match|fit|go with) what you (hear|see)",
        "does (it|the thing|the object) make (this sound|the sound|that sound|this noise|the noise)" + _HERE,
    ),
    "sees": (
        "(is|was) there a {thing}" + _HERE,
        "(do|can|did) you see (a|the|any) {thing}" + _HERE,
        "(is|was) (a|the) {thing} (shown|visible|there|present)" + _HERE,
        "does (a|the) {thing} appear" + _HERE,
        "does (the video|this video|the clip|this clip) show a {thing}",
    ),
    "hears": (
        "(do|can|did) you hear (a|the|any) {sound}" + _HERE,
        "(is|was) there the (sound|noise) of a {sound}" + _HERE,
        "(is|was) (a|the) {sound} (heard|audible)" + _HERE,
        "can (a|the) {sound} be heard" + _HERE,
        "does (the video|it|the clip|this) sound like a {sound}",
    ),
    "joint": (
        _ASK + "what (do you|can you) (see and hear|hear and see|see and what do you hear)" + _HERE,
        "describe (what you see and hear|what you hear and see|the video and the sound|the picture and the sound|"
        "the video and the audio|both picture and sound)",
        "what can be (seen and heard|heard and seen)" + _HERE,
        "(what is there to see and hear|what is seen and heard)" + _HERE,
        "describe the (video|clip|scene) with its (sound|sounds|audio)",
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
    inner = re.search(r"\(([^()]*)\)", pattern)
    if inner is None:
        return [re.sub(r" +", " ", pattern).strip()]
    head, tail = pattern[: inner.start()], pattern[inner.end() :]
    return [text for choice in inner.group(1).split("|") for text in expand(head + choice + tail)]


@cache
def wordings(kind: str, which: Wording = "train") -> tuple[str, ...]:
    """The wordings of a kind of question, without the mark: those for training, those kept for testing, or all.

    Raises:
        KeyError: a kind that the grammar does not have.
    """
    if which == "bare":
        return (BARE[kind],)
    texts = sorted({text for pattern in GRAMMAR[kind] for text in expand(pattern)})
    if which == "any":
        return tuple(texts)
    return tuple(text for text in texts if is_test(text) == (which == "test"))


def is_test(wording: str) -> bool:
    """Whether a wording is kept for testing."""
    return wording not in ALWAYS and zlib.crc32(wording.encode()) % TEST_SHARE == 0
