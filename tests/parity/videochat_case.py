"""The whole VideoChat of a case: built from its configuration, its weights loaded through the name table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer

from avllm.checkpoints import rename
from avllm.checkpoints.videochat import system_from, tables
from avllm.data import Collate, Medium, Prepare, Record, Turn
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Loaded
from avllm.model.configuration import System
from avllm.training.frozen import freeze
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors

# What a stage of VideoChat trains, as in train_configs/videochat_7b.
TRAINABLE = (
    "branches.video.encoder.*mhra*",
    "branches.video.connector.frame_qformer.input_norm",
    "branches.video.connector.extra_query_tokens",
    "branches.video.connector.projection",
)
EMBEDS, LOGITS, LOSS = 3e-5, 2e-4, 1e-4


@dataclass
class Case:
    """The built model and everything the case stores."""

    settings: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    model: AvllmForConditionalGeneration
    published: dict[str, str]

    @classmethod
    def open(cls, folder: Path, sizes: dict[str, Any] | None = None) -> "Case":
        """Reads the case.

        Args:
            folder: of the case; its weights and inputs may be those of another one, which it then names.
            sizes: configuration that describes the model, where it is not the case's own.

        Raises:
            CheckpointError: a weight is missing, left over or of another shape.
        """
        settings = read_json(folder / "config.json")
        system = system_from(sizes or settings)
        model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
        weights = read_tensors(folder / settings.get("weights", "weights.safetensors"))
        renamed = rename.rename(weights, tables(system)["model"], source="weights.safetensors")
        rename.load(model, renamed)
        return cls(
            settings=settings,
            inputs=read_tensors(folder / settings.get("inputs", "inputs.safetensors")),
            outputs=read_tensors(folder / "outputs.safetensors"),
            model=model,
            published={ours: names[0] for ours, names in renamed.origin.items()},
        )

    def train_as_published(self) -> dict[str, torch.nn.Parameter]:
        """Leaves gradients to what VideoChat trains, all in eval mode; published name -> parameter."""
        names = freeze(self.model, TRAINABLE)
        self.model.eval()
        return {self.published[name]: self.model.get_parameter(name) for name in names}


def processor_of(system: System, tokenizer_folder: Path) -> AvllmProcessor:
    """The processor of a case; padding is the token that ends a text, as in the published code."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.pad_token = tokenizer.eos_token
    return AvllmProcessor.from_config(AvllmConfig.from_system(system), tokenizer)


def batch_of(
    processor: AvllmProcessor,
    conversations: Sequence[Sequence[Turn]],
    frames: Tensor,
    *,
    form: Literal["train", "train_caption"],
    max_text_tokens: int,
    times_s: Sequence[float] = (),
) -> dict[str, Any]:
    """A batch as training makes it of records, except that the clips of the case [b t c h w] need not be read."""
    kind = "image" if frames.shape[1] == 1 else "video"

    def read(source: Tensor, kind: Any, *, branch: str, **options: Any) -> Loaded:
        return Loaded(kind=kind, branch=branch, values=source, times_s=tuple(times_s))

    processor.read = read  # type: ignore[method-assign]
    prepare = Prepare(processor, max_text_tokens=max_text_tokens)
    samples = []
    for index, (turns, clip) in enumerate(zip(conversations, frames, strict=True)):
        media = (Medium(kind=kind, source=clip),)
        first = replace(turns[0], media=media)
        samples.append(prepare(Record(id=f"row {index}", turns=(first, *turns[1:]), form=form), 0))
    return Collate(pad_id=processor.pad_id)(samples)


def check_batch(case: Case, name: str, batch: dict[str, Tensor], frames: Tensor, check: Check) -> Tensor:
    """Mask, targets and what the decoder is given; returns the embeddings."""
    out, is_slot = case.outputs, batch["input_ids"] == case.model.config.slot_ids()["video"]
    check.same(f"{name}.attention_mask", batch["attention_mask"], out[f"{name}.attention_mask"])
    check.same(f"{name}.targets", batch["labels"], out[f"{name}.targets"])
    embeds = case.model.embed(batch["input_ids"], {"video": frames})
    if f"{name}.inputs_llama" in out:
        tokens = embeds[is_slot].reshape(len(frames), -1, embeds.shape[-1])
        check.close(f"{name}.inputs_llama", tokens, out[f"{name}.inputs_llama"], atol=EMBEDS)
    return embeds


def check_loss(case: Case, name: str, batch: dict[str, Tensor], embeds: Tensor, check: Check) -> None:
    """What the decoder computes of the embeddings, the loss, and the gradients of what is trained."""
    out, model = case.outputs, case.model
    hidden: dict[str, Tensor] = {}
    norm = model.get_decoder().norm
    handle = norm.register_forward_hook(lambda module, args, output: hidden.update(last=output.detach()))
    logits = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
    handle.remove()
    check.close(f"{name}.llama_last_hidden", hidden["last"], out[f"{name}.llama_last_hidden"], atol=LOGITS)
    tail = out[f"{name}.logits_tail"]
    check.close(f"{name}.logits_tail", logits[:, -tail.shape[1] :], tail, atol=LOGITS)
    loss = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    check.close(f"{name}.loss", loss.reshape(1), out[f"{name}.loss"], atol=LOSS)
    if f"{name}.grad_norm" not in out:
        return
    trained = {key: p for key, p in ((case.published[n], p) for n, p in model.named_parameters()) if p.requires_grad}
    gradients = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
    prefix = f"{name}.grad."
    for key in (key for key in out if key.startswith(prefix)):
        largest = float(out[key].abs().max())
        check.close(key, gradients[key.removeprefix(prefix)], out[key], rtol=1e-3, atol=1e-5 * largest)
    norms = torch.stack([gradient.norm() for gradient in gradients.values()])
    check.close(f"{name}.grad_norm", norms.norm().reshape(1), out[f"{name}.grad_norm"], rtol=1e-3)


def check_covered(case: Case, check: Check) -> None:
    """A row that does not hold for every stored tensor that has not been compared."""
    compared = {row.name for row in check.rows}
    for name in case.outputs:
        if name not in compared:
            check.same(name, "not computed by the adapter", "a stored tensor")
