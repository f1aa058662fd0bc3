"""The form `av_model` of VideoLLaMA 2.1-AV: batches of video, sound, both and images; greedy answers."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from avllm.checkpoints import rename
from avllm.checkpoints.videollama2 import system_from, tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors
from tests.parity.forms.av_beats import normalised
from tests.parity.slots import with_slots

# The media of each row of a batch, in the order of their tokens.
ROWS: dict[str, tuple[tuple[str, ...], ...]] = {
    "av": (("video0", "audio0"),),
    "audio_only": (("audio0",), ("audio1",)),
    "mixed": (("video0", "audio0"), ("audio1",), ("video0",), ("image0",)),
    "infer.av": (("video0", "audio0"),),
    "infer.audio": (("audio1",),),
    "infer.video_without_audio_tower": (("video0",),),
}
PLACEHOLDERS = (-200, -201, -202)
EMBEDS, LOGITS, LOSS = 5e-5, 1e-4, 2e-5


@dataclass
class Case:
    """The built model and everything the case stores."""

    model: AvllmForConditionalGeneration
    media: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def tokens(self, name: str) -> Tensor:
        """Tokens [m d] of a medium."""
        return self.model.branch_tokens(branch_of(name), [self.media[name]], None)


def recognises(folder: Path) -> bool:
    """Whether the configuration of the case has a tower for sound."""
    path = folder / "config.json"
    return path.is_file() and "mm_audio_tower" in read_json(path)


def branch_of(name: str) -> str:
    """The branch of a medium of the case."""
    return "audio" if name.startswith("audio") else "video"


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    system = system_from(read_json(folder / "config.json"))
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    weights = read_tensors(folder / "weights.safetensors")
    rename.load(model, rename.rename(weights, tables(system)["model"], source="weights.safetensors"))
    inputs, outputs = (read_tensors(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    frames = system.branches["video"].media.image_frames
    media = {name: clip_of(name, tensor, frames) for name, tensor in inputs.items() if "." not in name}
    case = Case(model, media, inputs, outputs)
    for group in sorted({name.rpartition(".")[0] for name in outputs}):
        if group in media:
            compare_medium(case, group, check)
        elif group not in ROWS:
            check.same(group, "not computed by the adapter", "stored tensors")
        elif f"{group}.generated_ids" in outputs:
            compare_answer(case, group, check)
        else:
            compare_batch(case, group, check)
    compared = {row.name for row in check.rows}
    for name in outputs:
        if name not in compared and name.rpartition(".")[0] in {*ROWS, *media}:
            check.same(name, "not computed by the adapter", "a stored tensor")
    compare_images_alone(case, check)


def clip_of(name: str, tensor: Tensor, image_frames: int) -> Tensor:
    """A medium of the case as the model takes it: frames [t c h w], or the picture of a sound [1 1 f n]."""
    if name.startswith("audio"):
        return normalised(tensor)[0]
    return tensor.expand(image_frames, -1, -1, -1) if name.startswith("image") else tensor


def compare_medium(case: Case, name: str, check: Check) -> None:
    """What one branch makes of a medium, before and after its projector."""
    branch = case.model.branches[branch_of(name)]
    features = branch.features(case.media[name][None])
    ours = {"beats": features[0, 0], "projected": branch.tokens(features)[0]}
    for stage, tensor in ours.items():
        if f"{name}.{stage}" in case.outputs:
            expected = case.outputs[f"{name}.{stage}"]
            check.close(f"{name}.{stage}", tensor.reshape(expected.shape), expected, atol=EMBEDS)


def embedded(case: Case, group: str, ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, mask and labels of a batch."""
    tokens = [[(branch_of(name), case.tokens(name)) for name in names] for names in ROWS[group]]
    slot_ids = case.model.config.slot_ids()
    slots = [[slot_ids[branch] for branch, one in row for _ in range(len(one))] for row in tokens]
    ids, mask, labels = with_slots(ids, mask, labels, slots, PLACEHOLDERS)
    by_branch = {
        name: torch.cat(found)
        for name in slot_ids
        if (found := [one for row in tokens for branch, one in row if branch == name])
    }
    return case.model.embed(ids, tokens=by_branch), mask, labels


def compare_batch(case: Case, group: str, check: Check) -> None:
    """One batch of training; padding differs and is never looked at."""
    out = case.outputs
    ids, mask, labels = (case.inputs[f"{group}.{name}"] for name in ("input_ids", "attention_mask", "labels"))
    embeds, mask, labels = embedded(case, group, ids, mask, labels)
    logits = case.model(inputs_embeds=embeds, attention_mask=mask).logits[:, -4:]
    check.same(f"{group}.attention_mask", mask, out[f"{group}.attention_mask"])
    check.same(f"{group}.labels", labels, out[f"{group}.labels"])
    for name, tensor, atol in (("inputs_embeds", embeds, EMBEDS), ("logits_last4", logits, LOGITS)):
        expected, kept = out[f"{group}.{name}"], mask[:, -tensor.shape[1] :]
        if tensor.shape == expected.shape:
            tensor, expected = tensor[kept], expected[kept]
        check.close(f"{group}.{name}", tensor, expected, atol=atol)
    loss = case.model(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
    check.close(f"{group}.loss", loss, out[f"{group}.loss"], atol=LOSS)


def compare_answer(case: Case, group: str, check: Check) -> None:
    """Greedy ids."""
    ids, expected = case.inputs[f"{group}.input_ids"], case.outputs[f"{group}.generated_ids"]
    embeds, mask, _ = embedded(case, group, ids, torch.ones_like(ids).bool(), ids)
    answer = case.model.generate(
        inputs_embeds=embeds,
        attention_mask=mask.long(),
        max_new_tokens=expected.shape[1],
        do_sample=False,
        pad_token_id=case.model.config.text_config.eos_token_id,
    )
    check.same(f"{group}.generated_ids", answer, expected)


def compare_images_alone(case: Case, check: Check) -> None:
    """A batch of an image alone, on which the original fails, is that image's row of the mixed batch."""
    rows = [index for index, names in enumerate(ROWS["mixed"]) if names == ("image0",)]
    if "image0" not in case.media or "mixed.input_ids" not in case.inputs or not rows:
        return
    row = slice(rows[0], rows[0] + 1)
    inputs = (case.inputs[f"mixed.{name}"][row] for name in ("input_ids", "attention_mask", "labels"))
    slots = [[case.model.config.slot_ids()["video"]] * len(case.tokens("image0"))]
    ids, mask, _ = with_slots(*inputs, slots, PLACEHOLDERS)
    embeds = case.model.embed(ids, media={"video": [case.media["image0"]]})
    expected = case.outputs["mixed.inputs_embeds"][row, : embeds.shape[1]]
    check.close("image alone.inputs_embeds", embeds[mask], expected[mask], atol=EMBEDS)
