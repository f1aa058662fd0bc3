"""Cases of Video-LLaVA and VideoLLaMA 2 with other texts and places hold; a wrong expected value does not.

The expected values are made here by the published rules: tags replaced or moved, chunks tokenised one by one.
"""

import re
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tests.parity.varied import bad, case_of, change, messages_of

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
        "conversations": messages_of(rounds),
        "after_preprocess_multimodal": messages_of(seen),
        "input_ids": ids,
        "labels": labels,
    }


def vary_video_llava(data: dict[str, Any], folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    image = data["constants"]["IMAGE_TOKEN_INDEX"]
    for version in ("v1", "llava_llama_2"):
        for kind, rounds in CHUNKS:
            data["tokenizer"]["train"].append(llava_row(version, kind, rounds, tokenizer, data))
    told = data["templates"]["llava_v1"]["one"].split(" USER: ")[0]
    for question in ("<image>\nWho  is it?", "<image><image>\nWhich?", "Who is <image> here?", "No picture"):
        prompt = f"{told} USER: {question} ASSISTANT:"
        row = {
            "kind": "other",
            "conv_mode": "llava_v1",
            "prompt": prompt,
            "input_ids": chunked(prompt, tokenizer, image),
        }
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
    said = messages_of(rounds)
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
