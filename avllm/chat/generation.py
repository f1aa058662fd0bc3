"""Where a generation stops, and its text while it grows."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers.generation import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from avllm.model import AvllmProcessor


class StopOnText(StoppingCriteria):
    """Stops a row when a stop text has been written, and every row when it is cancelled.

    Stop texts are looked for in the decoded text: their token ids depend on what stands around them.

    Args:
        processor: decodes, and knows the stop texts of its prompt form.
        cancelled: set from another thread to stop at the next token.
        more: stop texts of the caller, besides those of the prompt form.
    """

    def __init__(
        self, processor: AvllmProcessor, cancelled: Event | None = None, more: str | Sequence[str] = ()
    ) -> None:
        self.more = (more,) if isinstance(more, str) else tuple(more)
        self.tokenizer, self.cancelled = processor.tokenizer, cancelled
        self.stop = (*processor.prompt.stop, *self.more)
        # How the stop texts are written when they stand alone: the quick test, before any text is decoded.
        self.stop_ids = [self.tokenizer.encode(stop, add_special_tokens=False) for stop in self.stop]
        self.first_token_s: float | None = None
        self._started = time.perf_counter()

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Bool[Tensor, " b"]:  # type: ignore[override]
        if self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self._started
        if self.cancelled is not None and self.cancelled.is_set():
            return torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        done = [self._is_done(row) for row in input_ids.tolist()] if self.stop else [False] * len(input_ids)
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def cut(self, answer: str) -> str:
        """The answer before the caller's stop texts."""
        for stop in self.more:
            answer = answer.split(stop)[0]
        return answer.strip() if self.more else answer

    def _is_done(self, row: list[int]) -> bool:
        if ends_with(row, self.stop_ids):
            return True
        # A stop text of n characters lies within the last n bytes' worth of tokens, whatever the tokenizer.
        tail = self.tokenizer.decode(row[-max(len(stop.encode()) + 1 for stop in self.stop) :])
        return any(stop in tail for stop in self.stop)


def ends_with(ids: Sequence[int], stops: Sequence[Sequence[int]]) -> bool:
    """Whether the ids end with one of the stop sequences."""
    return any(len(stop) > 0 and list(ids[-len(stop) :]) == list(stop) for stop in stops)


class TextStreamer(BaseStreamer):
    """Hands on the answer in pieces that are never taken back.

    What could still become part of a stop text, of a letter of several tokens, or of the space at the end is held.

    Args:
        processor: turns ids into the answer.
        write: takes each piece.
    """

    def __init__(self, processor: AvllmProcessor, write: Callable[[str], object]) -> None:
        self.processor, self.write = processor, write
        self._ids: list[int] = []
        self._sent = ""

    def put(self, value: Tensor) -> None:
        """Takes new ids; the first call of a generation from embeddings brings none."""
        if value.ndim > 1 and len(value) > 1:
            raise ValueError("only one answer at a time can be streamed; ask without stream")
        self._ids += value.flatten().tolist()
        answer = self.processor.answer(self._ids)
        self._send(answer[: len(answer) - _unsure(answer, self.processor.prompt.stop)])

    def end(self) -> None:
        """Hands on what was held."""
        self._send(self.processor.answer(self._ids))

    def _send(self, answer: str) -> None:
        if len(answer) > len(self._sent) and answer.startswith(self._sent):
            self.write(answer[len(self._sent) :])
            self._sent = answer


def _unsure(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of `text` that more tokens may change."""
    held = len(text) - len(text.rstrip("\ufffd"))
    for stop in stops:
        for length in range(len(stop) - 1, 0, -1):
            if text.endswith(stop[:length]):
                held = max(held, length)
                break
    return held


_SEEDED = Lock()


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """For beams that draw, which know only torch's own state: draws from a seed, and leaves the state as it was.

    One at a time; what other threads draw meanwhile without a seed shares the state.
    """
    if seed is None:
        yield
        return
    with _SEEDED, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
