"""The form `prompts` of VideoLLaMA 2: prompts by the tokenizer's chat template, and ids with labels of both stages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from avllm.checkpoints.videollama2 import prompt_for as row_of
from avllm.model import Medium, Turn
from avllm.model.prompts import Prompt, conversation, prompt_for, show
from avllm.model.tokens import IGNORED, encode
from tests.parity.check import Check
from tests.parity.common import Row, read_json
from tests.parity.forms.llava_styles import read, run_templates

# The chat template that Mistral-7B-Instruct-v0.2 was published with; it refuses a system text.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# Part of a template's name -> its text; None is the one that transformers gave to every LLaMA tokenizer.
TEMPLATES = {"llama": None, "mistral": MISTRAL}
TAGS = {"<image>": "image", "<video>": "video", "<audio>": "audio"}


def run(folder: Path) -> list[Row]:
    """Compares every string, every list of ids and all labels."""
    check = Check()
    stored = read_json(folder / "prompts.json")
    constants = stored["constants"]
    check.same("constants.IGNORE_INDEX", IGNORED, constants["IGNORE_INDEX"])
    for name in sorted(constants.keys() - {"IGNORE_INDEX", *TAGS}):
        check.skip(f"constants.{name}", "a setting of reading media, not of prompts")
    for name, case in stored["tokenizers"].items():
        tokenizer = AutoTokenizer.from_pretrained(folder / f"tokenizer_{name}")
        check.same(f"{name}.chat_template", tokenizer.chat_template, case["chat_template"])
        marks = [tokenizer.bos_token_id, tokenizer.eos_token_id]
        check.same(f"{name}.bos_eos", marks, [case["bos"], case["eos"]])
        for index, row in enumerate(case["cases"]):
            run_inference(f"{name}.cases.{index}", row, tokenizer, constants, check)
        model_type = next(row["model_type"] for row in case["cases"] if "model_type" in row)
        prompt = prompt_for(row_of(model_type), tokenizer)
        for index, row in enumerate(case["train"]):
            run_training(f"{name}.train.{index}.{row['kind']}", row, prompt, tokenizer, constants, check)
        run_other_templates(stored.get(f"other_{name}_templates", {}), row_of(model_type), tokenizer, check)
    for key in (key for key in stored if key.startswith("conversation_py_templates")):
        run_templates(stored[key], check, "conversation_py_templates")
    return check.rows


def medium_of(tag: str) -> Medium:
    """A medium of one slot in place of a tag."""
    kind: Any = TAGS[tag]
    return Medium(kind=kind, branch="audio" if kind == "audio" else "video", num_tokens=1)


def slots_of(tag: str | None, constants: Mapping[str, Any]) -> dict[str, int]:
    """The placeholder id of a tag in the place of our slot ids."""
    return {} if tag is None else {medium_of(tag).branch: constants[tag]}


def run_inference(name: str, row: dict[str, Any], tokenizer: Any, constants: Mapping[str, Any], check: Check) -> None:
    """One prompt of the chat as text and as ids."""
    if row["path"] != "mm_infer":
        check.skip(f"{name}.generate_kwargs", "settings of a generation; ours is greedy by default")
        return
    key = f"{name}.{row['model_type']}.{row['modal']}.{row['kind']}"
    tag = None if row["modal"] == "text" else f"<{row['modal']}>"
    said = row["instruct"] if isinstance(row["instruct"], list) else [{"role": "user", "content": row["instruct"]}]
    form = prompt_for(row_of(row["model_type"]), tokenizer).chat
    told = next((one["content"] for one in row["messages"] if one["role"] == "system"), None)
    system = None if told in (None, form.system) else told
    parts = conversation(form, turns_of([one["content"] for one in said], tag), system)
    slots = slots_of(tag, constants)
    shown = show(parts, slots=dict.fromkeys(slots, tag or ""), eos=tokenizer.eos_token)
    check.same(f"{key}.prompt", f"{tokenizer.bos_token or ''}{shown}", row["prompt"])
    ids = encode(parts, tokenizer, slots).input_ids
    check.same(f"{key}.input_ids", ids, row["input_ids"])
    check.same(f"{key}.attention_mask_ones", len(ids), row["attention_mask_ones"])


def turns_of(texts: Sequence[str], tag: str | None) -> list[Turn]:
    """Questions and answers in turn; the medium goes to the first."""
    answers = [*texts[1::2], None][: len(texts[::2])]
    turns = [Turn(question=ask, answer=reply) for ask, reply in zip(texts[::2], answers, strict=True)]
    media = () if tag is None else (medium_of(tag),)
    return [Turn(question=turns[0].question, answer=turns[0].answer, media=media), *turns[1:]]


def run_training(
    name: str, row: dict[str, Any], prompt: Prompt, tokenizer: Any, constants: Mapping[str, Any], check: Check
) -> None:
    """Ids and labels of one sample."""
    tag, said = row["modal_token"], row["conversations"]
    rounds = said[said[0]["from"] == "gpt" :]
    pairs = [(ask["value"], reply["value"]) for ask, reply in zip(rounds[::2], rounds[1::2], strict=True)]
    turns = [tagged(ask, tag, reply) for ask, reply in pairs]
    form = prompt.train_caption if "plain" in row["path"] else prompt.train
    ours = encode(conversation(form, turns), tokenizer, slots_of(tag, constants))
    check.same(f"{name}.input_ids", ours.input_ids, row["input_ids"])
    check.same(f"{name}.labels", ours.labels, row["labels"])


def tagged(question: str, tag: str | None, answer: str) -> Turn:
    """A question whose medium stands where its tag is; however often the tag is there, it is one medium."""
    if not tag or tag not in question:
        return Turn(question=question, answer=answer)
    place = question.index(tag)
    return Turn(question=question.replace(tag, ""), media=(medium_of(tag),), answer=answer, places=(place,))


def run_other_templates(stored: Mapping[str, str], row: str, tokenizer: Any, check: Check) -> None:
    """A template that refuses a system text, and the form that holds without any template.

    A case holds what the templates have written, not the templates: those are known by their names alone.
    """
    kept = tokenizer.chat_template
    for key, wanted in stored.items():
        name, _, end = key.rpartition(".")
        known = next((word for word in TEMPLATES if word in name), None)
        if known is None:
            check.skip(key, "a template whose text the case does not hold")
            continue
        tokenizer.chat_template = TEMPLATES[known]
        form = prompt_for(row, tokenizer).chat
        bare = replace(form, first=form.without_system or form.first)
        is_refused = wanted.startswith("RAISES")
        text = stored[f"{name}.without_system"] if is_refused else wanted
        bos = tokenizer.bos_token or ""
        said = read(form if end == "with_system" and not is_refused else bare, text.removeprefix(bos))
        tag = next(tag for tag in TAGS if tag in said.users[0])
        turn = Turn(question=said.users[0].removeprefix(f"{tag}\n"), media=(medium_of(tag),))
        system = None if said.system in ("", form.system) and end == "with_system" else said.system
        shown = show(conversation(form, [turn], system), slots={medium_of(tag).branch: tag}, eos=tokenizer.eos_token)
        check.same(f"{key}.system_left_out" if is_refused else key, f"{bos}{shown}", text)
        if is_refused:
            check.skip(key, f"the original {wanted}; ours leaves the system text out")
    tokenizer.chat_template = kept
