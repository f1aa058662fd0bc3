"""Many questions about many media, answered side by side, faults kept to their own."""

import logging
from collections.abc import Sequence
from typing import Any

from avllm.chat.assistant import Assistant, Request
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.errors import AvllmError, in_one_line

logger = logging.getLogger(__name__)


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
    try:
        return [*assistant.answers(requests, media=media, **options)]
    except Exception as error:
        if len(requests) == 1:
            return [named_fault(error)]
    pairs = zip(requests, media, strict=True)
    return [reply for request, one in pairs for reply in answer_each(assistant, [request], [one], **options)]


def named_fault(error: Exception) -> AvllmError:
    """An exception as an error that a row can tell: one of ours as it is, any other as what it is, a fault of code."""
    if isinstance(error, AvllmError):
        return error
    logger.debug("an unexpected exception", exc_info=error)
    return AvllmError(in_one_line(error))
