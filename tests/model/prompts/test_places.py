"""Media that stand within a text are written where each published system writes them."""

from dataclasses import replace
from typing import Any

import pytest

from avllm.errors import DataError
from avllm.model import PROMPTS, Form, Medium, Turn
from avllm.model.prompts import Slot, conversation, prompt_for, show, user_parts
from avllm.model.quirks import vicuna_label_drift
from avllm.model.tokens import IGNORED, encode
from tests.model.tiny import tiny_tokenizer

VIDEO = Medium(kind="video", branch="video", num_tokens=1, times_s=(0.0, 1.25))
IMAGE = Medium(kind="image", branch="video", num_tokens=1)
SOUND = Medium(kind="audio", branch="audio", num_tokens=1)
SLOTS = {"video": "@", "audio": "#"}
IDS = {"audio": 300, "video": 301}
TIMES = "The video contains 2 frames sampled at 0.0, 1.2 seconds."
LOOK, TWO = Turn(question="Take a look.\n", media=(IMAGE,), places=(13,)), "Image 1: Image 2: Which?"


def user(name: str, turn: Turn, form: Any = "train") -> str:
    return show(user_parts(PROMPTS[name].form(form), turn), slots=SLOTS)


def two(*media: Medium) -> Turn:
    """Two media, each behind its name; spaces as people write them."""
    return Turn(question=TWO, media=media, places=(9, 18))


@pytest.mark.parametrize("name", ["vicuna", "llama2"])
def test_video_llama_puts_its_words_where_the_tag_of_an_image_was(name: str):
    # What `text.replace("<image>", ...)` of the published training gives, tag by tag.
    for text in ("Take a look.\n<image>", "<image>What?", "a <image>, b\n<image>\n c", "<image>", "<image> <image>x"):
        places, question = [], text
        while "<image>" in question:
            places.append(question.index("<image>"))
            question = question.replace("<image>", "", 1)
        turn = Turn(question=question, media=(IMAGE,) * len(places), places=tuple(places))
        assert user(name, turn) == text.replace("<image>", "<Image>@</Image>")


@pytest.mark.parametrize("name", ["vicuna", "llama2"])
@pytest.mark.parametrize(
    ("question", "place", "wanted"),
    [
        ("Take a look.\n", 13, f"Take a look.\n<Video>@</Video> {TIMES}"),
        (" What?", 0, f"<Video>@</Video> {TIMES} What?"),
        ("What?", 0, f"<Video>@</Video> {TIMES} What?"),
        ("In \nwho?", 3, f"In <Video>@</Video> {TIMES}\nwho?"),
    ],
)
def test_video_llama_tells_the_times_of_a_video_beside_it(name: str, question: str, place: int, wanted: str):
    assert user(name, Turn(question=question, media=(VIDEO,), places=(place,))) == wanted
    assert user(name, Turn(question=question, media=(VIDEO,), places=(place,)), "chat") == wanted


def test_sound_of_a_video_stands_with_it_as_the_form_has_them():
    turn = Turn(question="Before.  After.", media=(VIDEO, SOUND), places=(8, 8))
    written = user("vicuna", turn)
    assert written.startswith("Before. Close your eyes, open your ears")
    assert written.endswith("you see that <Video>@</Video>. After.")
    assert written.index("#") < written.index("@")
    assert user("nano", turn) == "Before. @# After."


def test_two_videos_with_sound_keep_each_sound_with_its_video():
    turn = Turn(question="1  2 ", media=(VIDEO, SOUND, VIDEO, SOUND), places=(2, 2, 5, 5))
    assert user("nano", turn) == "1 @# 2 @#"
    assert user("nano", replace(turn, places=(2, 2, 2, 2))) == "1 @# @# 2 "
    assert user("video_llava", turn) == "1 @# 2 @#"


def test_video_llava_chats_with_media_in_front_and_trains_with_media_in_place():
    assert user("video_llava", LOOK, "chat") == "@\nTake a look."
    assert user("video_llava", two(IMAGE, VIDEO), "chat") == f"@@\n{TWO}"
    assert user("video_llava", LOOK) == "Take a look.\n@"
    assert user("video_llava", two(IMAGE, VIDEO)) == "Image 1: @Image 2: @Which?"
    assert user("video_llava_llama2", LOOK, "chat") == "@\nTake a look."


def test_the_port_of_video_llava_keeps_the_order_with_a_line_break_behind_a_medium():
    asked = Turn(question="What color is the car? How many?", media=(IMAGE, VIDEO), places=(0, 23))
    literal = Turn(question="\nWhat color is the car? \nHow many?", media=(IMAGE, VIDEO), places=(0, 24))
    wanted = "@\nWhat color is the car? @\nHow many?"
    assert user("video_llava_hf", asked, "chat") == user("video_llava_hf", literal, "chat") == wanted


@pytest.mark.parametrize("name", ["videollama2_mistral", "videollama2_qwen2"])
def test_videollama2_takes_tags_out_of_the_text_and_puts_media_first(name: str):
    # What the published training makes: remove the tag, strip, put the tag and a line break in front, strip.
    for text in ("Why?\n<video>", " a <video> b ", "a<video>b", "<video>", "<video>\nWhy?"):
        plain = text.replace("<video>", "")
        turn = Turn(question=plain, media=(VIDEO,), places=(text.index("<video>"),))
        assert user(name, turn) == f"@\n{plain.strip()}".strip()
        assert user(name, turn, "train_caption") == user(name, turn)
    assert user(name, Turn(question="a b", media=(VIDEO,), places=(2,)), "chat") == "@\na b"
    assert user(name, Turn(question="ab", media=(VIDEO,), places=(1,)), "chat") == "@\na b"


def test_videochat_gives_every_medium_and_every_text_between_a_turn_of_its_own():
    assert user("videochat", two(IMAGE, VIDEO), "chat") == (
        "Image 1:\n###Human: <Image>@</Image>\n###Human: Image 2:\n###Human: "
        f"<Video>@</Video> {TIMES}\n###Human: Which?"
    )
    assert user("videochat", LOOK) == "Take a look. ###Human: <Image>@</Image>"


def test_videochat_learned_the_tags_between_media_too():
    form = PROMPTS["videochat"].form("train", ("learned_role_tags",))
    parts = conversation(form, [replace(two(IMAGE, IMAGE), answer="A.")])
    labels = [label for label in encode(parts, tiny_tokenizer(), IDS).labels if label != IGNORED]
    assert tiny_tokenizer().decode(labels) == " ###Human:" * 4 + " ###Assistant: A. ###"


def test_nano_keeps_the_order():
    assert user("nano", LOOK, "chat") == "Take a look.\n@"
    assert user("nano", two(IMAGE, VIDEO), "chat") == "Image 1: @ Image 2: @ Which?"


@pytest.mark.parametrize("name", sorted(PROMPTS))
@pytest.mark.parametrize("form", ["chat", "train", "caption", "train_caption"])
def test_no_medium_is_lost_and_those_of_a_branch_keep_their_order(name: str, form: Any):
    media = tuple(
        Medium(kind=kind, branch="audio" if kind == "audio" else "video", num_tokens=count, times_s=(0.5,))
        for count, kind in enumerate(("image", "video", "audio", "image", "audio", "video"), start=1)
    )
    turns = [Turn(question="a b c d", media=media, places=places) for places in ((0, 2, 2, 4, 4, 7), (3,) * 6, None)]
    for turn in turns:
        written = [part for part in user_parts(PROMPTS[name].form(form), turn) if isinstance(part, Slot)]
        for branch in ("video", "audio"):
            counts = [slot.num_tokens for slot in written if slot.branch == branch]
            assert counts == [medium.num_tokens for medium in media if medium.branch == branch]


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_a_place_in_front_of_everything_moves_no_text(name: str):
    typed = "<image> {video} {{ </s> ###Human: 1"
    turn = Turn(question=typed, media=(IMAGE, IMAGE), places=(8, len(typed)))
    written = user(name, turn, "chat")
    for piece in ("<image>", "{video} {{ </s> ###Human: 1"):
        assert piece in written


def test_a_later_turn_has_its_media_in_place():
    turns = [replace(two(IMAGE, IMAGE), answer="One."), Turn(question="And here?\n", media=(IMAGE,), places=(10,))]
    assert show(conversation(PROMPTS["vicuna"].train, turns), slots=SLOTS) == (
        "\n\n###Human: Image 1: <Image>@</Image>Image 2: <Image>@</Image>Which?\n###Assistant: One.\n"
        "###Human: And here?\n<Image>@</Image>\n###Assistant:"
    )


def test_a_template_that_strips_texts_leaves_media_where_they_are():
    form = Form(first="[{user}]", answer="{answer}", strips=True)
    turn = Turn(question="  look at  this  ", media=(IMAGE, IMAGE), places=(10, 15))
    assert show(conversation(form, [turn]), slots=SLOTS) == "[look at @ this@]"
    outer = replace(turn, places=(0, 17))
    assert show(conversation(form, [outer]), slots=SLOTS) == "[@  look at  this  @]"


def test_a_tokenizers_template_keeps_the_rule_of_its_system():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'system' %}{{ m['content'] }}{% else %}{{ m['content'] + eos_token }}{% endif %}"
        "{% endfor %}"
    )
    form = prompt_for("videollama2_mistral", tokenizer).train
    assert show(conversation(form, [LOOK]), slots=SLOTS) == "[INST] @\nTake a look. [/INST]"


def test_drifting_labels_count_the_text_on_both_sides_of_a_medium():
    form, tokenizer = PROMPTS["vicuna"].train, tiny_tokenizer()
    turns = [replace(LOOK, answer="A."), Turn(question="Q", answer="B.")]
    ids = encode(conversation(form, turns), tokenizer, IDS).input_ids
    labels = vicuna_label_drift(ids, form, turns, tokenizer, IDS)
    # One token a letter: the header masks itself and a bos, each sentence drifts one on, two tokens stay learned.
    first = len("\n\n") + 1
    asked = len("###Human: Take a look.\n<Image></Image>\n") + 2
    masked = [label == IGNORED for label in labels]
    assert masked[: first + asked] == [True] * first + [False] * 2 + [True] * (asked - 2)
    answer = len("###Assistant: A.\n") + 1
    assert not any(masked[first + asked : first + asked + answer])


@pytest.mark.parametrize(
    ("question", "places"), [("abc", (1,)), ("abc", (2, 1)), ("abc", (0, 4)), ("abc", (-1, 0)), ("", (0, 0, 0))]
)
def test_places_that_are_none_are_named(question: str, places: tuple[int, ...]):
    with pytest.raises(DataError, match="places of media: expected 2 characters of the question, ascending"):
        Turn(question=question, media=(IMAGE, IMAGE), places=places)
