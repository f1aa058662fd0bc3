"""VideoChat's stage 1: captions behind a request, the loss and its gradients."""

from pathlib import Path
from typing import Any

from torch import Tensor

from avllm.checkpoints.videochat import system_from
from avllm.data import Turn
from avllm.model import AvllmProcessor
from tests.parity.check import Check
from tests.parity.common import captured
from tests.parity.forms.videochat_prompts import request_of
from tests.parity.videochat_case import EMBEDS, Case, batch_of, check_batch, check_covered, check_loss, processor_of

TEMPLATE = "###Human: {} ###Assistant: "


def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    case = Case.open(folder)
    processor = processor_of(system_from(case.settings), folder / "tokenizer")
    trained = case.train_as_published()
    check.same("trainable_parameters", sorted(trained), sorted(case.settings["trainable_parameters"]))
    for name, stored in case.settings["runs"].items():
        frames = case.inputs[stored["input"]]
        batch = captions(processor, stored["prompt"], stored["text_input"], frames, stored["max_txt_len"])
        slot, bos = case.model.config.slot_ids()["video"], processor.tokenizer.bos_token_id
        check_ids(name, stored, batch, check, slot=slot, bos=bos)
        connector = case.model.branches["video"].connector
        hooks = {"image_embeds": connector.frame_qformer.input_norm, "query_output": connector.frame_qformer}
        with captured(hooks) as stages:
            embeds = check_batch(case, name, batch, frames, check)
        for stage, tensor in stages.items():
            check.close(f"{name}.{stage}", tensor, case.outputs[f"{name}.{stage}"], atol=EMBEDS)
        check.close(f"{name}.inputs_embeds", embeds, case.outputs[f"{name}.inputs_embeds"], atol=EMBEDS)
        check_loss(case, name, batch, embeds, check)
    check_covered(case, check)


def captions(
    processor: AvllmProcessor, prompt: str, texts: list[str], frames: Tensor, max_answer_tokens: int
) -> dict[str, Tensor]:
    """A batch of captions behind one request, which is read back from the case's prompt."""
    asked = request_of(prompt, TEMPLATE)
    request = Turn(role="user", text=asked.question, places=asked.places)
    turns = [(request, Turn(role="assistant", text=text)) for text in texts]
    return batch_of(processor, turns, frames, form="train_caption", max_text_tokens=max_answer_tokens)


def check_ids(
    name: str, stored: dict[str, Any], batch: dict[str, Tensor], check: Check, *, slot: int, bos: int
) -> None:
    """The ids around the slots, and those of the captions."""
    for row, (ids, text) in enumerate(zip(batch["input_ids"].tolist(), stored["text_ids"], strict=True)):
        first, last = ids.index(slot), len(ids) - ids[::-1].index(slot)
        check.same(f"{name}.{row}.prompt_before_ids", ids[1:first], stored["prompt_before_ids"])
        end = last + len(stored["prompt_after_ids"])
        check.same(f"{name}.{row}.prompt_after_ids", ids[last:end], stored["prompt_after_ids"])
        kept = text[: stored["max_txt_len"]]
        check.same(f"{name}.{row}.text_ids", ids[end : end + len(kept)], kept)
        # The request is cut off where the caption begins, on all rows alike.
        check.same(f"{name}.{row}.learned", int((batch["labels"][row] != -100).sum()), len(kept))
    check.same(f"{name}.bos", batch["input_ids"][:, 0].tolist(), [bos] * len(batch["input_ids"]))
