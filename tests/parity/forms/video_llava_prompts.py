"""The form `prompts` of Video-LLaVA: templates, prompts of the chat, and ids with labels of the training."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from avllm.model import PROMPTS, Form, Medium, Turn
from avllm.model.prompts import Text, conversation, fill, llava, show
from avllm.model.tokens import IGNORED, encode
from tests.parity.check import Check
from tests.parity.common import Row, read_json
from tests.parity.forms.llava_styles import read, run_templates, style_form, turn_of

ROW, LLAMA2 = PROMPTS["video_llava"], PROMPTS["video_llava_llama2"]
FORMS = {
    "llava_v1": ROW.chat,
    "v1": ROW.train,
    "vicuna_v1": ROW.train,
    "plain": ROW.caption,
    "llava_llama_2": LLAMA2.train,
}


def run(folder: Path) -> list[Row]:
    """Compares every string, every list of ids and all labels."""
    check = Check()
    stored = read_json(folder / "prompts.json")
    constants = stored["constants"]
    check.same("constants.IGNORE_INDEX", IGNORED, constants["IGNORE_INDEX"])
    for name in sorted(constants.keys() - {"IGNORE_INDEX"}):
        check.skip(f"constants.{name}", "a name or a bound of the original; ours has neither placeholders nor bounds")
    run_templates(stored["templates"], check, "templates")
    for name, form in FORMS.items():
        run_default_system(name, form, stored["templates"], check)
    for name in (key for key in stored if key.startswith("tokenizer")):
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        for index, row in enumerate(stored[name]["inference"]):
            key = f"{name}.inference.{index}.{row['conv_mode']}.{row['kind']}"
            run_inference(key, row, stored["templates"], tokenizer, constants, check)
        for row in stored[name]["train"]:
            run_training(f"{name}.train.{row['version']}.{row['kind']}", row, tokenizer, constants, check)
    return check.rows


def run_default_system(name: str, form: Form, templates: Mapping[str, Any], check: Check) -> None:
    """The system text that our row has of its own."""
    stored = templates.get(name)
    if isinstance(stored, dict):
        if form.system == system_of(stored):
            check.same(f"templates.{name}.system", form.system, system_of(stored))
        else:
            check.skip(f"templates.{name}.system", "the case has another system text than the published one")
        ends = [stored["stop_str"] in prompt.stop for prompt in (ROW, LLAMA2)]
        if any(ends):
            check.same(f"templates.{name}.stop_str", True, any(ends))
        else:
            check.skip(f"templates.{name}.stop_str", f"{stored['stop_str']} opens a turn; ours stops at its end")


def system_of(template: Mapping[str, Any]) -> str:
    """The system text of a stored template."""
    return read(style_form(template), template["one"]).system


def run_inference(
    name: str,
    row: dict[str, Any],
    templates: Mapping[str, Any],
    tokenizer: Any,
    constants: Mapping[str, Any],
    check: Check,
) -> None:
    """One prompt of the chat as text and as ids."""
    image = constants["IMAGE_TOKEN_INDEX"]
    stored = templates[row["conv_mode"]]
    is_plain = isinstance(stored, str)
    form = replace(ROW.caption, first="{bos}{cut}{user}\n", media=llava.MEDIA) if is_plain else style_form(stored)
    system = "" if is_plain else system_of(stored)
    turn = turn_of(read(form, row["prompt"], system=system).users[0])
    own = FORMS.get(row["conv_mode"], form)
    if not is_plain and turn.places is None and own.system == system:  # what our row writes without being told
        form, system = own, None
    parts = conversation(form, [turn], system)
    check.same(f"{name}.prompt", show(parts, slots={"video": "<image>"}), row["prompt"])
    check.same(f"{name}.input_ids", encode(parts, tokenizer, {"video": image}).input_ids, row["input_ids"])


def run_training(name: str, row: dict[str, Any], tokenizer: Any, constants: Mapping[str, Any], check: Check) -> None:
    """Ids and labels of one sample, and what the original gets wrong about it."""
    skipped = int(row["conversations"][0]["from"] == "gpt")
    rounds = row["conversations"][skipped:]
    pairs = [(ask["value"], reply["value"]) for ask, reply in zip(rounds[::2], rounds[1::2], strict=True)]
    if row["version"] not in FORMS:
        check.skip(name, f"{row['version']}: a version that no published model was trained with")
        return
    form = FORMS[row["version"]]
    if row["version"] == "plain":
        run_caption(name, row, pairs, tokenizer, constants, check)
        return
    image, num_frames = constants["IMAGE_TOKEN_INDEX"], constants["num_frames"]
    given = [ask.replace("<video>", "<image>" * num_frames) for ask, _ in pairs]
    asked = given if "error" in row else [one["value"] for one in row["after_preprocess_multimodal"][skipped::2]]
    turns = [turn_of(ask, reply) for ask, (_, reply) in zip(asked, pairs, strict=True)]
    ours = encode(conversation(form, turns), tokenizer, {"video": image})
    if "error" in row:
        wanted = sum(ask.count("<image>") for ask in given)
        check.same(f"{name}.slots", ours.input_ids.count(image), wanted)
        check.skip(f"{name}.input_ids", f"the original {row['error']}; ours takes any number of media")
        return
    for before, after in zip(given, asked, strict=True):
        if before != after:
            kept = after.count("<image>")
            check.same(f"{name}.num_images", kept, min(before.count("<image>"), constants["MAX_IMAGE_LENGTH"]))
            check.skip(f"{name}.all_images", f"the original keeps {kept} of {before.count('<image>')}, ours all")
    check.same(f"{name}.input_ids", ours.input_ids, row["input_ids"])
    if any(label != IGNORED for label in row["labels"]):
        check.same(f"{name}.labels", ours.labels, row["labels"])
        return
    learned = [label for label in ours.labels if label != IGNORED]
    wanted = "".join(show(fill(form.answer, {"answer": [Text(reply)]})) for _, reply in pairs)
    check.same(f"{name}.learned", tokenizer.decode(learned).strip(), wanted.strip())
    check.skip(
        f"{name}.labels", "the original counts its tokens wrong and then learns nothing; ours learns the answers"
    )


def run_caption(
    name: str,
    row: dict[str, Any],
    pairs: list[tuple[str, str]],
    tokenizer: Any,
    constants: Mapping[str, Any],
    check: Check,
) -> None:
    """A caption without its request; the original keeps one placeholder of all the media."""
    image = constants["IMAGE_TOKEN_INDEX"]
    tags = re.findall("<video>|<image>", pairs[0][0])
    if len(pairs) != 1 or not tags or len(row["conversations"]) != 2:
        check.skip(name, f"no caption: one medium and one text are; the original {row.get('error')}")
        return
    slots = sum(constants["num_frames"] if tag == "<video>" else 1 for tag in tags)
    medium = Medium(kind="video", branch="video", num_tokens=slots)
    parts = conversation(ROW.caption, [Turn(question=pairs[0][0], media=(medium,), answer=pairs[0][1])])
    ours = encode(parts, tokenizer, {"video": image})
    check.same(f"{name}.slots", ours.input_ids.count(image), slots)
    if "error" in row:
        check.skip(f"{name}.input_ids", f"the original {row['error']}; ours takes any number of media")
        return
    lost = slots - row["input_ids"].count(image)
    if lost:
        check.skip(f"{name}.num_images", f"the original loses {lost} placeholders of {slots}, ours none")
    at = ours.input_ids.index(image)
    ids, labels = ([*values[: at + slots - lost], *values[at + slots :]] for values in (ours.input_ids, ours.labels))
    check.same(f"{name}.input_ids", ids, row["input_ids"])
    check.same(f"{name}.labels", labels, row["labels"])
