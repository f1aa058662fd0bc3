"""The form `model_original` of Video-LLaVA: batches of training with mixed media, and greedy answers."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor

from avllm.checkpoints import rename
from avllm.checkpoints.tokenizers import open_tokenizer
from avllm.checkpoints.video_llava import system_from, tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Medium, Turn
from avllm.model.prompts import conversation, show
from avllm.model.tokens import IGNORED, encode
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors
from tests.parity.forms.llava_styles import read
from tests.parity.not_run import check_not_run

# The media of each row of a batch. A row of text has a black image in the original, which fills no slot.
ROWS = {
    "image": (("image0",),),
    "video": (("video0",),),
    "mixed": (("image0",), ("video0",), (), ("video1", "image1"), ("image0", "image1")),
    "leftpad": (("image0",), ()),
    "trunc": (("image0",), ()),
    "infer.image": (("image1",),),
    "infer.video": (("video0",),),
    "infer.video_image": (("video1", "image0"),),
}
PLACEHOLDER = -200  # one for an image, one for each frame of a video
EMBEDS, MEANS, LOGITS, LOSS = 5e-5, 1e-5, 1e-4, 2e-5
Expanded = list[tuple[int, int]]  # ids and labels of a row


@dataclass
class Case:
    """The built model and everything the case stores."""

    settings: dict[str, Any]
    model: AvllmForConditionalGeneration
    processor: AvllmProcessor
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def media(self, group: str) -> list[list[Tensor]]:
        """Frames [t c h w] of each medium, row by row."""
        clips = {name: self.inputs[name] for row in ROWS[form_of(group)] for name in row}
        frames = {n: rearrange(x, "c t h w -> t c h w") if x.ndim == 4 else x[None] for n, x in clips.items()}
        return [[frames[name] for name in row] for row in ROWS[form_of(group)]]

    def places(self, clips: list[Tensor]) -> list[int]:
        """How many slots each placeholder of a row stands for."""
        encoder = self.processor.branches["video"].encoder
        return [p for clip in clips for t, p in [encoder.token_shape(clip.shape)] for _ in range(t)]


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    settings = read_json(folder / "config.json")
    system = system_from(settings)
    config = AvllmConfig.from_system(system)
    model = AvllmForConditionalGeneration(config).eval()
    weights = read_tensors(folder / "weights.safetensors")
    rename.load(model, rename.rename(weights, tables(system)["model"], source="weights.safetensors"))
    check_not_run(check, weights, system, "model")
    inputs, outputs = (read_tensors(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    processor = AvllmProcessor.from_config(config, open_tokenizer(folder / "tokenizer", system.decoder))
    case = Case(settings, model, processor, inputs, outputs)
    for group in sorted({name.rpartition(".")[0] for name in outputs}):
        if form_of(group) not in ROWS:
            check.same(group, "not computed by the adapter", "stored tensors")
        elif f"{group}.output_ids" in outputs:
            compare_answer(case, group, check)
        else:
            compare_batch(case, group, check)
    compared = {row.name for row in check.rows}
    for name in outputs:
        if name not in compared and form_of(name.rpartition(".")[0]) in ROWS:
            check.same(name, "not computed by the adapter", "a stored tensor")


def form_of(group: str) -> str:
    """`trunc40` is a batch of the form `trunc`."""
    return re.sub(r"\d+$", "", group)


def expanded(case: Case, ids: list[int], labels: list[int], places: list[int]) -> Expanded:
    """A row without padding, with as many slots for each placeholder as its medium has tokens.

    Raises:
        ValueError: other numbers of placeholders and of images and frames.
    """
    if ids.count(PLACEHOLDER) != len(places):
        raise ValueError(f"a row has {ids.count(PLACEHOLDER)} placeholders, its media {len(places)} frames and images")
    slot, counts, row = case.model.config.slot_ids()["video"], iter(places), []
    for token, label in zip(ids, labels, strict=True):
        row += [(slot, IGNORED)] * next(counts) if token == PLACEHOLDER else [(token, label)]
    return row


def rows_of(case: Case, group: str) -> list[Expanded]:
    """The rows of a batch; the original, too, drops their padding before it fills the slots."""
    source = group if f"{group}.input_ids" in case.inputs else "leftpad"
    ids, labels, mask = (case.inputs[f"{source}.{name}"] for name in ("input_ids", "labels", "attention_mask"))
    return [
        expanded(case, ids[i][kept].tolist(), labels[i][kept].tolist(), case.places(clips))
        for i, (kept, clips) in enumerate(zip(mask.bool(), case.media(group), strict=True))
    ]


def moved(values: Tensor, mask: Tensor, side: str) -> Tensor:
    """Rows padded on the right as rows padded on the side."""
    if side == "right":
        return values
    return torch.stack([row.roll(int((~kept).sum()), 0) for row, kept in zip(values, mask, strict=True)])


def compare_batch(case: Case, group: str, check: Check) -> None:
    """One batch against the stored tensors of that name; what stands at padding is never looked at."""
    model, out = (
        case.model,
        {n.removeprefix(f"{group}."): t for n, t in case.outputs.items() if n.startswith(f"{group}.")},
    )
    rows, found = rows_of(case, group), re.search(r"\d+$", group)
    limit = int(found[0]) if found else case.settings["tokenizer_model_max_length"]
    side = "left" if group == "leftpad" else case.settings["tokenizer_padding_side"]
    longest = max(map(len, rows))
    full = torch.tensor([row + [(0, IGNORED)] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[i < len(row) for i in range(longest)] for row in rows])
    clips = [clip for row in case.media(group) for clip in row]
    embeds = model.embed(full[..., 0], {"video": clips})[:, :limit]
    labels, kept = full[:, :limit, 1], mask[:, :limit]
    embeds, labels = moved(embeds, kept, side), moved(labels, kept, side)
    kept = moved(kept, kept, side)
    check.same(f"{group}.attention_mask", kept, out["attention_mask"])
    check.same(f"{group}.labels", labels, out["labels"])
    if "inputs_embeds_len" in out:
        check.same(f"{group}.inputs_embeds_len", kept.sum(-1), out["inputs_embeds_len"])
    positions: list[Tensor] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda module, args, options: positions.append(options["position_ids"]), with_kwargs=True
    )
    result = model(inputs_embeds=embeds, attention_mask=kept, output_hidden_states=True)
    loss = model(inputs_embeds=embeds, attention_mask=kept, labels=labels).loss
    hook.remove()
    ours = {
        "inputs_embeds": (embeds, EMBEDS),
        "inputs_embeds_row_mean": (reduce(embeds, "b l d -> b l", "mean"), MEANS),
        "position_ids": (positions[0], 0.0),
        "logits": (result.logits, LOGITS),
        "logits_last4": (result.logits[:, -4:], LOGITS),
        "logits_argmax": (result.logits.argmax(-1), 0.0),
        **{f"llm_hidden_{i}": (hidden, EMBEDS) for i, hidden in enumerate(result.hidden_states)},
    }
    for name in out.keys() & ours.keys():
        (tensor, atol), expected = ours[name], out[name]
        real = kept[:, -tensor.shape[1] :]
        if tensor.shape == expected.shape:
            tensor, expected = tensor[real], expected[real]
        check.close(f"{group}.{name}", tensor, expected, atol=atol)
    if "loss" in out:
        check.close(f"{group}.loss", loss, out["loss"], atol=LOSS)


def compare_answer(case: Case, group: str, check: Check) -> None:
    """Greedy ids behind the prompt, and the prompt by our own form."""
    prompt, expected = case.inputs[f"{group}.input_ids"][0].tolist(), case.outputs[f"{group}.output_ids"][0].tolist()
    clips = case.media(group)[0]
    row = expanded(case, prompt, prompt, case.places(clips))
    ids = torch.tensor([[token for token, _ in row]])
    embeds = case.model.embed(ids, {"video": clips})
    answer = case.model.generate(
        inputs_embeds=embeds,
        max_new_tokens=len(expected) - len(prompt),
        do_sample=False,
        pad_token_id=case.settings["pad_token_id"],
    )
    check.same(f"{group}.output_ids", [*prompt, *answer[0].tolist()], expected)
    stored = case.settings.get("_infer", {}).get(group.removeprefix("infer."))
    if stored is not None:
        compare_prompt(case, group, stored["prompt"], ids[0].tolist(), check)


def compare_prompt(case: Case, group: str, text: str, ids: list[int], check: Check) -> None:
    """The prompt as text and as ids, from its system text, its question and its media."""
    form, clips = case.processor.prompt.chat, case.media(group)[0]
    said = read(form, text)
    question, places = said.users[0], []
    for clip in clips:  # of which every frame has a tag
        place = question.index("<image>")
        question = question[:place] + question[place:].replace("<image>", "", len(clip))
        places.append(place)
    is_in_front = not any(places) and question.startswith("\n")

    def turn(counts: list[int]) -> Turn:
        kinds: list[Any] = ["image" if len(clip) == 1 else "video" for clip in clips]
        media = tuple(Medium(kind=k, branch="video", num_tokens=n) for k, n in zip(kinds, counts, strict=True))
        if is_in_front:
            return Turn(question=question.removeprefix("\n"), media=media)
        return Turn(question=question, media=media, places=tuple(places))

    # Our chat moves media in front, as every published chat has them; elsewhere they stand as in the training.
    form = form if is_in_front else replace(form, placed={})
    counts = [case.processor.branches["video"].num_tokens(clip.shape) for clip in clips]
    found = encode(conversation(form, [turn(counts)], said.system), case.processor.tokenizer, case.processor.slot_ids)
    check.same(f"{group}.input_ids", found.input_ids, ids)
    shown = show(conversation(form, [turn([len(clip) for clip in clips])], said.system), slots={"video": "<image>"})
    check.same(f"{group}.prompt", shown, text)
    if said.system == form.system and is_in_front:
        check.same(f"{group}.default_system", case.processor.encode([turn(counts)]).input_ids, ids)
