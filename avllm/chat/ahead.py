"""Many questions about many media, answered side by side, faults kept to their own."""

from collections.abc import Sequence
from typing import Any

import torch

from avllm.chat.assistant import Assistant, Request
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.errors import AvllmError, OutOfMemory, attempted


def answer_each(
    assistant: Assistant, requests: Sequence[Request], media: Sequence[list[Perceived]], **options: Any
) -> list[Reply | AvllmError]:
    """Answers side by side; when the batch fails, one by one, so that only the culprit becomes an error.

    Args:
        assistant: who answers.
        requests: the questions.
        media: what `Assistant.perceive_request` gave for each.
        options: what `generate` of `transformers` takes.
    """
    if not requests:
        return []
    replies = attempted(lambda: assistant.answers(requests, media=media, **options))
    if not isinstance(replies, AvllmError):
        return [*replies]
    if isinstance(replies, OutOfMemory) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(requests) == 1:
        return [replies]
    pairs = zip(requests, media, strict=True)
    return [reply for request, one in pairs for reply in answer_each(assistant, [request], [one], **options)]
