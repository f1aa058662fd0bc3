"""VideoChat's demo: a video and an image, questions in turn, greedy answers, stop sequences and beams."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.generation import StoppingCriteria

from avllm.chat.assistant import Assistant
from avllm.chat.generation import StopOnText, ends_with
from avllm.chat.session import Session
from avllm.chat.store import Perceived
from avllm.checkpoints.videochat import system_from
from avllm.model import AvllmProcessor, Turn
from avllm.model.configuration import System
from avllm.model.prompts import conversation, show
from tests.parity.check import Check
from tests.parity.forms.model import segments
from tests.parity.pictures import close_within_steps
from tests.parity.videochat_case import EMBEDS, LOGITS, Case, check_covered, processor_of

PIXELS = 1e-5
SLOTS = {"video": "<VideoHere>", "image": "<ImageHere>"}
SOURCES = {"video": "video_frames", "image": "image"}


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Compares everything that the case stores."""
    case = Case.open(folder)
    for name, stored in case.settings["runs"].items():
        processor = processor_of(demo_of(case.settings, stored), folder / "tokenizer")
        assistant = Assistant(case.model, processor)
        stops = StopOnText(processor)
        for ids in case.settings["stop_sequences"]:
            check.same(f"{name}.stops after {ids}", stops(torch.tensor([ids]), torch.zeros(1)).tolist(), [True])
        kind = "image" if name.startswith("image") else "video"
        source = case.inputs[SOURCES[kind]].numpy()
        ours, theirs = processor.read(source, kind), case.outputs[f"{name}.pixels"]
        std = processor.branches["video"].media.std
        close_within_steps(check, f"{name}.pixels", ours.values[None], theirs, std, steps=1)
        # What follows is computed of the stored pixels: one step of another Pillow must not look like a fault of ours.
        tokens = case.model.branch_tokens("video", theirs, None)
        check.close(f"{name}.inputs_llama", tokens[None], case.outputs[f"{name}.inputs_llama"], atol=EMBEDS)
        seen = replace(assistant.perceive(source, kind), tokens=tokens)
        run_turns(case, name, stored["turns"], assistant, seen, check)
        session = assistant.chat(system=case.settings["conversation"]["system"])
        if torch.allclose(ours.values[None], theirs, rtol=0, atol=PIXELS):
            check_session(name, stored["turns"], session, {kind: source}, check)
        else:
            check.skip(f"{name}.chat", "pixels of this Pillow differ by a step, after which greedy words may, too")
    check_covered(case, check)


def demo_of(settings: dict[str, Any], stored: dict[str, Any]) -> System:
    """The system with the demo's settings of this run, which hands over frames in place of a file."""
    system = system_from(settings)
    frames = system.branches["video"].media
    frames = replace(
        frames,
        size=settings["resize"],
        num_frames=stored.get("num_segments", frames.num_frames),
        source_fps=stored.get("fps", frames.source_fps),
    )
    return replace(system, branches={"video": replace(system.branches["video"], media=frames)})


def run_turns(
    case: Case, name: str, stored: Sequence[dict[str, Any]], assistant: Assistant, seen: Perceived, check: Check
) -> None:
    """Prompt, ids, embeddings, scores and answers of each turn."""
    processor, form = assistant.processor, assistant.processor.prompt.form("chat")
    system = case.settings["conversation"]["system"]
    turns: list[Turn] = []
    for number, turn in enumerate(stored):
        key = f"{name}.turn{number}"
        turns.append(Turn(question=turn["question"], media=() if number else (seen.medium,)))
        short = [replace(t, media=tuple(replace(m, num_tokens=1) for m in t.media)) for t in turns]
        shown = show(conversation(form, short, system), slots={"video": SLOTS[seen.medium.kind]})
        check.same(f"{key}.prompt", shown, turn["prompt"])
        prompt = assistant.prompt(turns, [seen], system)
        pieces = segments(prompt.ids, set(processor.slot_ids.values()))
        check.same(f"{key}.segment_ids", pieces, turn["segment_ids"])
        check.close(f"{key}.inputs_embeds", prompt.embeds, case.outputs[f"{key}.inputs_embeds"], atol=EMBEDS)
        check_scores(case, key, prompt.embeds, check)
        run_answers(key, turn, assistant, prompt.embeds, check)
        turns[-1] = replace(turns[-1], answer=turn["answer"])


def check_scores(case: Case, key: str, embeds: Tensor, check: Check) -> None:
    """The logits of the first steps."""
    expected = case.outputs[f"{key}.step_scores"]
    out: Any = case.model.generate(
        inputs_embeds=embeds,
        max_new_tokens=len(expected),
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    check.close(f"{key}.step_scores", torch.cat(out.logits), expected, atol=LOGITS)


class StopOnIds(StoppingCriteria):
    """Stops after one of the case's sequences, which are ids of its tokenizer and no stop texts of the prompt form."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.sequences = sequences

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:  # type: ignore[override]
        return torch.tensor([ends_with(row, self.sequences) for row in input_ids.tolist()])


def run_answers(key: str, turn: dict[str, Any], assistant: Assistant, embeds: Tensor, check: Check) -> None:
    """Greedy, with other stop sequences, and with beams."""
    longest, processor = turn["max_new_tokens"], assistant.processor
    runs = {"": (turn, {})}
    for name in ("stop_single", "stop_double"):
        if name in turn:
            runs[f".{name}"] = turn[name], {"stopping_criteria": [StopOnIds(turn[name]["stop_sequences"])]}
    if "beam3" in turn:
        settings = ("num_beams", "max_new_tokens", "length_penalty")
        runs[".beam3"] = turn["beam3"], {name: turn["beam3"][name] for name in settings}
    for name, (stored, options) in runs.items():
        ids = assistant.generate(embeds, **{"max_new_tokens": longest, **options}).ids[0]
        check.same(f"{key}{name}.generated_ids", ids, stored["generated_ids"])
        check.same(f"{key}{name}.answer", processor.answer(ids), without_eos(stored["answer"], processor))
        if "raw_text" in stored:
            check.same(f"{key}{name}.raw_text", processor.tokenizer.decode(ids), stored["raw_text"])


def without_eos(answer: str, processor: AvllmProcessor) -> str:
    """The answer without the end of text that the demo leaves in it."""
    return answer.split(processor.tokenizer.eos_token)[0].strip()


def check_session(
    name: str, stored: Sequence[dict[str, Any]], session: Session, media: dict[str, Any], check: Check
) -> None:
    """The same questions as a user asks them: one conversation, which keeps what it has computed."""
    for number, turn in enumerate(stored):
        answer = session.ask(turn["question"], max_new_tokens=turn["max_new_tokens"], **media)
        expected = without_eos(turn["answer"], session.assistant.processor)
        check.same(f"{name}.turn{number}.answer in a chat", answer, expected)
        media = {}
