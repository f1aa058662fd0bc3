"""`avllm nano build` with steps and samples so few that it takes seconds; what it does with the disk stays as it is.

A process that is spawned imports its main module anew, and so shortens its own share as well.
"""

import multiprocessing
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from avllm import training
from avllm.nano import audio_space, build, decoder, vision

STEPS, CLIPS = 2, 16
_shortened: list[bool] = []


def shorten() -> None:
    """Replaces what takes long by a share of it."""
    if _shortened:
        return
    _shortened.append(True)
    real = training.train

    def train(stage: str, overrides: Sequence[str] = (), **options: Any) -> Any:
        more = ["batch=2", f"checkpoints.every={STEPS // 2}"]
        more += [f"data.0.pictures={CLIPS}"] if "audio" in stage else []
        return real(stage, [*overrides, *more], **options)

    training.train = train
    build.QUICK_STEPS = dict.fromkeys(build.QUICK_STEPS, STEPS)
    build.QUICK_CLIPS = CLIPS
    for module in (decoder, vision, audio_space):
        module.fit = partial(module.fit, checkpoint_every=STEPS // 2, log_every=1)
    decoder.ROWS = dict.fromkeys(decoder.ROWS, 2)
    decoder.measure = lambda *args, **options: {"caption": 0.5}
    decoder.train_decoder = partial(decoder.train_decoder, steps=STEPS)
    vision.measure_vision = lambda *args, **options: {"thing_one": 0.5}
    vision.train_vision = partial(vision.train_vision, steps=STEPS, batch=4)
    audio_space.measure_audio_space = lambda *args, **options: {"audio_whole": 0.5}
    short: dict[str, Any] = {"steps": STEPS, "num_pictures": 8, "num_segments": 8, "num_tracks": 4}
    audio_space.train_audio_space = partial(audio_space.train_audio_space, **short)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of avllm, shortened."""
    from avllm.cli import main as run

    return run(argv)


def forked(argv: Sequence[str]) -> int:
    """The same in a process that has everything imported: its own processes are forks of it, which import nothing."""
    shorten()
    context = multiprocessing.get_context("fork")
    build.multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
    return main(argv)


if __name__ in ("__main__", "__mp_main__"):
    shorten()
if __name__ == "__main__":
    sys.exit(main())
