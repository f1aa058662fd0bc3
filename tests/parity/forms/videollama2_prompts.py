"""The form `prompts` of VideoLLaMA 2: prompts by the tokenizer's chat template, and ids with labels of both stages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from avllm.checkpoints.videollama2 import prompt_for as row_of
from avllm.model import Medium, Turn
from avllm.model.prompts import Prompt, conversation, prompt_for, show
from avllm.model.tokens import IGNORED, encode
from tests.parity.check import Check
from tests.parity.common import Row, read_json
from tests.parity.forms.llava_styles import run_templates

# The chat template that Mistral-7B-Instruct-v0.2 was published with; it refuses a system text.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
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
        prompt = prompt_for(row_of(case["cases"][0]["model_type"]), tokenizer)
        for index, row in enumerate(case["train"]):
            run_training(f"{name}.train.{index}.{row['kind']}", row, prompt, tokenizer, constants, check)
        if name == "mistral":
            run_other_templates(stored["other_mistral_templates"], tokenizer, check)
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
    parts = conversation(form, turns_of([one["content"] for one in said], tag))
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
    turns = []
    for ask, reply in zip(rounds[::2], rounds[1::2], strict=True):
        media = (medium_of(tag),) if tag and tag in ask["value"] else ()
        question = ask["value"].replace(tag, "").strip() if media else ask["value"]
        turns.append(Turn(question=question, media=media, answer=reply["value"]))
    form = prompt.train_caption if "plain" in row["path"] else prompt.train
    ours = encode(conversation(form, turns), tokenizer, slots_of(tag, constants))
    check.same(f"{name}.input_ids", ours.input_ids, row["input_ids"])
    check.same(f"{name}.labels", ours.labels, row["labels"])


def run_other_templates(stored: Mapping[str, str], tokenizer: Any, check: Check) -> None:
    """A template that refuses a system text, and the form that holds without any template."""
    text = "What is happening in this video?"
    templates = {"official_mistral": MISTRAL, "transformers": None}
    kept = tokenizer.chat_template
    for key, wanted in stored.items():
        start = next((start for start in templates if key.startswith(start)), None)
        if start is None:
            check.skip(key, "a template whose text the case does not hold")
            continue
        tokenizer.chat_template = templates[start]
        form = prompt_for("videollama2_mistral", tokenizer).chat
        system = None if key.endswith("with_system") else ""
        parts = conversation(form, [Turn(question=text, media=(medium_of("<video>"),))], system)
        shown = f"{tokenizer.bos_token}{show(parts, slots={'video': '<video>'})}"
        if wanted.startswith("RAISES"):
            without = key.replace("with_system", "without_system")
            check.same(f"{key}.system_left_out", shown, stored[without])
            check.skip(key, f"the original {wanted}; ours leaves the system text out")
        else:
            check.same(key, shown, wanted)
    tokenizer.chat_template = kept
