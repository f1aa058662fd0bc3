"""The form `model` of VideoLLaMA 2 without sound: batches of training, and greedy answers."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from avllm.checkpoints import rename
from avllm.checkpoints.videollama2 import system_from, tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors
from tests.parity.slots import with_slots

# The media of each row of a batch; `dummy` is what the original makes of a row of text, and its answer ignores it.
ROWS = {
    "video": ("video0",),
    "image": ("image0",),
    "text": (None,),
    "mixed": ("video1", "image0", None, "video0"),
    "infer.video": ("video0",),
    "infer.image": ("image0",),
    "infer.text": (None,),
    "infer.video_multiturn": ("video1",),
    "batch2": ("video0", "video1"),
}
PLACEHOLDERS = (-200, -201)
EMBEDS, LOGITS, LOSS = 5e-5, 1e-4, 2e-5


@dataclass
class Case:
    """The built model and everything the case stores."""

    model: AvllmForConditionalGeneration
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    image_frames: int
    pad_id: int

    def clip(self, name: str | None) -> Tensor:
        """Frames [t c h w]; an image is repeated, and a row without media has a black one."""
        if name is None:
            name, tensor = "image", torch.zeros_like(self.inputs["image0"])
        else:
            tensor = self.inputs[name]
        return tensor.expand(self.image_frames, -1, -1, -1) if name.startswith("image") else tensor


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    settings = read_json(folder / "config.json")
    system = system_from(settings)
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    weights = read_tensors(folder / "weights.safetensors")
    rename.load(model, rename.rename(weights, tables(system)["model"], source="weights.safetensors"))
    inputs, outputs = (read_tensors(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    frames, pad_id = (
        system.branches["video"].media.image_frames,
        int(settings.get("_generate", {}).get("pad_token_id", 0)),
    )
    case = Case(model, inputs, outputs, frames, pad_id)
    groups = {name.rpartition(".")[0] for name in outputs}
    for group in sorted(groups):
        if group not in ROWS:
            check.same(group, "not computed by the adapter", "stored tensors")
        elif f"{group}.generated_ids" in outputs:
            compare_answer(case, group, check)
        else:
            compare_batch(case, group, check)
    compared = {row.name for row in check.rows}
    for name in outputs:
        if name not in compared and name.rpartition(".")[0] in ROWS:
            check.same(name, "not computed by the adapter", "a stored tensor")


def expanded(case: Case, ids: Tensor, mask: Tensor, labels: Tensor, num_slots: list[int]) -> tuple[Tensor, ...]:
    """Ids, mask and labels with a row of slots for each placeholder, padded on the right as the rows were."""
    slot_id = case.model.config.slot_ids()["video"]
    return with_slots(ids, mask, labels, [[slot_id] * count for count in num_slots], PLACEHOLDERS)


def media_of(case: Case, group: str, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Tokens [n m d] of every row's media, and those of the rows that have a slot for them."""
    clips = [case.clip(name) for name in ROWS[group]]
    tokens = case.model.branch_tokens("video", clips, None).unflatten(0, (len(clips), -1))
    has_slot = [any(token in PLACEHOLDERS for token in row) for row in ids.tolist()]
    return tokens, [one for one, has in zip(tokens, has_slot, strict=True) if has]


def compare_batch(case: Case, group: str, check: Check) -> None:
    """One batch of training against the stored tensors of that name."""
    model, out = case.model, case.outputs
    ids, labels = case.inputs[f"{group}.input_ids"], case.inputs[f"{group}.labels"]
    mask = case.inputs.get(f"{group}.attention_mask", torch.ones_like(ids).bool())
    tokens, used = media_of(case, group, ids)
    ids, mask, labels = expanded(case, ids, mask, labels, [len(one) for one in tokens])
    embeds = model.embed(ids, tokens={"video": torch.cat(used)} if used else {})
    result = model(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True)
    ours = {
        "mm_features": tokens,
        "inputs_embeds": embeds,
        "logits_last4": result.logits[:, -4:],
        "logits": result.logits,
        "logits_argmax": result.logits.argmax(-1),
        **{f"llm_hidden_{i}": hidden for i, hidden in enumerate(result.hidden_states)},
    }
    for name, tensor in ours.items():
        if f"{group}.{name}" in out:
            expected, kept = out[f"{group}.{name}"], mask[:, -tensor.shape[1] :]
            if name != "mm_features" and tensor.shape == expected.shape:  # padding differs and is never looked at
                tensor, expected = tensor[kept], expected[kept]
            check.close(f"{group}.{name}", tensor, expected, atol=LOGITS if name.startswith("logits") else EMBEDS)
    if f"{group}.attention_mask" in out:
        check.same(f"{group}.attention_mask", mask, out[f"{group}.attention_mask"])
        check.same(f"{group}.labels", labels, out[f"{group}.labels"])
    loss = model(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
    check.close(f"{group}.loss", loss, out[f"{group}.loss"], atol=LOSS)


def compare_answer(case: Case, group: str, check: Check) -> None:
    """Greedy ids; the rows of a batch have one prompt."""
    expected = case.outputs[f"{group}.generated_ids"]
    prompt = case.inputs.get(f"{group}.input_ids", case.inputs["infer.video.input_ids"])
    ids = prompt.expand(len(ROWS[group]), -1)
    tokens, used = media_of(case, group, ids)
    ids, mask, _ = expanded(case, ids, torch.ones_like(ids).bool(), ids, [len(one) for one in tokens])
    embeds = case.model.embed(ids, tokens={"video": torch.cat(used)} if used else {})
    answer = case.model.generate(
        inputs_embeds=embeds,
        attention_mask=mask.long(),
        max_new_tokens=expected.shape[1],
        do_sample=False,
        pad_token_id=case.pad_id,
    )
    check.same(f"{group}.generated_ids", answer, expected)
