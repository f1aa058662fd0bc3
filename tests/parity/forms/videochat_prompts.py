"""The form `prompts` of VideoChat: the demo, both stages of the training, and how texts are tokenised."""

import re
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from avllm.model import PROMPTS, Medium, Turn
from avllm.model.prompts import Cut, Special, Text, conversation, show
from avllm.model.tokens import encode
from tests.parity import tags
from tests.parity.check import Check
from tests.parity.common import Row, read_json
from tests.parity.model_case import times_in

ROW = PROMPTS["videochat"]
WORDS = r"<Video>[^<]*<\w*>[^<]*</Video>|<Image>[^<]*<\w*>[^<]*</Image>"


def run(folder: Path) -> list[Row]:
    """Compares every string and every list of ids."""
    check = Check()
    stored = read_json(folder / "prompts.json")
    placeholders = dict(zip(("video", "image"), stored["special"]["placeholders"], strict=True))
    for index, demo in enumerate(stored["demo"]):
        run_demo(f"demo.{index}", demo, placeholders, check)
    run_captions(stored["train_stage1"], placeholders, check)
    for index, text in enumerate(stored["train_stage2"]):
        run_instruction(f"train_stage2.{index}", text, check)
    run_special(stored["special"], check)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    for index, row in enumerate(stored["tokenization"]):
        texts = [Text(row["text"])]
        ids = {
            "ids_no_special": encode(texts, tokenizer, {}).input_ids,
            "ids_with_bos": encode([Special("bos"), Cut(), *texts], tokenizer, {}).input_ids,
        }
        for name, found in ids.items():
            check.same(f"tokenization.{index}.{name}", found, row[name])
        check.same(f"tokenization.{index}.decode", tokenizer.decode(ids["ids_no_special"]), row["decode"])
    return check.rows


def medium_of(kind: Any, message: str) -> Medium:
    """The medium of which a message tells the times."""
    return Medium(kind=kind, branch="video", num_tokens=1, times_s=times_in(message))


def run_demo(name: str, demo: dict[str, Any], placeholders: dict[str, str], check: Check) -> None:
    """A chat about one medium, up to where the next answer begins."""
    medium = medium_of(demo["kind"], demo["message"])
    answers = [*demo["answers"], None]
    turns = [Turn(question=q, answer=a) for q, a in zip(demo["questions"], answers, strict=True)]
    turns[0] = Turn(question=turns[0].question, answer=turns[0].answer, media=(medium,))
    slots = {"video": placeholders[demo["kind"]]}
    shown = show(conversation(ROW.chat, turns, demo["system"]), slots=slots)
    check.same(f"{name}.prompt", shown, demo["prompt"])
    if not demo["system"]:
        check.same(f"{name}.default_system", show(conversation(ROW.chat, turns), slots=slots), demo["prompt"])


def run_captions(stored: dict[str, Any], placeholders: dict[str, str], check: Check) -> None:
    """The case's requests to describe a medium, and what ends a caption."""
    for kind, slot in placeholders.items():
        for index, prompt in enumerate(stored[kind]):
            turn = request_of(prompt, stored["template"])
            kinds = [medium.kind for medium in turn.media]
            shown = show(conversation(ROW.train_caption, [turn]), slots={"video": slot})
            check.same(f"train_stage1.{kind}.{index}", (shown, kinds), (prompt, [kind]))
    form = ROW.train_caption
    template = show(conversation(form, [Turn(question="{}")]))
    check.same("train_stage1.template", template, stored["template"])
    answered = show(conversation(form, [Turn(question="{}", answer="caption")]))
    check.same("train_stage1.end_sym", answered.removeprefix(f"{template}caption"), stored["end_sym"])


def request_of(prompt: str, template: str) -> Turn:
    """A request to describe a medium, out of a prompt of stage 1."""
    head, tail = template.split("{}")

    def medium(tag: re.Match[str]) -> Medium:
        return medium_of("video" if tag[0].startswith("<Video>") else "image", "")

    return tags.turn_of(prompt.removeprefix(head).removesuffix(tail), WORDS, medium, behind=" ")


def run_instruction(name: str, stored: dict[str, Any], check: Check) -> None:
    """A conversation of stage 2; the original writes nothing where the medium goes."""
    medium = medium_of(stored["kind"], stored["msg"])
    turns = [
        Turn(question=row["q"], answer=row["a"], media=() if index else (medium,))
        for index, row in enumerate(stored["qa"])
    ]
    for form, quirks in (("train", ()), ("learned_role_tags", ("learned_role_tags",))):
        parts = conversation(ROW.form("train", quirks), turns, stored["system"])
        check.same(f"{name}.conversation.{form}", show(parts, slots={"video": ""}), stored["conversation"])


def run_special(stored: dict[str, Any], check: Check) -> None:
    """Words around the media, roles and stops."""
    for kind in ("video", "image"):
        turn = Turn(media=(medium_of(kind, ""),))
        texts = show(conversation(ROW.chat, [turn]), slots={"video": "|"})
        around = [f"<{texts.split('<', 1)[1].split('|')[0].strip('<>')}>", f"{texts.split('|')[1].split('>')[0]}>"]
        check.same(f"special.{kind}_tokens", around, stored[f"{kind}_tokens"])
    check.same("special.begin_signal", list(ROW.stop), [stored["begin_signal"]])
    roles = [stored["roles"][0] in ROW.chat.later, f"{stored['roles'][1]}:" == ROW.answer_after]
    check.same("special.roles", roles, [True, True])
    check.same("special.stage2_end_signal", ROW.train.answer.split("{answer}")[1], f"{stored['stage2_end_signal']}###")
    check.skip("special.stop_ids_llama", "ids of LLaMA's tokenizer; stop texts are found in any tokenizer's text")
