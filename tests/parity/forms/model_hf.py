"""The form `model_hf`: the port of Video-LLaVA to transformers, with its own layout of tokens and weights."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from avllm.checkpoints import rename
from avllm.checkpoints.tokenizers import open_tokenizer
from avllm.checkpoints.video_llava import system_from, tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, Medium
from avllm.model.prompts import PROMPTS, conversation, show
from avllm.model.tokens import IGNORED, encode
from tests.parity import tags
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors
from tests.parity.forms.llava_styles import read
from tests.parity.not_run import check_not_run
from tests.parity.pictures import close_within_steps, pixels

FEATURES, LOGITS, LOSS = 5e-5, 1e-4, 2e-5
KINDS = {"image": "images", "video": "videos"}


@dataclass
class Case:
    """The built model and everything the case stores."""

    folder: Path
    settings: dict[str, Any]
    model: AvllmForConditionalGeneration
    tokenizer: Any
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def clips(self, group: str, kind: str) -> list[Tensor]:
        """Frames [t c h w] of a batch's images or videos."""
        stored = self.inputs.get(f"{group}.pixel_values_{KINDS[kind]}")
        if stored is None:
            return []
        return list(stored[:, None] if kind == "image" else stored)

    def num_tokens(self, clip: Tensor) -> int:
        """m of a medium."""
        return self.model.config.parsed().branches["video"].num_tokens(clip.shape)


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    settings = read_json(folder / "config.json")
    system = system_from(settings)
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    weights = read_tensors(folder / "weights.safetensors")
    rename.load(model, rename.rename(weights, tables(system)["hf"], source="weights.safetensors"))
    check_not_run(check, weights, system, "hf")
    inputs, outputs = (read_tensors(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    tokenizer = open_tokenizer(folder / "tokenizer", system.decoder)
    case = Case(folder, settings, model, tokenizer, inputs, outputs)
    for group in sorted({name.rpartition(".")[0] for name in outputs}):
        ids, clips = slots_of(case, group)
        compare_inputs(case, group, ids, check)
        compare_logits(case, group, ids, clips, check)
        compare_answer(case, group, ids, clips, check)
    compared = {row.name for row in check.rows}
    for name in outputs:
        if name not in compared:
            check.same(name, "not computed by the adapter", "a stored tensor")


def slots_of(case: Case, group: str) -> tuple[Tensor, list[Tensor]]:
    """A batch's ids with our slots in place of the port's two tokens, and its media in the order of the slots."""
    ids, slot = case.inputs[f"{group}.input_ids"], case.model.config.slot_ids()["video"]
    marks = {case.settings[f"{kind}_token_index"]: kind for kind in KINDS}
    left = {kind: iter(case.clips(group, kind)) for kind in KINDS}
    clips: list[Tensor] = []
    for row in ids.tolist():
        place = 0
        while place < len(row):
            kind = marks.get(row[place])
            if kind is not None:
                clips.append(next(left[kind]))
            place += case.num_tokens(clips[-1]) if kind is not None else 1
    is_slot = torch.isin(ids, torch.tensor(list(marks)))
    return ids.masked_fill(is_slot, slot), clips


def compare_inputs(case: Case, group: str, ids: Tensor, check: Check) -> None:
    """Pixels of the raw pictures, and ids of the prompts."""
    media = case.model.config.parsed().branches["video"].media
    for kind, plural in KINDS.items():
        for index, clip in enumerate(case.clips(group, kind)):
            raw = case.inputs[f"raw_{kind}{index}"]
            ours = pixels(raw, kind, media, sampling="all" if kind == "video" else None)  # type: ignore[arg-type]
            close_within_steps(check, f"{group}.pixel_values_{plural}[{index}]", ours, clip, media.std)
    mask = case.inputs[f"{group}.attention_mask"].bool()
    left = {kind: iter(case.clips(group, kind)) for kind in KINDS}
    form = PROMPTS[case.model.config.parsed().prompt].chat
    for index, text in enumerate(case.settings.get("_prompts", {}).get(group, [])):
        said = read(form, text, num_answers=text.count(" ASSISTANT:") - 1)

        def medium(tag: re.Match[str]) -> Medium:
            kind: Any = tag[1]
            return Medium(kind=kind, branch="video", num_tokens=case.num_tokens(next(left[kind])))

        pairs = zip(said.users, (*said.answers, None), strict=True)
        turns = [tags.turn_of(user, "<(image|video)>", medium, answer=answer) for user, answer in pairs]
        found = encode(conversation(form, turns, said.system), case.tokenizer, case.model.config.slot_ids()).input_ids
        check.same(f"{group}.input_ids[{index}]", found, ids[index][mask[index]].tolist())
        short = [replace(one, media=tuple(replace(m, num_tokens=1) for m in one.media)) for one in turns]
        shown = show(conversation(form, short, said.system), slots={"video": "<medium>"})
        check.same(f"{group}.prompt[{index}]", shown, re.sub(r"<(image|video)>", "<medium>", text))


def compare_logits(case: Case, group: str, ids: Tensor, clips: list[Tensor], check: Check) -> None:
    """Features, logits and the loss."""
    model, out = (
        case.model,
        {n.removeprefix(f"{group}."): t for n, t in case.outputs.items() if n.startswith(f"{group}.")},
    )
    for kind in KINDS:
        if f"{kind}_features" in out:
            own = torch.stack(case.clips(group, kind))
            tokens = model.branch_tokens("video", own, None)
            frames = rearrange(tokens, "(n p) d -> n p d", n=own.shape[0] * own.shape[1])
            check.close(f"{group}.{kind}_features", frames, out[f"{kind}_features"], atol=FEATURES)
    mask = case.inputs[f"{group}.attention_mask"]
    logits = model(input_ids=ids, attention_mask=mask, media={"video": clips}).logits
    best = logits.argmax(-1).masked_fill(mask == 0, -1)
    check.same(f"{group}.logits_argmax_masked", best, out["logits_argmax_masked"])
    check.close(f"{group}.logits_last4", logits[:, -4:], out["logits_last4"], atol=LOGITS)
    if "logits" in out:
        real = mask.bool()
        check.close(f"{group}.logits", logits[real], out["logits"][real], atol=LOGITS)
    if "loss_hf" in out:
        compare_loss(case, group, ids, clips, out["loss_hf"], check)


def compare_loss(case: Case, group: str, ids: Tensor, clips: list[Tensor], expected: Tensor, check: Check) -> None:
    """The stored loss has a term for every bos behind padding, which depends on the kernel of attention."""
    model, mask, labels = (
        case.model,
        case.inputs[f"{group}.attention_mask"],
        case.inputs[f"{group}.labels"],
    )
    batch = {"input_ids": ids, "attention_mask": mask, "media": {"video": clips}}
    usual = model.decoder.config._attn_implementation
    model.decoder.set_attn_implementation("eager")
    check.close(f"{group}.loss_hf", model(**batch, labels=labels).loss, expected, atol=LOSS)
    model.decoder.set_attn_implementation(usual)
    follows_padding = torch.cat([torch.zeros_like(mask[:, :1]), 1 - mask[:, :-1]], dim=1).bool()
    right = labels.masked_fill(follows_padding, IGNORED)
    found = re.search(r"Without these \w+ terms the loss is ([\d.]+) over (\d+)", _readme(case.folder))
    if found is not None:
        check.close(f"{group}.loss", model(**batch, labels=right).loss, float(found[1]), atol=LOSS)
        check.same(f"{group}.num_labels", int((right[:, 1:] != IGNORED).sum()), int(found[2]))


def compare_answer(case: Case, group: str, ids: Tensor, clips: list[Tensor], check: Check) -> None:
    """Greedy ids behind the prompt."""
    expected = case.outputs[f"{group}.generated_ids"]
    answer = case.model.generate(
        input_ids=ids,
        attention_mask=case.inputs[f"{group}.attention_mask"],
        media={"video": clips},
        max_new_tokens=expected.shape[1] - ids.shape[1],
        do_sample=False,
        pad_token_id=case.settings["pad_token_id"],
    )
    check.same(f"{group}.generated_ids", torch.cat([case.inputs[f"{group}.input_ids"], answer], dim=1), expected)


def _readme(folder: Path) -> str:
    path = folder / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
