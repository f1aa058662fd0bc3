"""The form `prompts`: prompt strings of chat, training and captions, answers, stops, and the schedule of the rate."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avllm.chat.generation import ends_with
from avllm.model import PROMPTS, Form, Medium, Prompt, Turn
from avllm.model.prompts import Text, conversation, drop_leading, fill, show, user_parts
from avllm.training.schedule import Schedule
from tests.parity import tags
from tests.parity.check import Check
from tests.parity.common import Row
from tests.parity.forms.model import family_of, turns_of
from tests.parity.model_case import PROMPTS as NAMES
from tests.parity.model_case import times_in

CAPTION_WORDS = r"<Video>(?:<ImageHere>)+</Video>|<Image>(?:<ImageHere>)+</Image>"
KINDS = {"VIDEO_EMBEDS": "video", "AUDIO_EMBEDS": "audio", "IMAGE_EMBEDS": "image"}


def run(folder: Path) -> list[Row]:
    """Compares every string, id and rate that the case stores."""
    check = Check()
    stored = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    for name, chat in stored["chat"].items():
        run_chat(name, chat, check)
    for name, text in stored["training"].items():
        run_training(name, text, check)
    run_captions(stored["captions"], check)
    for index, row in enumerate(stored["answer_postprocessing"]):
        run_answer(f"answer_postprocessing.{index}", row, check)
    for index, row in enumerate(stored["stopping_criteria"]):
        check.same(f"stopping_criteria.{index}", ends_with(row["input_ids"], row["stops"]), row["result"])
    for name, style in stored["conversations"].items():
        if "(train" in name:
            ours = prompt_of("vicuna" if style["sep2"] is None else "llama_v2").train.system
            check.same(f"conversations.{name}.system", ours, style["system"])
    check.skip("chat_sampling_defaults", "settings of the published demo, which samples; ours is greedy by default")
    check.skip("stop_token_ids", "ids of LLaMA's tokenizer; stop texts are found in any tokenizer's text")
    schedules = json.loads((folder / "schedule.json").read_text(encoding="utf-8"))["schedules"]
    for row in schedules:
        run_schedule(row, check)
    return check.rows


def prompt_of(name: str) -> Prompt:
    """Our row of the table for a name of the case."""
    return PROMPTS[NAMES["llama_v2" if "llama_v2" in name or "llama2" in name else "vicuna"]]


def run_chat(name: str, chat: dict[str, Any], check: Check) -> None:
    """A chat of any number of turns. Questions, media and times are read back from the messages."""
    form = prompt_of("vicuna" if chat["sep2"] is None else "llama_v2").chat
    number = max(int(key.removeprefix("messages_after_turn")) for key in chat if key.startswith("messages_after_turn"))
    embeds = iter(chat["embeds_in_order"])
    messages = [text for _, text in chat[f"messages_after_turn{number}"]]
    turns: list[Turn] = []
    for asked, answer in zip(messages[::2], messages[1::2], strict=True):
        media = media_in(asked, embeds)
        turns.append(Turn(question=tags.behind_media(form, asked, media), media=media, answer=answer))
    for count in range(1, number + 1):
        asked = [*turns[: count - 1], *(replace(turn, answer=None) for turn in turns[count - 1 : count])]
        key = f"{name}.prompt_turn{count}"
        check.same(key, show(conversation(form, asked, chat["system"])), chat[f"prompt_turn{count}"])
        if count == number:
            check_default(f"{name}.default_system", form, asked, chat["system"], chat[f"prompt_turn{count}"], check)


def media_in(message: str, embeds: Iterator[str]) -> tuple[Medium, ...]:
    """The media of a message, in the order of its places."""
    times = times_in(found[0]) if (found := re.search(r"The video contains .*? seconds\.", message)) else (0.0,)
    media = []
    for place in re.finditer("<ImageHere>", message):
        kind: Any = KINDS[next(embeds)]
        if kind == "video" and message[: place.start()].endswith("<Image>"):
            kind = "image"
        told = times if kind == "video" else ()
        media.append(Medium(kind=kind, branch="audio" if kind == "audio" else "video", num_tokens=1, times_s=told))
    return tuple(media)


def check_default(name: str, form: Form, turns: list[Turn], system: str, wanted: str, check: Check) -> None:
    """That a form tells the published system text when none is given; a case may have been asked with another one."""
    if system in (form.system, form.system_with_audio):
        has_audio = any(medium.kind == "audio" for turn in turns for medium in turn.media)
        if system == (form.system_with_audio if has_audio and form.system_with_audio is not None else form.system):
            check.same(name, show(conversation(form, turns)), wanted)
        return
    check.skip(name, "the case tells another system text than the form")


def run_training(name: str, text: str, check: Check) -> None:
    """A training text, taken apart into turns and put together again."""
    turns, system = turns_of(text, medium_of)
    form = prompt_of(family_of(text)).train
    check.same(f"training.{name}", show(conversation(form, turns, system)), text)
    check.same(f"training.{name}.slots", num_slots(turns), text.count("<ImageHere>"))
    check_default(f"training.{name}.default_system", form, turns, system, text, check)


def num_slots(turns: Sequence[Turn]) -> int:
    """Tokens of all media: what a text calls a medium in other words would be taken for text."""
    return sum(medium.num_tokens for turn in turns for medium in turn.media)


def medium_of(tag: re.Match[str]) -> Medium:
    """The medium of which a text tells kind, tokens and times."""
    kind: Any = "image" if tag[0].startswith("<Image>") else "video"
    return Medium(kind=kind, branch="video", num_tokens=tag[0].count("<ImageHere>"), times_s=times_in(tag[0]))


def run_captions(captions: dict[str, Any], check: Check) -> None:
    """The case's requests to describe a medium, with the prompts around them."""
    lines = captions["prompt_file_lines_alignment_image"]
    requests = [tags.turn_of(line, CAPTION_WORDS, medium_of, behind=" ") for line in lines]
    written = [show(user_parts(PROMPTS["vicuna"].train_caption, turn)) for turn in requests]
    check.same("captions.requests", written, lines)
    check.same("captions.slots", num_slots(requests), sum(line.count("<ImageHere>") for line in lines))

    def prompts(name: str) -> list[str]:
        return [show(conversation(PROMPTS[name].train_caption, [turn])) for turn in requests]

    check.same("captions.vicuna", prompts("vicuna"), captions["stage2_caption_prompts_vicuna"])
    meant = captions["stage2_caption_prompts_llama2_as_surely_meant"]
    check.same("captions.llama2", prompts("llama2"), meant)
    # The published YAML is single-quoted, so that its line breaks are read as a backslash and an n.
    literal = captions["stage2_caption_prompts_llama2_as_the_yaml_reads"]
    system = [Text(PROMPTS["llama2"].train_caption.system)]
    head = show(fill("[INST] <<SYS>>\n{system}\n<</SYS>>\n\n", {"system": system}))
    as_read = [head.replace("\n", "\\n") + text.removeprefix(head) for text in prompts("llama2")]
    check.same("captions.llama2_as_the_yaml_reads", as_read, literal)


def run_answer(name: str, row: dict[str, Any], check: Check) -> None:
    """The answer within what the model wrote."""
    check.same(f"{name}.answer", prompt_of(row["model_type"]).answer_text(row["decoded_text"]), row["answer"])
    ids = drop_leading(row["generated_ids"], (0, 1))  # unknown token and bos of LLaMA
    check.same(f"{name}.ids_returned", ids, row["ids_returned"])


def run_schedule(row: dict[str, Any], check: Check) -> None:
    """The learning rate at chosen steps, to 1e-12."""
    schedule = Schedule(
        epochs=row["max_epoch"],
        steps_per_epoch=row["iters_per_epoch"],
        warmup_steps=row["warmup_steps"],
        lr=row["init_lr"],
        min_lr=row["min_lr"],
        warmup_start_lr=row["warmup_start_lr"],
    )
    steps = [epoch * row["iters_per_epoch"] + iteration for epoch, iteration, _ in row["epoch_iter_lr"]]
    found = torch.tensor([schedule.at(step) for step in steps], dtype=torch.float64)
    wanted = torch.tensor([rate for *_, rate in row["epoch_iter_lr"]], dtype=torch.float64)
    check.close(f"schedule.{row['name']}", found, wanted, rtol=0, atol=1e-12)
