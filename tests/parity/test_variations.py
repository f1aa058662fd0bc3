"""Cases of the same form with other texts, places, lists and numbers of turns hold; a wrong expected value does not.

The expected values are made here by the published rules, with plain string code and whole-text tokenisation.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.parity import runner
from tests.parity.forms.model import instructions
from tests.parity.model_case import Case
from tests.parity.varied import bad, case_of, change

TIMES = "The video contains 3 frames sampled at 0.0, 10.5, 21.0 seconds."


def llama_text(rounds: list[tuple[str, str]]) -> str:
    """As the published conversation of LLaMA-2 writes instruction data."""
    text = ""
    for index, (question, answer) in enumerate(rounds):
        asked = f"<<SYS>>\n \n<</SYS>>\n\n{question}" if index == 0 else question
        text += f"{'<s>' if index else ''}[INST] {asked} [/INST] {answer} </s>"
    return text


def vicuna_text(rounds: list[tuple[str, str]]) -> str:
    """As the published builder of Vicuna does."""
    return "\n\n" + "".join(f"###Human: {q}\n###Assistant: {a}\n" for q, a in rounds) + "###"


def with_image(question: str, count: int) -> str:
    """The published replacement of the tag."""
    return question.replace("<image>", "<Image>" + "<ImageHere>" * count + "</Image>")


IMAGE_ROUNDS = [
    [("Take a look.\n<image>", "A dog."), ("Sure?", "Yes.")],
    [("Where <image> is it, here or there?", "Here.")],
    [("First?", "No."), ("Then? <image>\nAnd why?", "Because."), ("So?", "So.")],
    [("<image> What?", "A cat.")],
    [("<image>What?", "A cat.")],
    [("<image>\n  What? ", "A cat.")],
]


def vary_video_llama(data: dict[str, Any]) -> None:
    asked = "Who is  there, seen and heard. Who?"
    for name, write in (("vicuna", vicuna_text), ("llama_v2", llama_text)):
        for index, rounds in enumerate(IMAGE_ROUNDS):
            count = index + 1
            told = [(with_image(question, count), answer) for question, answer in rounds]
            data["training"][f"other_image_{name}_{index}"] = write(told)
        video = f"<Video>{'<ImageHere>' * 2}</Video> {TIMES} {asked}"
        data["training"][f"other_video_{name}"] = write([(video, "I."), (" And ", "You."), ("Who?", "Two.")])
    for chat in data["chat"].values():
        add_turn(chat, asked)
    requests = ["Say <Image><ImageHere></Image> what it is.", "<Image><ImageHere></Image> Only one."]
    told = data["captions"]
    told["prompt_file_lines_alignment_image"] = requests
    told["stage2_caption_prompts_vicuna"] = [f"###Human: {text} ###Assistant: " for text in requests]
    llama = [f"[INST] <<SYS>>\n \n<</SYS>>\n\n{text} [/INST] " for text in requests]
    told["stage2_caption_prompts_llama2_as_surely_meant"] = llama
    told["stage2_caption_prompts_llama2_as_the_yaml_reads"] = [text.replace("\n", "\\n") for text in llama]


def add_turn(chat: dict[str, Any], question: str) -> None:
    """Another first question, other answers, and a third turn."""
    old = "What is happening in the video?"
    (role, _), (other, _) = chat["messages_after_turn2"][:2]
    llama = chat["sep2"] is not None
    for key in ("prompt_turn1", "prompt_turn2"):
        chat[key] = chat[key].replace(old, question).replace("A woman is cooking.", "Nobody  at all")
    asked = f"{chat['sep']}[INST] Why? [/INST]" if llama else f"{chat['sep']}{role}: Why?{chat['sep']}{other}:"
    chat["prompt_turn3"] = chat["prompt_turn2"] + (f" Yes {chat['sep2']}" if llama else " Yes") + asked
    first = chat["messages_after_turn2"][0][1].replace(old, question)
    texts = [first, "Nobody  at all", "Is there a dog?", "Yes", "Why?", "Because."]
    chat["messages_after_turn3"] = [[(role, other)[i % 2], text] for i, text in enumerate(texts)]


def test_one_step_of_another_pillow_is_allowed_and_three_are_not(tmp_path: Path):
    folder = case_of(tmp_path, "video_llama/sampling")
    tensors, std = load_file(folder / "outputs.safetensors"), json.loads((folder / "config.json").read_text())["std"]
    for steps, wanted in ((1, []), (3, ["image_eval"])):
        pixels = tensors["image_eval"].clone()
        pixels[:, ::7, ::5] += steps / 255 / max(std)
        save_file({**tensors, "image_eval": pixels}, folder / "outputs.safetensors")
        assert [row.name for row in runner.run_case(folder) if not row.ok] == wanted


def test_a_stored_picture_that_nobody_compares_fails(tmp_path: Path):
    folder = case_of(tmp_path, "video_llama/sampling")
    tensors = load_file(folder / "outputs.safetensors")
    save_file({**tensors, "video_other": tensors["video_eval"].clone()}, folder / "outputs.safetensors")
    assert [row.name for row in runner.run_case(folder) if not row.ok] == ["video_other"]


def test_other_texts_of_video_llama_hold(tmp_path: Path):
    folder = case_of(tmp_path, "video_llama/prompts")
    change(folder, vary_video_llama)
    assert bad(folder) == []


@pytest.mark.parametrize(
    ("part", "name", "old", "new"),
    [
        ("training", "stage2_image_vicuna", "Human:", "Human :"),
        ("training", "stage2_image_llama_v2", "<Image>", "<image>"),
        ("training", "stage2_video_vicuna_0", "contains", "has"),
        ("captions", "stage2_caption_prompts_vicuna", "detail", "short"),
        ("chat", "vicuna/demo_video/video", "cooking", "eating"),
    ],
)
def test_a_wrong_text_of_video_llama_fails(tmp_path: Path, part: str, name: str, old: str, new: str):
    folder = case_of(tmp_path, "video_llama/prompts")

    def edit(data: dict[str, Any]) -> None:
        if part == "training":
            data[part][name] = data[part][name].replace(old, new, 1)
        elif part == "captions":
            data[part][name] = [text.replace(old, new) for text in data[part][name]]
        else:
            data[part][name]["prompt_turn2"] = data[part][name]["prompt_turn2"].replace(old, new)

    change(folder, edit)
    named = {"training": name, "captions": "captions.vicuna", "chat": f"{name}.prompt_turn2"}[part]
    assert any(named in row or "(case)" in row for row in bad(folder))


@pytest.mark.parametrize("family", ["vicuna", "llama_v2"])
def test_ids_of_images_within_a_text_are_those_of_the_whole_text(tmp_path: Path, family: str):
    folder = case_of(tmp_path, "video_llama/model")
    for other in ("model_weights", "prompts"):
        case_of(tmp_path, f"video_llama/{other}")
    case = Case.open(folder)
    write = vicuna_text if family == "vicuna" else llama_text
    media = case.inputs["image"][:, :, None].movedim(1, 2)
    count = case.processors["vicuna"].num_tokens("video", 1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "video_llama/model_weights/llama")
    tokenizer.add_tokens(["<ImageHere>"], special_tokens=True)
    patch, slot = tokenizer.convert_tokens_to_ids("<ImageHere>"), case.model.config.slot_ids()["video"]
    for rounds in IMAGE_ROUNDS:
        text = write([(with_image(question, count), answer) for question, answer in rounds])
        case.training_texts["other_image"] = text
        (row,) = instructions(case, "other_image", "image", "video", media)
        assert [patch if token == slot else token for token in row.input_ids] == tokenizer(text).input_ids
        learned = [token for token in row.labels if token != -100]
        assert learned == masked(text, family, tokenizer)


def masked(text: str, family: str, tokenizer: Any) -> list[int]:
    """The learned ids by the published masks; those of Vicuna drift."""
    ids = tokenizer(text).input_ids
    labels = list(ids)

    def mask(start: int, end: int) -> None:
        labels[start:end] = [-100] * len(labels[start:end])

    if family == "vicuna":
        pieces = ["\n\n", *re.findall(r"###(?:Human|Assistant): .*?\n(?=###)", text, re.DOTALL)]
        lengths = [len(tokenizer(piece).input_ids) for piece in pieces]
        start = lengths[0]
        mask(0, start)
        for piece, length in zip(pieces[1:], lengths[1:], strict=True):
            if piece.startswith("###Human"):
                mask(start + 2, start + length)
            start += length
    else:
        start = 1
        mask(0, 1)
        for one in text.split("</s>")[:-1]:
            asked = one.split("[/INST] ")[0] + "[/INST] "
            mask(start, start + len(tokenizer(asked).input_ids) - 2)
            start += len(tokenizer(one).input_ids)
        mask(start, len(labels))
    image = tokenizer.convert_tokens_to_ids("<ImageHere>")
    return [label for label in labels if label not in (-100, image)]


# VideoChat


def vary_videochat(data: dict[str, Any]) -> None:
    for system in ("", "Be brief. "):
        prompt = f"{system}###Human: <Video><VideoHere></Video> {TIMES}"
        questions, answers = ["Who  is it?", "And then?", "Why?", "Oh?"], ["Me", "Nothing. ", "So"]
        for question, answer in zip(questions, [*answers, None], strict=True):
            opened = "\n###Human:" if question == questions[0] else "###Human:"
            prompt += f"{opened} {question}\n###Assistant:" + (f" {answer}" if answer is not None else "")
        row = {"system": system, "kind": "video", "message": TIMES, "questions": questions, "answers": answers}
        data["demo"].append({**row, "prompt": prompt})
        qa = [{"q": "Who?", "a": "Me, you\nand him"}, {"q": "Why?", "a": "So"}]
        text = f"{system}###Human: <Image></Image>" + "".join(
            f" ###Human: {one['q']} ###Assistant: {one['a']} ###"[0 if i == 0 else 1 + 3 :] for i, one in enumerate(qa)
        )
        data["train_stage2"].append({"kind": "image", "system": system, "msg": "", "qa": qa, "conversation": text})
    stage1 = data["train_stage1"]
    stage1["video"] = [stage1["template"].format(text) for text in ("<Video><VideoHere></Video> What?",)]
    places = ("<Image><ImageHere></Image> What is > it?", "Look at <Image><ImageHere></Image> now.")
    stage1["image"] = [stage1["template"].format(text) for text in places]


def test_other_texts_of_videochat_hold(tmp_path: Path):
    folder = case_of(tmp_path, "videochat/prompts")
    change(folder, vary_videochat)
    assert bad(folder) == []


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("train_stage1.video.1", lambda d: d["train_stage1"]["video"].__setitem__(1, d["train_stage1"]["image"][1])),
        ("demo.2.prompt", lambda d: d["demo"][2].update(prompt=d["demo"][2]["prompt"].replace(".\n", ". \n", 1))),
        ("train_stage2.0", lambda d: d["train_stage2"][0]["qa"].reverse()),
        ("train_stage1.end_sym", lambda d: d["train_stage1"].update(end_sym="##")),
    ],
)
def test_a_wrong_text_of_videochat_fails(tmp_path: Path, name: str, edit: Callable[[Any], None]):
    folder = case_of(tmp_path, "videochat/prompts")
    change(folder, edit)
    assert any(name in row for row in bad(folder))
