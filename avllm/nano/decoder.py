"""Stage 0 of nano's decoder: a tiny LLaMA learns, from text alone, to answer from facts that stand in the slots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from avllm.model import AvllmConfig
from avllm.nano.fitting import Progress, fit, start_wide, write_metrics, write_weights
from avllm.nano.grammar import Wording
from avllm.nano.language import (
    FILLER,
    HARD_SHARE,
    SHARES,
    Facts,
    Question,
    ask,
    draw_questions,
    primer_questions,
    random_facts,
)
from avllm.nano.lines import pack
from avllm.nano.tokenizer import SLOT_WORDS, ids_of, slot_word_ids, word_id
from avllm.nano.world import COLOURS, THINGS, scene_rng

NUM_VIDEO_SLOTS, NUM_AUDIO_SLOTS = 12, 8
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
FILE = "decoder.safetensors"
NOISE, BARE_NOISE, CHAT_SHARE, EMBEDDING_STD = 0.25, 0.15, 0.5, 0.05
COLOUR_WEIGHT, MATCH_GAIN = 0.6, 0.5
NO_WORD = -1  # a slot without a word: noise alone


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one set of facts and several turns each.

    Args:
        ids: token ids; the words of facts in slots, NO_WORD where a slot holds noise.
        more: a second word of the same slot, NO_WORD where there is none.
        is_slot: where media stand.
        turn: 0 before the first question, then 1, 2, ...; -1 at padding.
        is_answer: positions whose id is learned.
        is_chat: rows whose later turns see the earlier ones.
        kinds: type of question by turn, row by row.
    """

    ids: Int[Tensor, "b l"]
    more: Int[Tensor, "b l"]
    is_slot: Bool[Tensor, "b l"]
    turn: Int[Tensor, "b l"]
    is_answer: Bool[Tensor, "b l"]
    is_chat: Bool[Tensor, " b"]
    kinds: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row before padding; the columns of `Batch`."""

    ids: list[int]
    more: list[int]
    is_slot: list[bool]
    turn: list[int]
    is_answer: list[bool]


def slot_words(
    words: Sequence[str], stream: Literal["video", "audio"], num_slots: int, *, is_filled: bool
) -> tuple[list[int], list[int]]:
    """First and second ids of the facts in their slots; the slots after them hold the filler, or noise."""
    known = slot_word_ids(stream)
    split = [[known[part] for part in word.split()] for word in words]
    rest = [known[FILLER] if is_filled else NO_WORD] * (num_slots - len(words))
    first, second = [ids[0] for ids in split] + rest, [ids[1] if len(ids) > 1 else NO_WORD for ids in split]
    return first, second + [NO_WORD] * len(rest)


def make_row(facts: Facts, questions: Sequence[Question], is_chat: bool, is_bare: bool = False) -> Row:
    """One row. It reads as the row "nano" of `avllm.model.prompts` writes it.

    Args:
        is_bare: leaves out what stands between question and answer, so that the last word of one predicts the other.
    """
    is_filled = (len(questions) + sum(len(question.text) for question in questions)) % 2 == 0
    row = Row(ids=[BOS_ID], more=[NO_WORD], is_slot=[False], turn=[0], is_answer=[False])

    def add(ids: Sequence[int], turn: int, *, more: Sequence[int] = (), is_slot: bool = False, is_answer: bool = False):
        row.ids.extend(ids)
        row.more.extend(more or [NO_WORD] * len(ids))
        row.is_slot.extend([is_slot] * len(ids))
        row.turn.extend([turn] * len(ids))
        row.is_answer.extend([is_answer] * len(ids))

    add(ids_of("human: "), 0)
    if facts.things is not None:
        ids, more = slot_words(facts.video_words(), "video", NUM_VIDEO_SLOTS, is_filled=is_filled)
        add(ids, 0, more=more, is_slot=True)
    if facts.sounds is not None:
        ids, more = slot_words(facts.audio_words(), "audio", NUM_AUDIO_SLOTS, is_filled=is_filled)
        add(ids, 0, more=more, is_slot=True)
    for index, question in enumerate(questions, start=1):
        header = "\nhuman: " if is_chat and index > 1 else " "
        add(ids_of(f"{header}{question.text}" + ("" if is_bare else "\nassistant:")), index)
        add((*ids_of(f" {question.answer}"), EOS_ID), index, is_answer=True)
    return row


def make_batch(
    rows: Sequence[tuple[Facts, Sequence[Question]]], is_chat: Sequence[bool], is_bare: bool = False
) -> Batch:
    """Pads rows on the right."""
    made = [make_row(*row, chat, is_bare) for row, chat in zip(rows, is_chat, strict=True)]
    longest = max(len(row.ids) for row in made)

    def pad(column: str, value: int, dtype: torch.dtype) -> Tensor:
        lists = [getattr(row, column) for row in made]
        return torch.tensor([one + [value] * (longest - len(one)) for one in lists], dtype=dtype)

    return Batch(
        ids=pad("ids", 0, torch.long),
        more=pad("more", NO_WORD, torch.long),
        is_slot=pad("is_slot", 0, torch.bool),
        turn=pad("turn", -1, torch.long),
        is_answer=pad("is_answer", 0, torch.bool),
        is_chat=torch.tensor(list(is_chat)),
        kinds=[[question.type for question in questions] for _, questions in rows],
    )


def visible(batch: Batch) -> tuple[Float[Tensor, "b 1 l l"], Int[Tensor, "b l"]]:
    """What each position attends to, as an additive mask, and its position; turns see each other only in a chat."""
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
    table = decoder.model.embed_tokens
    has_two = (batch.more != NO_WORD)[..., None]
    # The name of the thing leads: it is what a question looks for, the colour is what is read there.
    embedded = table(batch.ids.clamp(min=0)) * torch.where(has_two, COLOUR_WEIGHT, 1.0)
    embedded = embedded + table(batch.more.clamp(min=0)) * has_two
    spread = float(table.weight.detach().std())
    grain = torch.randn(embedded.shape, generator=generator) * spread
    level = noise * 2 * torch.rand(len(batch.ids), 1, 1, generator=generator)
    in_slot = torch.where((batch.ids == NO_WORD)[..., None], grain, embedded + level * grain)
    return torch.where(batch.is_slot[..., None], in_slot, embedded)


def logits_of_answers(
    decoder: LlamaForCausalLM, batch: Batch, embedded: Float[Tensor, "b l d"]
) -> tuple[Float[Tensor, "n v"], Int[Tensor, " n"]]:
    """Logits and ids of all answer positions.

    Short rows share a line: a third or more of a batch padded to its longest row would be padding.
    """
    mask, positions = visible(batch)
    is_real = batch.turn >= 0
    lengths, longest = is_real.sum(1).tolist(), batch.ids.shape[1]
    width = min((longest, longest * 3 // 2), key=lambda width: width * pack(lengths, width)[2])
    lines, starts, num_lines = pack(lengths, width)
    packed_mask = mask.new_full((num_lines, 1, width, width), torch.finfo(mask.dtype).min)
    for row, (line, start, length) in enumerate(zip(lines, starts, lengths, strict=True)):
        here = slice(start, start + length)
        packed_mask[line, :, here, here] = mask[row, :, :length, :length]
    places = (torch.tensor(lines) * width + torch.tensor(starts))[:, None] + torch.arange(longest)
    packed = embedded.new_zeros(num_lines * width, embedded.shape[-1])
    packed = packed.index_copy(0, places[is_real], embedded[is_real])
    packed_positions = positions.new_zeros(num_lines * width).index_copy(0, places[is_real], positions[is_real])
    hidden = decoder.model(
        inputs_embeds=packed.view(num_lines, width, -1), attention_mask=packed_mask.to(embedded.dtype),
        position_ids=packed_positions.view(num_lines, width), use_cache=False,
    ).last_hidden_state.flatten(0, 1)  # fmt: skip
    wanted = batch.is_answer[:, 1:]
    return decoder.lm_head(hidden[places[:, :-1][wanted]]), batch.ids[:, 1:][wanted]


@torch.no_grad()
def start_decoder(decoder: LlamaForCausalLM) -> None:
    """Weights that make it easy to find a word of the question among the slots: yes and no are learned sooner.

    A word in a slot is the word and a mark of its stream. Two heads of the first layer start with equal queries and
    keys in the space of the things' names, so that equal names attend to each other wherever they stand. Keys gain by
    the mark, as a word of the question would attend to itself alone. The second head looks for a thing that stands
    with its colour, and hands that colour on.
    """
    start_wide(decoder.model)
    table = decoder.model.embed_tokens.weight
    torch.nn.init.normal_(table, std=EMBEDDING_STD)
    marks = torch.randn(len(SLOT_WORDS), table.shape[1]) * EMBEDDING_STD
    for stream, mark in zip(SLOT_WORDS, marks, strict=True):
        for word, index in slot_word_ids(stream).items():
            table[index] = table[word_id(word)] + mark
    words = torch.stack([*(table[word_id(word)] for word in (*THINGS, *COLOURS)), *marks])
    axes, upper = torch.linalg.qr(words.T)
    things, colours, marks = (axes * upper.diagonal().sign()).T.split([len(THINGS), len(COLOURS), len(marks)])
    width = decoder.config.hidden_size // decoder.config.num_attention_heads
    # Rotary positions turn dimension i with i + width / 2, the last of each half slowly: these ignore the distance.
    half, num_slow = width // 2, (len(THINGS) + 2) // 2
    slow = [*range(half - num_slow, half), *range(width - num_slow, width)]
    attention: Any = decoder.model.layers[0].self_attn
    for head, (gain, sought) in enumerate(((0.25, marks.sum(0)), (0.4, marks[0] + colours.sum(0)))):
        rows = [head * width + index for index in slow]
        turned = torch.linalg.qr(torch.randn(len(rows), len(rows)))[0][:, : len(THINGS) + 1]
        for projection, last in ((attention.q_proj, things.sum(0)), (attention.k_proj, sought)):
            projection.weight[head * width : (head + 1) * width] = 0
            projection.weight[rows] = turned @ torch.cat([MATCH_GAIN**0.5 * things, gain**0.5 * last[None]])
    own = slice(width, width + len(COLOURS))
    attention.v_proj.weight[own] = colours / 2
    attention.o_proj.weight[:, own] = colours.T / 2


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
            asked = [ask(facts, kind, rng, wording=wording) for kind in right if len(right[kind]) < num]
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


# Rows of a batch by what they ask: bare questions of all kinds; which colour a thing has; what compares question and
# slots; whole sentences.
ROWS = {"bare": 96, "colours": 64, "comparisons": 64, "sentences": 48}
# Up to which share of the steps these lessons take turns.
PLAN = (
    (0.34, ("bare", "colours")),
    (0.52, ("colours", "comparisons", "bare", "sentences")),
    (0.80, ("comparisons", "sentences", "colours", "sentences")),
    (1.00, ("comparisons", "sentences", "sentences")),
)


def lesson_at(step: int, steps: int) -> str:
    """What a step teaches: bare questions, then whole sentences, with lessons of their own for what must be compared.

    With all kinds at once, the answers that compare question and slots stay at chance for long; alone, they are learned
    in some hundred steps. Colours of things named come from the first step on: where "which colour" is learned on one
    thing, a decoder reads any colour it finds, and never comes to look for the thing. Alone at first, they would leave
    a decoder that never comes to tell first from second.
    """
    turns = next(turns for until, turns in PLAN if step < until * steps)
    return turns[step % len(turns)]


COMPARING = {"sees": 0.55, "match": 0.3, "hears": 0.15}
MIN_ASKED, SPOKEN_SHARE = 2, 0.5


def draw_row(name: str, rng: np.random.Generator) -> tuple[Facts, list[Question]]:
    """Facts, and questions as a lesson asks them."""
    while True:
        facts = random_facts(rng)
        if name in ("bare", "sentences"):
            is_bare = name == "bare"
            more = draw_questions(facts, rng, 2 if is_bare else 4, wording="bare" if is_bare else "train")
            asked = primer_questions(facts, rng, 3 if is_bare else 2) + more
            return facts, [asked[index] for index in rng.permutation(len(asked))]
        if name == "colours":
            kinds = ["colour_of"] * 3
            if len({colour for colour, _, _ in facts.things or ()}) < 2:  # else no answer but by luck is wrong
                continue
        else:
            kinds = [str(kind) for kind in rng.choice(list(COMPARING), 4, p=list(COMPARING.values()))]
        is_spoken = name == "comparisons" and rng.random() < SPOKEN_SHARE
        asked = [ask(facts, kind, rng, wording="train" if is_spoken else "bare", hard=HARD_SHARE) for kind in kinds]
        found = [question for question in asked if question is not None]
        if len(found) >= MIN_ASKED:
            return facts, found


def train_decoder(
    out_dir: Path, *, seed: int = 0, steps: int = 1500, lr: float = 1.5e-3, quick: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:  # fmt: skip
    """Trains the decoder on facts and questions in words, lesson by lesson, and writes `decoder.safetensors`.

    Args:
        out_dir: also gets decoder.json (metrics), decoder.csv, decoder.png and the checkpoint to resume from.
        steps: of all lessons.
        quick: a shortened run.

    Returns:
        Share of right answers by type of question, on wordings never trained on.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    steps = min(steps, 480) if quick else steps
    torch.manual_seed(seed)
    decoder = LlamaForCausalLM(cast(LlamaConfig, AvllmConfig.from_yaml("nano").text_config))
    start_decoder(decoder)

    def losses(step: int) -> dict[str, Tensor]:
        rng, generator = scene_rng("decoder", seed, step), torch.Generator().manual_seed(seed * 1_000_003 + step)
        name = lesson_at(step, steps)
        rows = [draw_row(name, rng) for _ in range(ROWS[name])]
        is_chat = [bool(name == "sentences" and rng.random() < CHAT_SHARE) for _ in rows]
        # Most bare questions are answered right after their last word, where the answer is found first.
        drawn = make_batch(rows, is_chat, name != "sentences" and step % 3 != 0)
        noise = NOISE if name == "sentences" else BARE_NOISE
        embedded = embed(decoder, drawn, noise=noise, generator=generator)
        logits, ids = logits_of_answers(decoder, drawn, embedded)
        return {"answers": F.cross_entropy(logits, ids)}

    seconds = fit("decoder", decoder, losses, out_dir=out_dir, steps=steps, lr=lr, weight_decay=0.02, progress=progress)
    metrics = measure(decoder, num=60 if quick else 200)
    write_weights(out_dir / FILE, {"decoder.model": decoder.model})
    write_metrics(out_dir / "decoder.json", {"steps": steps, "seconds": round(seconds, 1), **metrics})
    return metrics
