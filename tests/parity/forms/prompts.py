"""The form `prompts`: prompt strings of chat, training and captions, answers, stops, and the schedule of the rate."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avllm.chat.generation import ends_with
from avllm.model import CAPTION_REQUESTS, PROMPTS, Medium, Prompt, Turn
from avllm.model.prompts import conversation, drop_leading, show
from avllm.training.schedule import Schedule
from tests.parity.check import Check
from tests.parity.common import Row
from tests.parity.forms.model import turns_of
from tests.parity.model_case import PROMPTS as NAMES
from tests.parity.model_case import times_in

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
    system = stored["conversations"]["llama_v2_video_conversation(train)"]["system"]
    check.same("conversations.llama_v2_train.system", PROMPTS["llama2"].train.system, system)
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
    """A chat of two turns. The questions and times are read back from the messages."""
    is_image = name.endswith("/image")
    (_, first), (_, answer), (_, second), _ = chat["messages_after_turn2"]
    message = re.search(r"The video contains \d+ frames sampled at [\d., ]+ seconds\.", first)
    times = times_in(message[0]) if message else (0.0,)
    media = tuple(
        Medium(
            kind="image" if is_image and KINDS[embeds] == "video" else KINDS[embeds],  # type: ignore[arg-type]
            branch="audio" if KINDS[embeds] == "audio" else "video",
            num_tokens=1,
            times_s=() if is_image or KINDS[embeds] == "audio" else times,
        )
        for embeds in chat["embeds_in_order"]
    )
    question = re.split(r" {2}|seen and heard\. ", first)[-1]
    form = prompt_of(name).chat
    turns = [Turn(question=question, media=media)]
    check.same(f"{name}.prompt_turn1", show(conversation(form, turns, chat["system"])), chat["prompt_turn1"])
    turns = [replace(turns[0], answer=answer), Turn(question=second)]
    check.same(f"{name}.prompt_turn2", show(conversation(form, turns, chat["system"])), chat["prompt_turn2"])
    if name.endswith(("demo_video/video", "demo_audiovideo/audiovideo", "/image")):
        check.same(f"{name}.default_system", show(conversation(form, turns)), chat["prompt_turn2"])


def run_training(name: str, text: str, check: Check) -> None:
    """A training text, taken apart into turns and put together again."""
    family = "llama_v2" if "llama_v2" in name else "vicuna"
    kind: Any = "image" if "<Image>" in text else "video"
    count = text.count("<ImageHere>")
    turns, system = turns_of(text, family, Medium(kind=kind, branch="video", num_tokens=count))
    check.same(f"training.{name}", show(conversation(prompt_of(name).train, turns, system)), text)
    check.same(f"training.{name}.default_system", show(conversation(prompt_of(name).train, turns)), text)


def run_captions(captions: dict[str, Any], check: Check) -> None:
    """Requests to describe an image, and the prompts around them."""
    lines = [f"<Image><ImageHere></Image> {request}" for request in CAPTION_REQUESTS]
    check.same("captions.requests", lines, captions["prompt_file_lines_alignment_image"])
    medium = Medium(kind="image", branch="video", num_tokens=1)

    def prompts(name: str) -> list[str]:
        form = PROMPTS[name].train_caption
        return [show(conversation(form, [Turn(question=text, media=(medium,))])) for text in CAPTION_REQUESTS]

    check.same("captions.vicuna", prompts("vicuna"), captions["stage2_caption_prompts_vicuna"])
    meant = captions["stage2_caption_prompts_llama2_as_surely_meant"]
    check.same("captions.llama2", prompts("llama2"), meant)
    # The published YAML is single-quoted, so that its line breaks are read as a backslash and an n.
    literal = [text.replace("\n", "\\n") for text in prompts("llama2")]
    check.same(
        "captions.llama2_as_the_yaml_reads", literal, captions["stage2_caption_prompts_llama2_as_the_yaml_reads"]
    )


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
