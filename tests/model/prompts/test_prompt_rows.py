"""What VideoChat, Video-LLaVA and VideoLLaMA 2 write."""

from dataclasses import replace
from typing import Any

import pytest

from avllm.errors import ConfigError
from avllm.model import PROMPTS, Medium, System, Turn
from avllm.model.prompts import conversation, fill, prompt_for, show
from avllm.model.tokens import IGNORED, encode
from tests.model.tiny import TINY, tiny_model, tiny_processor, tiny_tokenizer

VIDEO = Medium(kind="video", branch="video", num_tokens=2, times_s=(0.0, 1.25))
IMAGE = Medium(kind="image", branch="video", num_tokens=1)
SLOTS = {"audio": 300, "video": 301}
ASKED = [Turn(question="What?", media=(VIDEO,), answer="A dog."), Turn(question="Sure?")]
TOLD = [ASKED[0], replace(ASKED[1], answer="Yes.")]


def text_of(name: str, turns: list[Turn], form: Any = "chat", *, quirks: tuple[str, ...] = (), **options: Any) -> str:
    return show(conversation(PROMPTS[name].form(form, quirks), turns, **options), slots={"video": "*"})


def learned(name: str, turns: list[Turn], form: Any = "train", quirks: tuple[str, ...] = ()) -> str:
    parts = conversation(PROMPTS[name].form(form, quirks), turns)
    labels = encode(parts, tiny_tokenizer(), SLOTS).labels
    return tiny_tokenizer().decode([label for label in labels if label != IGNORED])


def test_videochat_shows_the_video_in_a_turn_of_its_own():
    assert text_of("videochat", ASKED) == (
        "###Human: <Video>**</Video> The video contains 2 frames sampled at 0.0, 1.2 seconds.\n###Human: What?\n"
        "###Assistant: A dog.###Human: Sure?\n###Assistant:"
    )


def test_videochat_takes_several_media_and_new_ones_later():
    turns = [Turn(question="What?", media=(IMAGE, IMAGE), answer="A."), Turn(question="And?", media=(IMAGE,))]
    picture = "###Human: <Image>*</Image>\n"
    assert text_of("videochat", turns) == (
        f"{picture * 2}###Human: What?\n###Assistant: A.{picture}###Human: And?\n###Assistant:"
    )


def test_videochat_trains_on_other_spaces():
    assert text_of("videochat", TOLD, "train", system="Follow. ") == (
        "Follow. ###Human: <Video>**</Video> The video contains 2 frames sampled at 0.0, 1.2 seconds. ###Human: What? "
        "###Assistant: A dog. ###Human: Sure? ###Assistant: Yes. ###"
    )


def test_videochat_learned_the_tags_of_the_roles_too():
    quirk = ("learned_role_tags",)
    assert text_of("videochat", TOLD, "train", quirks=quirk) == text_of("videochat", TOLD, "train")
    assert learned("videochat", TOLD) == " A dog. ### Yes. ###"
    tags = " ###Human: ###Assistant: A dog. ###Human: ###Assistant: Yes. ###"
    assert learned("videochat", TOLD, quirks=quirk) == tags


def test_a_processor_restores_the_learned_tags_when_its_system_says_so():
    model = tiny_model(prompt="videochat", published_quirks=["learned_role_tags"])
    encoded = tiny_processor(model).encode(TOLD, form="train")
    text = tiny_tokenizer().decode([label for label in encoded.labels if label != IGNORED])
    assert text.startswith(" ###Human: ###Assistant: A dog.")


def test_learned_tags_are_a_fault_of_videochat_alone():
    from avllm import config

    with pytest.raises(ConfigError, match="learned_role_tags is a fault of prompt videochat, not nano"):
        config.parse(System, {**TINY, "published_quirks": ["learned_role_tags"]})


def test_videochat_glues_the_end_to_a_caption():
    turn = Turn(question="Describe it.", media=(IMAGE,), answer="A dog")
    text = "###Human: <Image>*</Image> Describe it. ###Assistant: A dog###"
    assert text_of("videochat", [turn], "train_caption") == text
    assert learned("videochat", [turn], "train_caption") == "A dog###"


def test_videochat_answers_end_at_the_next_tag():
    assert PROMPTS["videochat"].answer_text("###") == ""
    assert PROMPTS["videochat"].answer_text("Assistant: A dog.\n###Human: no") == "A dog."


def test_video_llava_chats_with_a_human_and_trains_with_a_user():
    chat, train = (text_of("video_llava", ASKED, form) for form in ("chat", "train"))
    polite = "The assistant gives helpful, detailed, and polite answers to the {}'s questions."
    told = "A chat between a curious {} and an artificial intelligence assistant. " + polite
    rounds = " USER: **\nWhat? ASSISTANT: A dog.</s>USER: Sure? ASSISTANT:"
    assert chat == told.format("human", "human") + rounds
    assert train == told.format("user", "user") + rounds


def test_video_llava_puts_one_line_break_behind_all_media():
    turns = [Turn(question="Which?", media=(VIDEO, IMAGE), answer="A."), Turn(question="And?", media=(IMAGE,))]
    assert text_of("video_llava", turns, system="S.") == (
        "S. USER: ***\nWhich? ASSISTANT: A.</s>USER: *\nAnd? ASSISTANT:"
    )
    assert text_of("video_llava", [Turn(question="Q")], system="") == "USER: Q ASSISTANT:"


def test_a_caption_of_video_llava_is_learned_without_its_request():
    turn = Turn(question="Describe it.", media=(VIDEO,), answer="A dog.")
    assert text_of("video_llava", [turn], "caption") == "**A dog.\n"
    assert learned("video_llava", [turn], "caption") == "A dog.\n"


def test_the_port_of_video_llava_is_told_nothing_first():
    turns = [replace(ASKED[0], media=(VIDEO, IMAGE)), ASKED[1]]
    expected = "USER: **\n*\nWhat? ASSISTANT: A dog. USER: Sure? ASSISTANT:"
    assert text_of("video_llava_hf", turns) == expected


def test_videollama2_learns_all_text_of_its_first_stage():
    turn = Turn(question="Describe it.", media=(VIDEO,), answer="a dog")
    assert text_of("videollama2_mistral", [turn], "train_caption") == "**\nDescribe it. a dog"
    assert learned("videollama2_mistral", [turn], "train_caption") == "\nDescribe it. a dog"
    assert learned("videollama2_qwen2", [turn], "caption") == "Describe it. a dog"


def test_videollama2_without_a_template_writes_as_llama_does():
    prompt = text_of("videollama2_mistral", ASKED)
    assert prompt.startswith("[INST] <<SYS>>\n<<SYS>>\nYou are a helpful")
    assert prompt.endswith("<</SYS>>\n<</SYS>>\n\n**\nWhat? [/INST] A dog. </s><s>[INST] Sure? [/INST]")
    assert text_of("videollama2_mistral", ASKED[1:], "train") == "[INST] Sure? [/INST]"


def test_knows_no_other_rows():
    with pytest.raises(ConfigError, match="'videochat2' is unknown, known are: llama2, nano"):
        prompt_for("videochat2", tiny_tokenizer())


def test_names_a_field_that_is_not_known():
    with pytest.raises(ValueError, match=r"template field \{usr\} is unknown, known here are: user"):
        fill("{usr}", {"user": []})


def test_braces_in_templates_are_written_twice():
    assert show(fill("{{a}} {<|x|>}{cut} }}", {})) == "{a} <|x|> }"
