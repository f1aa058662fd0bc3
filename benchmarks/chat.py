"""Chat against `transformers`, side by side on random weights of middle size (`benchmarks/mid_size.py`), one thread.

    python -m benchmarks.chat [--json] [--rounds N]

Every ratio is the median of the ratios of the rounds. Ours is what users call: `Session.ask` and `Assistant.answers` of
`avllm.load`. That the answers are equal is checked in the same run; a difference is an error.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.generation import StoppingCriteria, StoppingCriteriaList

import avllm
from avllm.chat import Assistant, Request
from avllm.chat.store import MediaStore
from avllm.checkpoints.load import load_model
from avllm.media import write_video
from avllm.model import Turn
from benchmarks import mid_size
from benchmarks.chat_memory import memory, turns
from benchmarks.common import Figure, arguments, interleaved, machine, median, report, seconds

GEMM_SIDE, NUM_FRAMES, PATCHES = 2048, 8, 256
TOKENS = 33
# What eight people ask at once: about which medium, how many tokens are answered at most, what.
MIX = [
    ("video", 48, "what?"),
    ("text", 12, "which of the two things is the first that moves, and where does it go then?"),
    ("image", 32, "and here?"),
    ("both", 64, "does the sound match the picture, or is it that of another thing?"),
    ("audio", 24, "hm"),
    ("video", 40, "is it red? " * 6),
    ("text", 56, "why?"),
    ("image", 64, "how many are there, and of which colours are they?"),
]


def main() -> None:
    parser = arguments("Chat against transformers: turns, batches, first token, tokens per second, encoding, memory.")
    parser.add_argument("--turns", action="store_true", help="only the memory of 200 turns, as JSON on one line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.turns:
        print(json.dumps(turns()))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = {**llava(Path(folder), args.rounds), **llama(Path(folder), args.rounds)}
    report({**figures, **memory()}, machine("torch", "transformers"), as_json=args.json)


class Ticks(StoppingCriteria):
    """Notes when each token came."""

    def __init__(self) -> None:
        self.started, self.times = time.perf_counter(), list[float]()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)

    def result(self, answer: str) -> dict[str, Any]:
        """Seconds to the first token and per token after it."""
        per_token = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return {"answer": answer, "first": self.times[0] - self.started, "per_token": per_token}


class Llava:
    """A Video-LLaVA of ours and the one of `transformers` with the same weights, in the second turn about a video."""

    def __init__(self, folder: Path) -> None:
        self.theirs = mid_size.peer()
        path = mid_size.save_llava(self.theirs, folder)
        self.ours, self.ours_bf16 = avllm.load(path), avllm.load(path, dtype="bf16")
        self.frames = np.random.default_rng(0).integers(0, 255, (NUM_FRAMES, 224, 224, 3), dtype=np.uint8)
        self.pixels = self.ours.processor.read(self.frames, "video").values[None]
        self.session = self.ours.chat()
        self.session.ask("what?", video=self.frames, max_new_tokens=16)
        self.asked = {"ours": 0, "theirs": 0, "first": 0}

    def question(self, arm: str) -> str:
        """The next question of an arm: of equal length, and other from its first letter on."""
        self.asked[arm] += 1
        return f"{self.asked[arm]:02d} is which?"

    def second_turn(self) -> dict[str, Any]:
        """Ours: the memory of the first turn is used."""
        question, ticks = self.question("ours"), Ticks()
        answer = self.session.ask(question, max_new_tokens=TOKENS, stopping_criteria=[ticks])
        self.session.undo()
        return ticks.result(answer)

    def their_second_turn(self) -> dict[str, Any]:
        """Theirs: `generate` on the whole history with its video."""
        turns = [*self.session.turns, Turn(question=self.question("theirs"))]
        ids = torch.tensor([self.ours.processor.encode(turns).input_ids])
        ids[ids == self.ours.processor.slot_ids["video"]] = self.theirs.config.video_token_index
        ticks = Ticks()
        out = self.theirs.generate(  # type: ignore[operator]
            input_ids=ids,
            pixel_values_videos=self.pixels,
            do_sample=False,
            max_new_tokens=TOKENS,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([ticks]),
        )
        return ticks.result(self.ours.processor.answer(out[0, ids.shape[1] :]))

    def first_token(self) -> float:
        """Seconds from a new video and its question to the first token."""
        self.ours.store = MediaStore()
        request = Request(question=self.question("first"), video=self.frames)
        return seconds(lambda: self.ours.answers([request], max_new_tokens=1))

    @torch.no_grad()
    def encode(self) -> float:
        """Seconds for the video's tokens, bf16."""
        return seconds(lambda: self.ours_bf16.model.branch_tokens("video", [self.pixels[0]], None))

    @torch.no_grad()
    def their_encode(self) -> float:
        """Seconds for the same tokens, fp32."""
        return seconds(lambda: self.theirs.model.get_video_features(self.pixels))

    def flops(self) -> float:
        """Of one first token: all matrix products, attention included (the decoder's causal half of it)."""
        length = len(
            self.ours.processor.encode([Turn(question="01 is which?", media=self.session.turns[0].media)]).input_ids
        )
        vision, width = mid_size.WIDTH, mid_size.DECODER["hidden_size"]
        blocks, layers = mid_size.DEPTH - 1, mid_size.DECODER["num_hidden_layers"]
        tokens = NUM_FRAMES * (PATCHES + 1)
        encode = tokens * (blocks * (24 * vision**2 + 4 * (PATCHES + 1) * vision) + 2 * 3 * 14**2 * vision)
        connect = tokens * 2 * (vision * width + width**2)
        linear = 2 * (4 * width**2 + 3 * width * mid_size.DECODER["intermediate_size"])
        prefill = length * layers * (linear + 2 * length * width) + 2 * width * mid_size.VOCAB
        return encode + connect + prefill


def llava(folder: Path, rounds: int) -> dict[str, Figure]:
    """Figures of 2,056 media tokens."""
    bench = Llava(folder)
    matrix = torch.randn(GEMM_SIDE, GEMM_SIDE)
    runs = interleaved(
        {
            "ours": bench.second_turn,
            "theirs": bench.their_second_turn,
            "first": bench.first_token,
            "gemm": lambda: seconds(lambda: matrix @ matrix),
            "encode": bench.encode,
            "their_encode": bench.their_encode,
        },
        rounds,
    )
    ours, theirs = runs["ours"], runs["theirs"]
    require_equal([run["answer"] for run in ours], [run["answer"] for run in theirs], "second turn")
    limit = bench.flops() * median(runs["gemm"]) / (2 * GEMM_SIDE**3)
    first, generate = median(runs["first"]), "transformers generate, whole history"
    return {
        "second_turn_x": Figure(
            value=ratio(theirs, ours, lambda run: run["first"]),
            goal=40.0,
            against=generate,
            note=f"first token in {1e3 * median([run['first'] for run in ours]):.0f} ms; {TOKENS} tokens identical",
        ),
        "decode_x": Figure(
            value=ratio(theirs, ours, lambda run: run["per_token"]),
            goal=1.5,
            against="transformers generate",
            note=f"{1 / median([run['per_token'] for run in ours]):.1f} tokens/s at context 2,100, batch 1",
        ),
        "first_token_over_limit": Figure(
            value=first / limit,
            goal=1.25,
            better="lower",
            against="all matrix products at the speed of GEMM",
            note=f"{first:.2f} s; GEMM at {2e-9 * GEMM_SIDE**3 / median(runs['gemm']):.0f} GFLOP/s takes {limit:.2f}",
        ),
        "encode_bf16_x": Figure(
            value=ratio(runs["their_encode"], runs["encode"]),
            goal=1.8,
            against="transformers fp32, SDPA",
            note=f"8 frames by the CLIP tower in {median(runs['encode']):.2f} s",
        ),
    }


class Llama:
    """A Video-LLaMA of ours, and the decoder of `transformers` with the same weights."""

    def __init__(self, folder: Path) -> None:
        path = mid_size.save_llama(folder)
        self.ours, self.theirs = avllm.load(path), load_model(path)[0].decoder
        self.theirs.generation_config.eos_token_id = None
        rng, self.clip, self.asked = np.random.default_rng(0), folder / "clip.mp4", 0
        noise = rng.integers(0, 255, (10, 360, 640, 3), dtype=np.uint8)
        write_video(self.clip, (noise[index % 10] for index in range(250)), 25)
        image, sound = noise[0], (0.1 * rng.standard_normal((1, 32000))).astype(np.float32)
        given = {"video": {"video": self.clip}, "text": {}, "image": {"image": image}, "audio": {"audio": sound}}
        given["both"] = {**given["video"], **given["audio"]}
        self.mix = [Request(question=text, max_new_tokens=most, **given[kind]) for kind, most, text in MIX]
        self.together()  # media are encoded once, before all arms

    def new_question(self) -> float:
        """Seconds to the first token of a new question about a video that was seen before."""
        self.asked += 1
        request = Request(question=f"{self.asked:02d} is which?", video=self.clip)
        return seconds(lambda: self.ours.answers([request], max_new_tokens=1))

    def nothing_cached(self) -> float:
        """The same about a video that is new."""
        kept, self.ours.store = self.ours.store, MediaStore()
        spent = self.new_question()
        self.ours.store = kept
        return spent

    def together(self) -> dict[str, Any]:
        """The eight requests in one call."""
        return timed(lambda: [reply.answer for reply in self.ours.answers(self.mix)])

    def one_by_one(self) -> dict[str, Any]:
        """The eight requests, each in a call of its own."""
        return timed(lambda: [self.ours.answers([item])[0].answer for item in self.mix])

    def theirs_one_by_one(self) -> dict[str, Any]:
        """The same prompts through `generate` of `transformers`, embedded and media encoded beforehand."""
        prompts = [prompt_of(self.ours, item) for item in self.mix]

        def work() -> list[str]:
            answers = []
            for prompt, item in zip(prompts, self.mix, strict=True):
                out = self.theirs.generate(  # type: ignore[operator]
                    inputs_embeds=prompt, do_sample=False, max_new_tokens=item.max_new_tokens, pad_token_id=0
                )
                answers.append(self.ours.processor.answer(out[0]))
            return answers

        return timed(work)


def llama(folder: Path, rounds: int) -> dict[str, Figure]:
    """Figures of 32 media tokens."""
    bench = Llama(folder)
    arms: dict[str, Callable[[], Any]] = {
        "together": bench.together,
        "single": bench.one_by_one,
        "theirs": bench.theirs_one_by_one,
        "known": bench.new_question,
        "new": bench.nothing_cached,
    }
    runs = interleaved(arms, rounds)
    for other in ("single", "theirs"):
        require_equal(runs["together"][0]["answers"], runs[other][0]["answers"], f"mixed requests, {other}")
    rate = sum(most for _, most, _ in MIX) / median([run["seconds"] for run in runs["together"]])
    return {
        "new_question_x": Figure(
            value=ratio(runs["new"], runs["known"]),
            goal=15.0,
            against="nothing cached",
            note=f"first token in {1e3 * median(runs['known']):.0f} ms, 32 media tokens",
        ),
        "mixed_8_x": Figure(
            value=ratio(runs["theirs"], runs["together"], lambda run: run["seconds"]),
            goal=3.0,
            against="transformers generate, one by one",
            note=f"{rate:.0f} tokens/s; media encoded before in both; answers identical",
        ),
        "mixed_8_over_own_x": Figure(
            value=ratio(runs["single"], runs["together"], lambda run: run["seconds"]),
            goal=3.0,
            against="ours, one by one",
            note="the same, against our own single answers",
        ),
    }


def prompt_of(assistant: Assistant, item: Request) -> torch.Tensor:
    """The embedded prompt of a request."""
    media = assistant.perceive_request(item)
    turn = Turn(question=item.question, media=tuple(one.medium for one in media))
    return assistant.prompt([turn], media).embeds


def timed(work: Callable[[], list[str]]) -> dict[str, Any]:
    """What it answers and how long it takes."""
    started = time.perf_counter()
    answers = work()
    return {"answers": answers, "seconds": time.perf_counter() - started}


def ratio(slow: Sequence[Any], fast: Sequence[Any], of: Callable[[Any], float] = float) -> float:
    """The median of the rounds' ratios."""
    return median([of(one) / of(other) for one, other in zip(slow, fast, strict=True)])


def require_equal(ours: Sequence[str], theirs: Sequence[str], what: str) -> None:
    """Raises RuntimeError when an answer differs."""
    if list(ours) != list(theirs):
        raise RuntimeError(f"{what}: the answers differ:\n{ours}\n{theirs}")


if __name__ == "__main__":
    main()
