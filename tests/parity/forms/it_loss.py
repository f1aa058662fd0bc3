"""VideoChat's stage 2: conversations, the loss and its gradients.

The original puts a vector of ones (its id of bos, spread out) where the embedding of bos belongs. That is a slip of the
training code which the released chat does not share, so it is no setting of ours: `loss_real_bos` is what our model
computes, and the stored values of the original run are compared after the same is done to our embeddings here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avllm.checkpoints.videochat import system_from
from avllm.data import Turn
from avllm.model import PROMPTS, AvllmProcessor, Medium
from avllm.model import Turn as Asked
from avllm.model.prompts import conversation, show
from tests.parity.check import Check
from tests.parity.model_case import times_in
from tests.parity.videochat_case import (
    EMBEDS,
    LOSS,
    Case,
    batch_of,
    check_batch,
    check_covered,
    check_loss,
    processor_of,
)


def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    case = Case.open(folder)
    system = replace(system_from(case.settings), published_quirks=("learned_role_tags",))
    processor = processor_of(system, folder / "tokenizer")
    case.train_as_published()
    for name, stored in case.settings["runs"].items():
        frames = case.inputs[stored["input"]]
        check_texts(name, stored, check)
        batch = instructions(processor, stored, frames)
        embeds = check_batch(case, name, batch, frames, check)
        right = case.model(inputs_embeds=embeds, attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
        check.close(f"{name}.loss_real_bos", right.reshape(1), case.outputs[f"{name}.loss_real_bos"], atol=LOSS)
        ones = torch.full_like(embeds[:, :1], float(processor.tokenizer.bos_token_id))
        embeds = torch.cat([ones, embeds[:, 1:]], dim=1)
        if f"{name}.inputs_embeds" in case.outputs:
            check.close(f"{name}.inputs_embeds", embeds, case.outputs[f"{name}.inputs_embeds"], atol=EMBEDS)
        check_loss(case, name, batch, embeds, check)
    check_covered(case, check)


def check_texts(name: str, stored: dict[str, Any], check: Check) -> None:
    """The conversations as texts; the original writes nothing where the medium goes."""
    medium = Medium(
        kind="video" if stored["msg"] else "image", branch="video", num_tokens=0, times_s=times_in(stored["msg"])
    )
    for row, (pairs, text) in enumerate(zip(stored["qa"], stored["text_input"], strict=True)):
        turns = [
            Asked(question=pair["q"], answer=pair["a"], media=() if index else (medium,))
            for index, pair in enumerate(pairs)
        ]
        check.same(f"{name}.text_input.{row}", show(conversation(PROMPTS["videochat"].train, turns)), text)


def instructions(processor: AvllmProcessor, stored: dict[str, Any], frames: Tensor) -> dict[str, Any]:
    """A batch of conversations, cut where the case says."""
    turns = [
        [turn for pair in pairs for turn in (Turn(role="user", text=pair["q"]), Turn(role="assistant", text=pair["a"]))]
        for pairs in stored["qa"]
    ]
    times, limit = times_in(stored["msg"]), stored["max_txt_len"]
    return batch_of(processor, turns, frames, form="train", max_text_tokens=limit, times_s=times)
