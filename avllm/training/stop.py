"""Ctrl-C and a scheduler's SIGTERM: the step is finished and stored before the run ends."""

import logging
import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after the step was finished and stored."""


class StopOnSignal(TrainerCallback):
    """Ends the run after the step; a second signal stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args, state, control, **rest: Any) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        except ValueError:  # not the main thread: whoever started it there stops it
            logger.debug("signals are left alone outside the main thread")

    def on_step_end(self, args, state, control, **rest: Any):
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
        return control

    def restore(self) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("stopping after this step; once more stops at once, without storing it")
