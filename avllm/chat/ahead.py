"""Many questions about many media, answered side by side, faults kept to their own."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from avllm.chat.assistant import Assistant, Request
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.errors import AvllmError, OutOfMemory, in_one_line

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


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
    replies = attempted(lambda: assistant.answers(requests, media=media, **options))
    if not isinstance(replies, AvllmError):
        return [*replies]
    if len(requests) == 1:
        return [replies]
    pairs = zip(requests, media, strict=True)
    return [reply for request, one in pairs for reply in answer_each(assistant, [request], [one], **options)]


def attempted(call: Callable[[], Result]) -> Result | AvllmError:
    """What a call gives, or what is wrong with it: whatever it raises, but for an order to stop."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        return named_fault(error)


def named_fault(error: BaseException) -> AvllmError:
    """An exception as an error that a row can tell: one of ours as it is, any other as what it is, a fault of code.

    It holds no frames any more, whose tensors would stay in memory beside the next question's.
    """
    found = error
    if not isinstance(found, AvllmError):
        logger.debug("an unexpected exception", exc_info=error)
        found = AvllmError(in_one_line(error))
    found.__traceback__ = found.__cause__ = found.__context__ = None
    if isinstance(found, OutOfMemory) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found
