"""The form `model`: the whole system in training and in chat, on the weights of `model_weights` beside it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from avllm.model import AvllmProcessor, Medium, Turn
from avllm.model.prompts import Form, conversation, show
from avllm.model.quirks import cut_prompt_from_left
from avllm.model.tokens import IGNORED, encode
from tests.parity import tags
from tests.parity.check import Check
from tests.parity.common import Row
from tests.parity.model_case import Case, times_in

# What the published training writes where a medium stands, and what follows when it stands in front.
WORDS = r"<Video>(?:<ImageHere>)+</Video> The video contains [^<>]*? seconds\.|<Image>(?:<ImageHere>)+</Image>"
BEHIND = {"video": " ", "image": "\n"}


def run(folder: Path) -> list[Row]:
    """Compares everything that the case stores."""
    check = Check()
    case = Case.open(folder)
    for name, stored in case.cases.items():
        if isinstance(stored, str):
            check.skip(name, f"the original stops with {stored}")
        elif name.startswith("chat_"):
            run_chat(case, name, stored, check)
        else:
            run_training(case, name, stored, check)
    compared = {row.name for row in check.rows}
    for name in case.outputs:
        if name not in compared:
            check.same(name, "not computed by the adapter", "a stored tensor")
    return check.rows


def run_training(case: Case, name: str, stored: dict[str, Any], check: Check) -> None:
    """One training batch: ids, labels, mask, embeddings, logits, loss, and for the first case a step of AdamW."""
    is_vision = "audio_branch" in name
    is_image = "image" in name or ("caption" in name and "video" not in name)
    kind, branch = "image" if is_image else "video", "audio" if is_vision else "video"
    media = case.inputs["image"][:, :, None] if kind == "image" else case.inputs["video"]
    media = rearrange(media, "b c t h w -> b t c h w")
    if "text_input" in stored:
        media, rows = media[: len(stored["text_input"])], list(captions(case, stored, kind, branch, media))
    else:
        rows = list(instructions(case, name, kind, branch, media))
        media = media[: len(rows)]
    processor = case.processors["vicuna"]
    batch = processor.pad(rows, padding_side="right")
    case.model.branches["audio"].modality = "vision" if is_vision else "own"
    compare_batch(case, name, stored, batch, {branch: media}, check)
    if "adamw" in stored:
        compare_step(case, name, stored, batch, {branch: media}, check)
    case.model.branches["audio"].modality = "own"


def captions(case: Case, stored: dict[str, Any], kind: str, branch: str, media: Tensor) -> Iterator[Any]:
    """Rows of captions behind a medium or behind a prompt that the case gives as text."""
    tokenizer = case.processors["vicuna"].tokenizer
    prompt = (stored["prompt"] or "<ImageHere>").replace("{", "{{").replace("}", "}}").replace("<ImageHere>", "{user}")
    end = "{eos}" if stored["end_sym"] == tokenizer.eos_token else stored["end_sym"]
    form = Form(first=f"{{bos}}{prompt}{{cut}}", answer=f"{{answer}}{end}", media={kind: f"{{{kind}}}"})
    for text, clip in zip(stored["text_input"], media, strict=False):
        parts = conversation(form, [Turn(media=(case.medium(kind, branch, clip),), answer=text)])
        yield encode(parts, tokenizer, case.model.config.slot_ids(), max_answer_tokens=stored["max_txt_len"])


def instructions(case: Case, name: str, kind: str, branch: str, media: Tensor) -> Iterator[Any]:
    """Rows of conversations, from the training texts of the folder `prompts` beside the case."""
    base = name.removesuffix("_audio_branch")
    texts = (
        [base] if base in case.training_texts else sorted(k for k in case.training_texts if k.startswith(f"{base}_"))
    )
    for key, clip in zip(texts, media, strict=False):
        text, medium = case.training_texts[key], case.medium(kind, branch, clip)
        turns, system = turns_of(text, lambda tag, medium=medium: replace(medium, times_s=times_in(tag[0])))
        yield case.processors[family_of(text)].encode(turns, form="train", system=system)


def family_of(text: str) -> str:
    """Who is meant by a training text."""
    return "vicuna" if "###Human: " in text else "llama_v2"


def turns_of(text: str, medium_of: Callable[[re.Match[str]], Medium]) -> tuple[list[Turn], str]:
    """Turns and system text of a stored training text, each medium where the text has it."""
    if family_of(text) == "vicuna":
        system, *rounds = re.split(r"###Human: ", text)
        pairs = [re.split(r"\n###Assistant: ", one.rstrip("#").removesuffix("\n"), maxsplit=1) for one in rounds]
        system = system.removesuffix("\n\n")
    else:
        system = re.search(r"<<SYS>>\n(.*?)\n<</SYS>>\n\n", text, re.S)[1]  # type: ignore[index]
        body = re.sub(r"<<SYS>>\n.*?\n<</SYS>>\n\n", "", text, count=1, flags=re.S)
        rounds = [one.removeprefix("<s>") for one in body.split(" </s>") if one]
        pairs = [re.split(r" \[/INST\] ", one.removeprefix("[INST] "), maxsplit=1) for one in rounds]
    return [tags.turn_of(ask, WORDS, medium_of, behind=BEHIND, answer=answer) for ask, answer in pairs], system


def compare_batch(
    case: Case, name: str, stored: dict[str, Any], batch: dict[str, Tensor], media: dict[str, Tensor], check: Any
) -> None:
    """What the model makes of a batch, against the stored tensors of that name."""
    out, model = case.outputs, case.model
    check.close(f"{name}.attention_mask", batch["attention_mask"], out[f"{name}.attention_mask"])
    check.close(f"{name}.labels", batch["labels"], out[f"{name}.labels"])
    check.same(f"{name}.supervised_tokens", int((batch["labels"] != IGNORED).sum()), stored["supervised_tokens"])
    if f"{name}.input_ids" in out:
        slot = {case.settings["image_patch_token_id"]: model.config.slot_ids()[next(iter(media))]}
        expected = out[f"{name}.input_ids"].clone().apply_(lambda token: slot.get(token, token))
        check.close(f"{name}.input_ids", batch["input_ids"], expected)
    if "supervised" in stored:
        tokenizer = case.processors["vicuna"].tokenizer
        shown = [[tokenizer.convert_ids_to_tokens(ids) for ids in runs(row)] for row in batch["labels"].tolist()]
        check.same(f"{name}.supervised", shown, stored["supervised"])
    if "image_token_spans" in stored:
        is_slot = batch["input_ids"] >= model.config.text_config.vocab_size
        spans = [[int(row.long().argmax()), int(row.sum())] for row in is_slot]
        check.same(f"{name}.image_token_spans", spans, stored["image_token_spans"])
    with torch.no_grad():
        embeds = model.embed(batch["input_ids"], media)
        logits = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
        loss = model(**batch, media=media).loss
    if f"{name}.inputs_embeds" in out:
        check.close(f"{name}.inputs_embeds", embeds, out[f"{name}.inputs_embeds"], rtol=1e-4, atol=5e-5)
    check.close(f"{name}.logits_last4", logits[:, -4:], out[f"{name}.logits_last4"], rtol=1e-4, atol=5e-5)
    check.close(f"{name}.loss", loss.reshape(1), out[f"{name}.loss"], rtol=1e-5, atol=0)


def runs(row: list[int]) -> Iterator[list[int]]:
    """Stretches of labels between ignored ones."""
    current: list[int] = []
    for label in [*row, IGNORED]:
        if label != IGNORED:
            current.append(label)
        elif current:
            yield current
            current = []


def compare_step(
    case: Case, name: str, stored: dict[str, Any], batch: dict[str, Tensor], media: dict[str, Tensor], check: Any
) -> None:
    """Gradients of what is trained, and the weights after one step; the weights are put back afterwards."""
    settings, model, out = stored["adamw"], case.model, case.outputs
    model.requires_grad_(False)
    trained = {case.published[k]: p for k, p in model.named_parameters() if k in case.published}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    model(**batch, media=media).loss.backward()
    for published, norm in stored["grad_norms"].items():
        is_zero = published.endswith(".key.bias")
        found = trained[published].grad.norm().reshape(1)
        wanted = torch.zeros(1) if is_zero else torch.tensor([norm])
        check.close(
            f"{name}.grad_norm.{published}", found, wanted, rtol=0 if is_zero else 1e-3, atol=1e-6 if is_zero else 0
        )
    prefix = f"{name}.grad."
    for key in (key for key in out if key.startswith(prefix)):
        found = trained[key.removeprefix(prefix)].grad[: len(out[key])]
        check.close(key, found, out[key], rtol=1e-3, atol=1e-6)
    decayed = {key for key, parameter in trained.items() if parameter.ndim >= 2}
    check.same(f"{name}.decay", sorted(decayed), sorted(settings["decay"]))
    check.same(f"{name}.no_decay", sorted(set(trained) - decayed), sorted(settings["no_decay"]))
    before = {key: parameter.detach().clone() for key, parameter in trained.items()}
    groups = [
        {"params": [trained[key] for key in sorted(decayed)], "weight_decay": settings["weight_decay"]},
        {"params": [trained[key] for key in sorted(set(trained) - decayed)], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), eps=settings["eps"]).step()
    prefix = f"{name}.after_step."
    for key in (key for key in out if key.startswith(prefix)):
        check.close(key, trained[key.removeprefix(prefix)], out[key], rtol=0, atol=1e-6)
    with torch.no_grad():
        for key, parameter in trained.items():
            parameter.copy_(before[key])
            parameter.grad = None


def chat_media(case: Case, kind: str) -> list[tuple[str, str, Tensor]]:
    """Kind, branch and values of a chat's media, sound first as the original has it."""
    processor = case.processors["vicuna"]
    video = processor.normalise(rearrange(case.inputs["chat_frames_uint8"], "c t h w -> t h w c"))
    image = rearrange(case.inputs["chat_image_tensor"], "1 c t h w -> t c h w")
    found = {
        "audio": [("audio", "audio", case.inputs["audio"][0])],
        "video": [("video", "video", video)],
        "image": [("image", "video", image)],
    }
    return {"audiovideo": found["audio"] + found["video"]}.get(kind) or found[kind]


@torch.no_grad()
def run_chat(case: Case, name: str, stored: dict[str, Any], check: Check) -> None:
    """A conversation: media tokens, prompt, ids, embeddings, greedy ids and scores of every turn."""
    model, processor, out = case.model, case.processors[stored["model_type"]], case.outputs
    clips = chat_media(case, stored["kind"])
    tokens = {branch: model.branch_tokens(branch, values[None], None) for _, branch, values in clips}
    for index, (_, branch, _) in enumerate(clips):
        check.close(f"{name}.embeds_{index}", tokens[branch][None], out[f"{name}.embeds_{index}"], rtol=1e-4, atol=5e-5)
    check.same(f"{name}.embed_lengths", [len(tokens[branch]) for _, branch, _ in clips], stored["embed_lengths"])
    media = tuple(case.medium(kind, branch, values) for kind, branch, values in clips)
    turns: list[Turn] = []
    for number, turn in enumerate(stored["turns"]):
        turns.append(Turn(question=turn["question"], media=media if number == 0 else ()))
        key = f"{name}.turn{number}"
        short = [replace(one, media=tuple(replace(m, num_tokens=1) for m in one.media)) for one in turns]
        shown = show(conversation(processor.prompt.chat, short, stored["system"]))
        check.same(f"{key}.prompt", shown, turn["prompt"])
        ids = processor.encode(turns, system=stored["system"]).input_ids
        slots = set(processor.slot_ids.values())
        check.same(f"{key}.segment_ids", segments(ids, slots), turn["segment_ids"])
        embeds = model.embed(torch.tensor([ids]), tokens=tokens)
        if "max_length" in stored:
            embeds = cut_prompt_from_left(embeds, stored["max_new_tokens"], stored["max_length"])
        if f"{key}.inputs_embeds" in out:
            check.close(f"{key}.inputs_embeds", embeds, out[f"{key}.inputs_embeds"], rtol=1e-4, atol=5e-5)
        compare_answer(case, key, stored, turn, embeds, processor, check)
        turns[-1] = replace(turns[-1], answer=turn["answer_text"])


def segments(ids: list[int], slots: set[int]) -> list[list[int]]:
    """Ids between the slots of media."""
    parts: list[list[int]] = [[]]
    for index, token in enumerate(ids):
        if token not in slots:
            parts[-1].append(token)
        elif ids[index - 1] not in slots:
            parts.append([])
    return parts


def compare_answer(
    case: Case,
    key: str,
    stored: dict[str, Any],
    turn: dict[str, Any],
    embeds: Tensor,
    processor: AvllmProcessor,
    check: Check,
) -> None:
    """Greedy ids, the logits of the first steps, and the answer's text."""
    settings = case.settings["generation"]
    out = case.model.generate(
        inputs_embeds=embeds,
        max_new_tokens=stored["max_new_tokens"],
        do_sample=settings["do_sample"],
        num_beams=settings["num_beams"],
        repetition_penalty=settings["repetition_penalty"],
        pad_token_id=case.settings["pad_token_id"],
        return_dict_in_generate=True,
        output_logits=True,
    )
    ids = out.sequences[0].tolist()
    # The original's generate opened every answer with a bos of its own.
    check.same(f"{key}.generated_ids", [processor.tokenizer.bos_token_id, *ids], turn["generated_ids"])
    check.same(f"{key}.generated_ids (tensor)", turn["generated_ids"], case.outputs[f"{key}.generated_ids"].tolist())
    expected = case.outputs[f"{key}.scores"]
    check.close(f"{key}.scores", torch.cat(out.logits[: len(expected)]), expected, rtol=1e-4, atol=5e-5)
    check.same(f"{key}.answer_ids", processor.answer_ids(turn["generated_ids"]), turn["answer_ids_returned"])
    check.same(f"{key}.answer_text", processor.answer(turn["generated_ids"]), turn["answer_text"])
