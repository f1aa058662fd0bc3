"""Cases of the same form with other texts, places, lists and numbers of turns hold; a wrong expected value does not.

The expected values are made here by the published rules, with plain string code and whole-text tokenisation.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.parity import runner
from tests.parity.forms.model import instructions
from tests.parity.model_case import Case
from tests.parity.test_parity import COPIES, GOLDEN

TIMES = "The video contains 3 frames sampled at 0.0, 10.5, 21.0 seconds."


def case_of(tmp_path: Path, name: str) -> Path:
    """A private copy of a case; the small ones come with the package's tests."""
    source = next((root / name for root in (COPIES, GOLDEN) if (root / name).is_dir()), None)
    if source is None:
        pytest.skip(f"the reference case {name} is not here; AVLLM_GOLDEN names the folder of the recorded cases")
    shutil.copytree(source, tmp_path / name, copy_function=shutil.copyfile)
    for path in (tmp_path / name).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / name


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    path = folder / "prompts.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def bad(folder: Path) -> list[str]:
    return [f"{row.name}: {row.note}" for row in runner.run_case(folder) if not row.ok]


# Video-LLaMA


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


def test_other_texts_of_video_llama_hold(tmp_path: Path):
    folder = case_of(tmp_path, "video_llama/prompts")
    change(folder, vary_video_llama)
    assert bad(folder) == []


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("training.stage2_image_vicuna", lambda d, n: d["training"].update({n: d["training"][n].replace("Human:", "Human :", 1)})),
        ("training.stage2_image_llama_v2", lambda d, n: d["training"].update({n: d["training"][n].replace("<Image>", "<image>", 1)})),
        ("training.stage2_video_vicuna_0", lambda d, n: d["training"].update({n: d["training"][n].replace("contains", "has", 1)})),
        ("captions.vicuna", lambda d, n: d["captions"]["stage2_caption_prompts_vicuna"].reverse()),
        ("vicuna/demo_video/video.prompt_turn2", lambda d, n: d["chat"]["vicuna/demo_video/video"].update(prompt_turn2="x")),
    ],
)  # fmt: skip
def test_a_wrong_text_of_video_llama_fails(tmp_path: Path, name: str, edit: Callable[[Any, str], None]):
    folder = case_of(tmp_path, "video_llama/prompts")
    change(folder, lambda data: edit(data, name.removeprefix("training.")))
    found = bad(folder)
    assert found
    assert any(name in row or "(case)" in row for row in found)


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


# Video-LLaVA


CHUNKS = [
    ("video_in_the_middle", [("Who is in <video>\n and why?", "A cat."), ("Sure?", "Yes.")]),
    ("two_images_apart", [("Left <image>\nRight<image>\nWhich?", "Left.")]),
    ("later_turn", [("Hello?", "Hi."), ("What is\n<image>", "A car."), ("Red?", "No.")]),
    ("in_front_without_a_line_break", [("<image>What?", "A car.")]),
]


def chunked(text: str, tokenizer: Any, image: int) -> list[int]:
    """The published tokenisation: every chunk with its bos, of which the first is kept."""
    ids: list[int] = [tokenizer.bos_token_id]
    for index, chunk in enumerate(text.split("<image>")):
        # The tokenizer of today leaves a `▁` out before a space, which the published one wrote.
        own = tokenizer(f" {chunk}" if chunk[:1] == " " else chunk).input_ids if chunk else [tokenizer.bos_token_id]
        ids += ([image] if index else []) + own[1:]
    return ids


def llava_row(version: str, kind: str, rounds: list[tuple[str, str]], tokenizer: Any, data: Any) -> dict[str, Any]:
    image, num_frames = data["constants"]["IMAGE_TOKEN_INDEX"], data["constants"]["num_frames"]
    seen = [(ask.replace("<video>", "<image>" * num_frames), reply) for ask, reply in rounds]
    if version == "v1":
        told = data["templates"]["vicuna_v1"]["one"].split(" USER: ")[0]
        text, sep = f"{told} ", " ASSISTANT: "
        text += "".join(f"USER: {ask}{sep}{reply}</s>" for ask, reply in seen)
    else:
        system = re.search(r"<<SYS>>.*<</SYS>>\n\n", data["templates"]["llava_llama_2"]["one"], re.DOTALL)
        text, sep = "", "[/INST] "
        for index, (ask, reply) in enumerate(seen):
            asked = ask if index else f"{system[0]}{ask}"  # type: ignore[index]
            text += f"{'<s>' if index else ''}[INST] {asked} {sep}{reply} </s>"
    ids = chunked(text, tokenizer, image)
    labels, start = list(ids), 1
    labels[:1] = [-100]
    for one in text.split("</s>")[:-1]:
        asked = one.split(sep)[0] + sep
        end = start + len(chunked(asked, tokenizer, image)) - 2
        labels[start:end] = [-100] * (end - start)
        start += len(chunked(one, tokenizer, image))
    return {
        "version": version,
        "kind": kind,
        "conversations": [{"from": who, "value": v} for pair in rounds for who, v in zip(("human", "gpt"), pair, strict=True)],
        "after_preprocess_multimodal": [
            {"from": who, "value": v} for pair in seen for who, v in zip(("human", "gpt"), pair, strict=True)
        ],
        "input_ids": ids,
        "labels": labels,
    }  # fmt: skip


def vary_video_llava(data: dict[str, Any], folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    image = data["constants"]["IMAGE_TOKEN_INDEX"]
    for version in ("v1", "llava_llama_2"):
        for kind, rounds in CHUNKS:
            data["tokenizer"]["train"].append(llava_row(version, kind, rounds, tokenizer, data))
    told = data["templates"]["llava_v1"]["one"].split(" USER: ")[0]
    for question in ("<image>\nWho  is it?", "<image><image>\nWhich?", "Who is <image> here?", "No picture"):
        prompt = f"{told} USER: {question} ASSISTANT:"
        row = {"kind": "other", "conv_mode": "llava_v1", "prompt": prompt, "input_ids": chunked(prompt, tokenizer, image)}
        data["tokenizer"]["inference"].append(row)
    for part in ("one", "two"):
        own = data["templates"]["llava_v1"]
        data["templates"]["mine"] = {**data["templates"].get("mine", own), part: own[part].replace(told, "Be kind.")}


def test_other_texts_of_video_llava_hold(tmp_path: Path):
    folder = case_of(tmp_path, "video_llava/prompts")
    change(folder, lambda data: vary_video_llava(data, folder))
    assert bad(folder) == []


def test_a_wrong_id_of_video_llava_fails(tmp_path: Path):
    folder = case_of(tmp_path, "video_llava/prompts")

    def edit(data: dict[str, Any]) -> None:
        vary_video_llava(data, folder)
        rows = data["tokenizer"]["train"]
        rows[-1]["input_ids"][5] += 1
        rows[-2]["labels"][-1] = -100
        rows[-3]["after_preprocess_multimodal"][0]["value"] += " "

    change(folder, edit)
    found = bad(folder)
    for part in ("in_front_without_a_line_break.input_ids", "later_turn.labels", "two_images_apart.input_ids"):
        assert any(part in row for row in found), part


# VideoLLaMA 2


def split_ids(text: str, tag: str, tokenizer: Any, index: int) -> list[int]:
    """The published tokenisation around one tag."""
    # The tokenizer of today leaves a `▁` out before a space, which the published one wrote.
    space = " " if tokenizer.tokenize("a")[0].startswith("▁") else ""
    ids: list[int] = []
    for number, chunk in enumerate(text.split(tag)):
        own = f"{space}{chunk}" if chunk[:1] == " " else chunk
        ids += ([index] if number else []) + (tokenizer(own, add_special_tokens=False).input_ids if own else [])
    return ids


def videollama2_row(kind: str, tag: str, rounds: list[tuple[str, str]], tokenizer: Any, index: int) -> dict[str, Any]:
    said = [{"from": who, "value": v} for pair in rounds for who, v in zip(("human", "gpt"), pair, strict=True)]
    moved = []
    for one in said:
        value = one["value"]
        if tag in value:
            value = f"{tag}\n{value.replace(tag, '').strip()}".strip()
        moved.append({"role": "user" if one["from"] == "human" else "assistant", "content": value})

    def ids(count: int, *, asks: bool) -> list[int]:
        text = tokenizer.apply_chat_template(moved[:count], tokenize=False, add_generation_prompt=asks)
        return split_ids(text, tag, tokenizer, index)

    labels, start = ids(len(moved), asks=False), 0
    for count in range(1, len(moved), 2):
        asked = len(ids(count, asks=True))
        labels[start:asked] = [-100] * (asked - start)
        start = len(ids(count + 1, asks=False))
    row = {"path": "train.preprocess (stage 2)", "kind": kind, "modal_token": tag, "conversations": said}
    return {**row, "input_ids": ids(len(moved), asks=False), "labels": labels}


def vary_videollama2(data: dict[str, Any], folder: Path) -> None:
    rounds = [
        ("between", "<video>", [("Why is <video> funny?", "A cat."), ("Who?", "A dog.")]),
        ("twice", "<image>", [("  <image>\nLeft <image> right?  ", "A car.")]),
        ("later", "<video>", [("Hello?", "Hi."), ("What is this?<video>", "A car."), ("Red?", "No.")]),
        ("alone", "<image>", [("<image>", "A car.")]),
    ]
    for name, case in data["tokenizers"].items():
        tokenizer = AutoTokenizer.from_pretrained(folder / f"tokenizer_{name}")
        for kind, tag, said in rounds:
            case["train"].append(videollama2_row(kind, tag, said, tokenizer, data["constants"][tag]))
        asked = next(row for row in case["cases"] if row.get("kind") == "single" and row.get("modal") == "video")
        text = asked["prompt"].replace(asked["instruct"], "Who  is it")
        ids = split_ids(text, "<video>", tokenizer, data["constants"]["<video>"])
        case["cases"].append(
            {**asked, "instruct": "Who  is it", "prompt": text, "input_ids": ids, "attention_mask_ones": len(ids)}
        )
    others = data["other_mistral_templates"]
    for key, text in others.items():
        others[key] = text.replace("What is happening in this video?", "Who  is it?").replace("<video>", "<image>")


def test_other_texts_of_videollama2_hold(tmp_path: Path):
    folder = case_of(tmp_path, "videollama2/prompts")
    change(folder, lambda data: vary_videollama2(data, folder))
    assert bad(folder) == []


def test_a_wrong_value_of_videollama2_fails(tmp_path: Path):
    folder = case_of(tmp_path, "videollama2/prompts")

    def edit(data: dict[str, Any]) -> None:
        vary_videollama2(data, folder)
        rows = data["tokenizers"]["qwen"]["train"]
        rows[-1]["input_ids"].append(5)
        rows[-2]["labels"][-1] = -100
        rows[-4]["conversations"][0]["value"] = "Why is <video>  funny?"

    change(folder, edit)
    found = bad(folder)
    for part in ("alone.input_ids", "later.labels", "between.input_ids"):
        assert any(part in row for row in found), part


def test_a_wrong_text_of_another_template_fails(tmp_path: Path):
    folder = case_of(tmp_path, "videollama2/prompts")
    key = "transformers_4.42_llama_default.without_system"
    change(folder, lambda data: data["other_mistral_templates"].update({key: "<s>[INST] <video> What? [/INST]"}))
    assert any(key in row for row in bad(folder))
