"""Media between texts: the k-th run of slots is filled with the k-th medium, whatever the system writes around it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avllm.chat.assistant import Assistant
from avllm.errors import ConfigError, DataError
from avllm.model import PROMPTS, AvllmForConditionalGeneration, AvllmProcessor, Turn
from tests.model.tiny import VIDEO, tiny_model, tiny_processor, tiny_tokenizer
from tests.model.tiny_av import tiny_av_model, tiny_av_processor

MOVED = ("video_llava", "video_llava_llama2", "videollama2_mistral", "videollama2_qwen2")  # in the chat


def clip(seed: int, num_frames: int = 4) -> np.ndarray:
    """Frames of noise, which no layer norm makes alike."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 16, 16, 3), np.uint8)


def sound(pitch: float) -> np.ndarray:
    """One channel of a second."""
    return np.sin(np.arange(16000, dtype=np.float32) * pitch)[None]


def twin(prompt: str) -> tuple[AvllmForConditionalGeneration, AvllmProcessor]:
    """The tiny system with a prompt form of the table, and with branches in which every medium counts."""
    model, tokenizer = tiny_model(prompt=prompt), tiny_tokenizer()
    for branch in model.branches.values():
        for name, parameter in branch.named_parameters():
            if parameter.ndim == 2 and "projection" not in name:
                parameter.data.mul_(10)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return model, AvllmProcessor.from_config(model.config, tokenizer)


def asked(*parts: Any) -> list[dict[str, Any]]:
    """One question of texts, pictures, clips and sounds in this order."""
    content = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            kind = "audio" if part.ndim == 2 else "image" if part.ndim == 3 else "video"
            content.append({"type": kind, kind: part})
    return [{"role": "user", "content": content}]


def runs_of(batch: Any, model: AvllmForConditionalGeneration, branch: str, sizes: list[int]) -> list[Tensor]:
    """What fills the slots of a branch, medium by medium."""
    embeds = model.embed(batch["input_ids"], batch["media"])
    return list(embeds[batch["input_ids"] == model.config.slot_ids()[branch]].split(sizes))


@pytest.mark.parametrize("name", sorted(PROMPTS))
@torch.no_grad()
def test_each_medium_fills_its_own_slots(name: str):
    model, processor = twin(name)
    pictures = [clip(20)[0], clip(90), clip(160)[0], clip(230)]
    messages = asked("First: ", pictures[0], " second: ", pictures[1], " third: ", pictures[2], pictures[3], " Which?")

    batch = processor(messages)

    alone = [processor(asked(one))["media"]["video"] for one in pictures]
    tokens = [model.branch_tokens("video", one, None) for one in alone]
    found = runs_of(batch, model, "video", [len(one) for one in tokens])
    assert all((one - other).abs().max() > 0.01 for one, other in pairwise(tokens))
    for ours, own in zip(found, tokens, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_two_branches_each_keep_their_order():
    model = tiny_av_model()
    processor = tiny_av_processor(model)
    parts = ["A: ", clip(20), sound(0.05), " B: ", sound(0.3), clip(200), " Same?"]

    batch = processor(asked(*parts))

    for branch, media in (("video", [parts[1], parts[5]]), ("audio", [parts[2], parts[4]])):
        alone = [processor(asked(one))["media"][branch] for one in media]
        tokens = [model.branch_tokens(branch, one, None) for one in alone]
        for ours, own in zip(runs_of(batch, model, branch, [len(one) for one in tokens]), tokens, strict=True):
            torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_parts_of_a_message_keep_their_order_unless_the_system_moves_media(name: str):
    _, processor = twin(name)
    messages = asked("Image 1: ", clip(20)[0], " Image 2: ", clip(90)[0])

    text = processor.apply_chat_template(messages, tokenize=False)

    slot = processor.branches["video"].slot
    text = text.replace(slot * 3, "@")
    assert text.count("@") == 2
    order = sorted(("Image 1:", "Image 2:", "@"), key=text.index)
    assert order == (["@", "Image 1:", "Image 2:"] if name in MOVED else ["Image 1:", "@", "Image 2:"])
    assert (text.rindex("@") > text.index("Image 2:")) == (name not in MOVED)


def test_media_in_front_are_written_as_ever():
    _, processor = twin("nano")
    turns, _, _ = processor.turns_of(asked(clip(20), "", clip(90)[0], "What?"))
    assert turns[0].places is None
    turns, _, _ = processor.turns_of(asked("What?", clip(20), " Sure?"))
    assert (turns[0].question, turns[0].places) == ("What? Sure?", (5,))


def test_texts_follow_each_other_as_they_are():
    _, processor = twin("nano")
    turns, system, _ = processor.turns_of(
        [
            {"role": "system", "content": ["Be ", {"type": "text", "text": "brief."}]},
            *asked(" a\n", clip(20), "b", "c "),
            {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
        ]
    )
    assert (system, turns[0].question, turns[0].answer) == ("Be brief.", " a\nbc ", "xy")
    assert turns[0].places == (3,)


def test_an_answer_is_generated_of_media_in_their_places():
    model, processor = twin("nano")
    first, second = clip(20)[0], clip(230)[0]
    batch = processor(asked("A: ", first, " B: ", second, " Which?"))
    swapped = processor(asked("A: ", second, " B: ", first, " Which?"))

    out = model.generate(**batch, max_new_tokens=8, do_sample=False)
    again = model.generate(
        inputs_embeds=model.embed(batch["input_ids"], batch["media"]), max_new_tokens=8, do_sample=False
    )

    assert torch.equal(out, again)
    assert torch.equal(batch["input_ids"], swapped["input_ids"])
    slots = batch["input_ids"] == VIDEO
    tokens, others = (model.embed(one["input_ids"], one["media"])[slots] for one in (batch, swapped))
    torch.testing.assert_close(tokens, others.roll(3, dims=0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(tokens, others, atol=1e-2)


def test_training_learns_the_answer_behind_media_in_their_places():
    _, processor = twin("vicuna")
    messages = [*asked("Take a look.\n", clip(20)[0]), {"role": "assistant", "content": "A dog."}]
    batch = processor(messages, form="train")
    slots = (batch["input_ids"][0] == VIDEO).nonzero().flatten().tolist()
    assert slots == list(range(slots[0], slots[0] + 3))
    before = processor.tokenizer.decode(batch["input_ids"][0, : slots[0]])
    assert before.endswith("###Human: Take a look.\n<Image>")
    learned = batch["labels"][batch["labels"] != -100]
    assert processor.tokenizer.decode(learned) == " A dog.\n###"


@pytest.mark.parametrize("name", ["nano", "video_llava", "videochat"])
@torch.no_grad()
def test_keys_of_a_chat_tell_the_medium_of_every_slot(name: str):
    model, processor = twin(name)
    assistant = Assistant(model, processor)
    seen = [assistant.perceive(clip(value)[0], "image") for value in (20, 230)]
    heard = assistant.perceive(sound(0.1), "audio")
    media = [seen[0], heard, seen[1]]
    turn = Turn(question="A: B: ?", media=tuple(one.medium for one in media), places=(3, 3, 6))

    prompt = assistant.prompt([turn], media)

    wanted = {one.key: one.tokens for one in media}
    places = [(place, key) for place, key in enumerate(prompt.keys) if isinstance(key, tuple)]
    assert [key for _, key in places if key[0] != heard.key] == [(one.key, i) for one in seen for i in range(3)]
    assert len(places) == sum(len(one.tokens) for one in media)
    for place, (key, index) in places:
        torch.testing.assert_close(prompt.embeds[0, place], wanted[key][index])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "text"}], "content of type text: expected its text under 'text'"),
        ([{"type": "image"}], "content of type image: expected its source under 'image', 'path' or 'url', got"),
        ([{"type": "video", "video": "a", "path": "b"}], r"got \['video', 'path'\]"),
        ([{"type": "video", "video": "a", "max_pixels": 9}], "max_pixels: unknown key; .* known are: .*fps"),
        ([{"type": "image", "image": "a", "num_frames": 2}], "num_frames: has no use for an image"),
        ([7], "part of a message: expected a text or a dict with a type, got int"),
        (7, "message content: expected a text or a list of parts, got int"),
    ],
)
def test_parts_that_nobody_would_read_are_named(content: Any, message: str):
    with pytest.raises(DataError, match=message):
        tiny_processor(tiny_model())([{"role": "user", "content": content}])


def test_an_option_of_a_part_holds_for_that_part():
    _, processor = twin("nano")
    parts = [{"type": "video", "video": clip(9, 8), "num_frames": 2}, {"type": "video", "video": clip(9, 8)}]
    batch = processor([{"role": "user", "content": parts}])
    assert [len(one) for one in batch["media"]["video"]] == [2, 4]


def test_nothing_that_is_given_is_dropped():
    _, processor = twin("nano")
    told = [{"role": "user", "content": "Hi"}]
    with pytest.raises(DataError, match="text, video: given beside messages; put it into the content of a message"):
        processor(told, text="x", video=clip(9))
    with pytest.raises(DataError, match="message of the role 'assistant': holds media"):
        processor([*told, {**asked(clip(9))[0], "role": "assistant"}])
    with pytest.raises(ConfigError, match="chat_template='x': prompts are those of the system"):
        processor.apply_chat_template(told, "x")
    with pytest.raises(ConfigError, match="return_tensors='np'"):
        processor.apply_chat_template(told, return_tensors="np")
    text = processor.apply_chat_template([told, told], tokenize=False, add_generation_prompt=True)
    assert text == ["human: Hi\nassistant:"] * 2
    answered = [*told, {"role": "assistant", "content": "Yo"}]
    learned = processor.apply_chat_template(answered, tokenize=False, form="train")
    assert learned == "human: Hi\nassistant: Yo</s>"
