"""Stage 0 of nano's decoder: a tiny LLaMA learns, from text alone, to answer from facts that stand in the slots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from avllm.nano.fitting import Progress, fit, write_metrics, write_weights
from avllm.nano.grammar import Wording
from avllm.nano.language import FILLER, SHARES, Facts, Question, ask, draw_questions, primer_questions, random_facts
from avllm.nano.tokenizer import build_tokenizer, ids_of, word_id
from avllm.nano.world import scene_rng

NUM_VIDEO_SLOTS, NUM_AUDIO_SLOTS = 12, 8
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
FILE = "decoder.safetensors"
NOISE, BARE_SHARE, CHAT_SHARE = 0.25, 0.4, 0.15
NO_WORD = -1  # a slot without a word: noise alone


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one set of facts and several turns each.

    Args:
        ids: token ids; the words of facts in slots, NO_WORD where a slot holds noise.
        is_slot: where media stand.
        turn: 0 before the first question, then 1, 2, ...; -1 at padding.
        is_answer: positions whose id is learned.
        is_chat: rows whose later turns see the earlier ones.
        kinds: type of question by turn, row by row.
    """

    ids: Int[Tensor, "b l"]
    is_slot: Bool[Tensor, "b l"]
    turn: Int[Tensor, "b l"]
    is_answer: Bool[Tensor, "b l"]
    is_chat: Bool[Tensor, " b"]
    kinds: list[list[str]]


def slot_words(words: Sequence[str | None], num_slots: int, *, is_filled: bool) -> list[int]:
    """Ids of the facts in their slots; the slots after them hold the filler, or noise."""
    ids = [NO_WORD if word is None else word_id(word) for word in words]
    return ids + [word_id(FILLER) if is_filled else NO_WORD] * (num_slots - len(ids))


def make_row(
    facts: Facts, questions: Sequence[Question], is_chat: bool
) -> tuple[list[int], list[bool], list[int], list[bool]]:
    """One row: ids, is_slot, turn, is_answer. It reads as the row "nano" of `avllm.model.prompts` writes it."""
    is_filled = (len(questions) + sum(len(question.text) for question in questions)) % 2 == 0
    parts: list[tuple[Sequence[int], bool, int, bool]] = [((BOS_ID, *ids_of("human: ")), False, 0, False)]
    if facts.things is not None:
        parts.append((slot_words(facts.video_words(), NUM_VIDEO_SLOTS, is_filled=is_filled), True, 0, False))
    if facts.sounds is not None:
        parts.append((slot_words(facts.audio_words(), NUM_AUDIO_SLOTS, is_filled=is_filled), True, 0, False))
    for index, question in enumerate(questions, start=1):
        header = "\nhuman: " if is_chat and index > 1 else " "
        parts.append((ids_of(f"{header}{question.text}\nassistant:"), False, index, False))
        parts.append(((*ids_of(f" {question.answer}"), EOS_ID), False, index, True))
    ids = [i for part in parts for i in part[0]]
    is_slot = [part[1] for part in parts for _ in part[0]]
    turn = [part[2] for part in parts for _ in part[0]]
    return ids, is_slot, turn, [part[3] for part in parts for _ in part[0]]


def make_batch(rows: Sequence[tuple[Facts, Sequence[Question]]], is_chat: Sequence[bool]) -> Batch:
    """Pads rows on the right."""
    made = [make_row(*row, chat) for row, chat in zip(rows, is_chat, strict=True)]
    longest = max(len(row[0]) for row in made)

    def pad(column: int, value: int, dtype: torch.dtype) -> Tensor:
        return torch.tensor([row[column] + [value] * (longest - len(row[0])) for row in made], dtype=dtype)

    return Batch(
        ids=pad(0, 0, torch.long),
        is_slot=pad(1, 0, torch.bool),
        turn=pad(2, -1, torch.long),
        is_answer=pad(3, 0, torch.bool),
        is_chat=torch.tensor(list(is_chat)),
        kinds=[[question.type for question in questions] for _, questions in rows],
    )


def visible(batch: Batch) -> tuple[Float[Tensor, "b 1 l l"], Int[Tensor, "b l"]]:
    """What each position attends to, as an additive mask, and its position: turns do not see each other, but in a chat."""
    turn = batch.turn
    same = (turn[:, :, None] == turn[:, None, :]) | (turn[:, None, :] == 0)
    chat = batch.is_chat[:, None, None] & (turn[:, None, :] >= 0)
    causal = torch.ones(turn.shape[1], turn.shape[1], dtype=torch.bool).tril()
    mask = torch.zeros(same.shape).masked_fill(~((same | chat) & causal), torch.finfo(torch.float32).min)
    counted = torch.arange(turn.shape[1]).expand_as(turn)
    start = torch.stack([(turn < index).sum(1) - (turn < 0).sum(1) for index in range(int(turn.max()) + 2)], dim=1)
    begins = start.gather(1, turn.clamp(min=0))
    alone = torch.where(turn > 0, counted - begins + (turn == 0).sum(1)[:, None], counted)
    return mask[:, None], torch.where(batch.is_chat[:, None], counted, alone)


def embed(
    decoder: LlamaForCausalLM, batch: Batch, *, noise: float, generator: torch.Generator
) -> Float[Tensor, "b l d"]:
    """Embeddings of the ids; those in slots with noise, as a connector's output will never be exact."""
    table = decoder.get_input_embeddings()
    embedded = table(batch.ids.clamp(min=0))
    spread = float(table.weight.detach().std())
    grain = torch.randn(embedded.shape, generator=generator) * spread
    level = noise * 2 * torch.rand(len(batch.ids), 1, 1, generator=generator)
    in_slot = torch.where((batch.ids == NO_WORD)[..., None], grain, embedded + level * grain)
    return torch.where(batch.is_slot[..., None], in_slot, embedded)


def logits_of_answers(
    decoder: LlamaForCausalLM, batch: Batch, embedded: Float[Tensor, "b l d"]
) -> tuple[Float[Tensor, "n v"], Int[Tensor, " n"]]:
    """Logits and ids of all answer positions."""
    mask, positions = visible(batch)
    hidden = decoder.model(
        inputs_embeds=embedded, attention_mask=mask.to(embedded.dtype), position_ids=positions, use_cache=False
    ).last_hidden_state
    wanted = batch.is_answer[:, 1:]
    return decoder.lm_head(hidden[:, :-1][wanted]), batch.ids[:, 1:][wanted]


def decoder_config(**sizes: int) -> LlamaConfig:
    """The tiny LLaMA of `configs/nano.yaml`."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, **sizes}
    return LlamaConfig(
        vocab_size=len(build_tokenizer()),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        rope_theta=10000.0,
        **sizes,
    )


@torch.no_grad()
def measure(
    decoder: LlamaForCausalLM, *, num: int = 60, seed: int = 1, noise: float = 0.25, wording: Wording = "test"
) -> dict[str, float]:
    """Share of answers right to the last token by type of question, on wordings kept for testing (teacher-forced)."""
    rng = np.random.default_rng([seed, 99])  # no clip of training
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, list[bool]] = {kind: [] for kind in SHARES}
    while min(len(found) for found in right.values()) < num:
        rows = []
        for _ in range(48):
            facts = random_facts(rng)
            kinds = [kind for kind in SHARES if len(right[kind]) < num]
            asked = [ask(facts, kind, rng, wording=wording) for kind in kinds]
            rows.append((facts, [question for question in asked if question]))
        rows = [row for row in rows if row[1]]
        batch = make_batch(rows, [False] * len(rows))
        logits, ids = logits_of_answers(decoder, batch, embed(decoder, batch, noise=noise, generator=generator))
        is_right = torch.zeros_like(batch.is_answer)
        is_right[:, 1:][batch.is_answer[:, 1:]] = logits.argmax(-1) == ids
        for row, kinds in enumerate(batch.kinds):
            for index, kind in enumerate(kinds, start=1):
                where = (batch.turn[row] == index) & batch.is_answer[row]
                right[kind].append(bool(is_right[row][where].all()))
    return {kind: float(np.mean(found)) for kind, found in right.items()}


def train_decoder(
    out_dir: Path, *, seed: int = 0, steps: int = 650, batch: int = 32, turns: int = 7, lr: float = 1.5e-3,
    quick: bool = False, progress: Progress | None = None,
) -> dict[str, float]:  # fmt: skip
    """Trains the decoder on facts and questions in words and writes `decoder.safetensors`.

    The first part has bare questions alone ("see drum?"): with whole sentences from the start, yes and no stay at
    chance for long. Some bare questions go on to the end, or colours are unlearned again.

    Args:
        out_dir: also gets decoder.json (metrics), decoder.csv, decoder.png and the checkpoint to resume from.
        steps: of `batch` rows with `turns` questions each.
        quick: a shortened run.

    Returns:
        Share of right answers by type of question, on wordings never trained on.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    steps = min(steps, 260) if quick else steps
    torch.manual_seed(seed)
    decoder = LlamaForCausalLM(decoder_config())

    def losses(step: int) -> dict[str, Tensor]:
        rng, generator = scene_rng("decoder", seed, step), torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = []
        for _ in range(batch):
            facts = random_facts(rng)
            if step < BARE_SHARE * steps:
                rows.append((facts, primer_questions(facts, rng, 2 * turns)))
            else:
                rows.append((facts, primer_questions(facts, rng, 3) + draw_questions(facts, rng, turns)))
        drawn = make_batch(rows, [bool(rng.random() < CHAT_SHARE) for _ in rows])
        logits, ids = logits_of_answers(decoder, drawn, embed(decoder, drawn, noise=NOISE, generator=generator))
        return {"answers": F.cross_entropy(logits, ids)}

    seconds = fit("decoder", decoder, losses, out_dir=out_dir, steps=steps, lr=lr, weight_decay=0.02, progress=progress)
    metrics = measure(decoder, num=60 if quick else 200)
    write_weights(out_dir / FILE, {"decoder.model": decoder.model})
    write_metrics(out_dir / "decoder.json", {"steps": steps, "seconds": round(seconds, 1), **metrics})
    return metrics
