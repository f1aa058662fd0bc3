"""avllm as a model of lmms-eval: `lmms-eval --model avllm --model_args pretrained=nano --tasks ...`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from PIL import Image
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from avllm.chat.assistant import Assistant, AudioMode, Request, load
from avllm.chat.store import Perceived
from avllm.errors import ConfigError, DataError
from avllm.media import Audio
from avllm.model import Turn

# By suffix, what the files are that a task names; all others are videos.
_SUFFIXES = {"image": (".jpg", ".jpeg", ".png", ".webp", ".bmp"), "audio": (".wav", ".mp3", ".flac", ".ogg", ".m4a")}
# Of a task's generation_kwargs, those that transformers takes.
_OPTIONS = ("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
_SEPARATOR = "\n\n"  # `fewshot_delimiter` of lmms-eval's TaskConfig


class Avllm(lmms):
    """Answers the requests of lmms-eval.

    Args:
        pretrained: name or folder of a system.
        batch_size: questions answered side by side.
        audio: whether the sound of a video is used.
        num_frames: frames to look at; by default the system's.
        device: of the model.
        dtype: of the weights.
        max_batch_size: not used.
    """

    def __init__(
        self,
        pretrained: str = "nano",
        batch_size: int | str = 1,
        audio: AudioMode = "auto",
        num_frames: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ConfigError(f"batch_size: expected a whole number above 0, got {batch_size!r}")
        options = {name: value for name, value in (("device", device), ("dtype", dtype)) if value}
        self.assistant: Assistant = load(pretrained, **options)
        self.batch_size, self.num_frames = int(batch_size), num_frames
        self.audio: AudioMode = audio

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers, in the order of the requests; those with equal settings and near each other go in batches."""
        found: list[str] = []
        with tqdm(total=len(requests), desc="avllm", disable=None) as bar:
            for chunk in self._chunks(requests):
                questions = [(args[0], self._see(args[2], *args[3:6])) for args in chunk]
                found += self._answers(questions, chunk[0][1])
                bar.update(len(chunk))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """For each request the answers of all its rounds; after the first, the task's own function words the next."""
        return [self._rounds(*request.args) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The mean loss of each continuation, and whether greedy decoding would give it.

        lmms-eval's own models give this loss, and its multiple choice takes the least one.
        """
        found = []
        for request in requests:
            question, target, visuals, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            found.append(
                self._loss(question, self._perceive(visuals(doc)), target if isinstance(target, str) else target(doc))
            )
        return found

    def _chunks(self, requests: Sequence[Any]) -> Iterator[list[tuple[Any, ...]]]:
        chunk: list[tuple[Any, ...]] = []
        for request in requests:
            if chunk and (len(chunk) == self.batch_size or request.args[1] != chunk[0][1]):
                yield chunk
                chunk = []
            chunk.append(request.args)
        if chunk:
            yield chunk

    def _answers(self, questions: Sequence[tuple[str, list[Perceived]]], settings: Mapping[str, Any]) -> list[str]:
        asked = [Request(question=text) for text, _ in questions]
        options = {name: settings[name] for name in _OPTIONS if settings.get(name) is not None}
        options.setdefault("do_sample", options.get("temperature", 0) > 0)
        if not options["do_sample"]:  # transformers warns of settings that have no effect
            options = {name: value for name, value in options.items() if name not in ("temperature", "top_p", "top_k")}
        replies = self.assistant.answers(asked, media=[media for _, media in questions], **options)
        return [_cut(reply.answer, settings.get("until")) for reply in replies]

    def _rounds(
        self, question: str, settings: Mapping[str, Any], visuals: Any, word: Any, doc_id: Any, task: str, split: str
    ) -> list[str]:
        doc = self.task_dict[task][split][doc_id]
        seen, answers, state = visuals(doc), [], None
        while True:
            answers = [*answers, *self._answers([(question, self._perceive(seen))], settings)]
            seen, question, has_ended, answers, state = word(
                doc, previous_output=answers, round_idx=len(answers), previous_round_info=state
            )
            if has_ended:
                return list(answers)

    @torch.no_grad()
    def _loss(self, question: str, media: list[Perceived], continuation: str) -> tuple[float, bool]:
        turns = [Turn(question=question, media=tuple(item.medium for item in media))]
        start = len(self.assistant.prompt(turns, media).ids)
        whole = self.assistant.prompt(turns, media, answer_start=continuation)
        target = torch.tensor(whole.ids[start:], device=whole.embeds.device)
        if not len(target):
            raise DataError(f"expected a continuation, got {continuation!r}")
        logits = self.assistant.model.decoder(inputs_embeds=whole.embeds).logits[0, start - 1 : -1].float()
        return float(cross_entropy(logits, target)), bool((logits.argmax(-1) == target).all())

    def _see(self, visuals: Any, doc_id: Any, task: str, split: str) -> list[Perceived]:
        return self._perceive(visuals(self.task_dict[task][split][doc_id]))

    def _perceive(self, visuals: Any) -> list[Perceived]:
        parts = [_part(item) for item in (visuals or ())]
        num_frames = self.num_frames if any(part["type"] == "video" for part in parts) else None
        return self.assistant.perceive_all(media=parts, audio_mode=self.audio, num_frames=num_frames)


def _part(visual: Any) -> dict[str, Any]:
    """A medium as lmms-eval's tasks give it, as a content part: a path, a picture, or a sound of `datasets`.

    Raises:
        DataError: it is something else.
    """
    if isinstance(visual, str | Path):
        suffix = Path(visual).suffix.lower()
        kind = next((kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes), "video")
        return {"type": kind, kind: str(visual)}
    if isinstance(visual, Image.Image):
        return {"type": "image", "image": np.asarray(visual.convert("RGB"))}
    if isinstance(visual, Mapping) and {"array", "sampling_rate"} <= set(visual):
        waveform = np.atleast_2d(np.asarray(visual["array"], dtype=np.float32))
        return {"type": "audio", "audio": Audio(waveform=waveform, sample_rate=int(visual["sampling_rate"]))}
    raise DataError(f"expected a path, a picture or a sound from the task, got {type(visual).__name__}")


def _cut(text: str, until: str | Sequence[str | None] | None) -> str:
    """The text up to the first of the texts at which a task wants its answers to end.

    lmms-eval gives each task that says nothing of it the list of its separator of examples, a blank line. That is no
    wish of the task, and would leave the first paragraph of a model that thinks; lmms-eval's own models drop it, too.
    """
    if until is None or list(until) == [_SEPARATOR]:
        return text
    ends = [until] if isinstance(until, str) else until
    return text[: min((text.find(end) for end in ends if end and end in text), default=len(text))]
