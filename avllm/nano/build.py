"""Makes nano from nothing: the parts of stage 0, then the four stages, on two processes."""

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

from avllm.durable import UNFINISHED, in_use
from avllm.durable.locks import IN_USE
from avllm.errors import AvllmError, ConfigError, in_one_line
from avllm.extras import require

logger = logging.getLogger(__name__)

PARTS = ("decoder", "vision", "audio_space")
# Gates on stage 0: a part below them is reported, as the stages cannot be better than their frozen parts.
GATES: Mapping[str, Mapping[str, float]] = {
    "decoder": dict.fromkeys(("caption", "colour_of", "first", "second", "hearing", "match", "sees", "hears"), 0.95),
    "vision": {"thing_one": 0.95, "colour_one": 0.95, "thing_right": 0.9, "x_r2": 0.8, "y_r2": 0.8, "size_r2": 0.7},
}
QUICK_STEPS = {"video_stage1": 120, "video_stage2": 220, "audio_stage1": 100, "audio_stage2": 200}
QUICK_CLIPS = 1500
POLL_S = 0.5
# What each stage starts from, as the YAMLs in train_configs/nano name it for the folder that is built into by default.
STARTS = {
    "video_stage1": "{out}/parts/start_video",
    "video_stage2": "{out}/video_stage1",
    "audio_stage1": "{out}/parts/start_audio",
    "audio_stage2": "[{out}/audio_stage1, {out}/video_stage2]",
}


class BuildError(AvllmError):
    """A part of the build stopped; the reason stands in the log above."""


def build(out: str | Path = "outputs/nano", *, seed: int = 0, resume: bool = False, quick: bool = False) -> Path:
    """Trains nano and writes a folder that `avllm.load` opens.

    Two lines run side by side: decoder, then the video branch; encoders of frames and of sounds, then stage 1 of the
    audio branch. Stage 2 of the audio branch, beside the trained video branch, is the last.

    Args:
        out: gets `parts/` (stage 0), one folder per stage with log and curve, and `nano/`, the result.
        seed: of everything that is drawn.
        resume: goes on where a build in `out` stopped.
        quick: a shortened build of a few minutes, well above chance and far below what nano can do.

    Raises:
        MissingPackage: of the extra `train`.
        ConfigError: `out` holds a build and `resume` is off, or something else, which is named.
        InUse: another process builds there.
        BuildError: a part stopped.
    """
    require("train", purpose="building nano")
    import_module("avllm.training")  # what cannot be imported is told now, not when the parts of stage 0 are trained
    started, out = time.perf_counter(), Path(out)
    _require_free(out, resume)
    with in_use(out):
        (out / "parts").mkdir(exist_ok=True)
        _in_parallel({"words": (_words_line, (out, seed, quick)), "senses": (_senses_line, (out, seed, quick))})
        _in_parallel({"audio_stage2": (_stage, (out, "audio_stage2", seed, quick))})
        target = finish(out / "audio_stage2", out / "nano")
    logger.info("built %s in %.1f minutes", target, (time.perf_counter() - started) / 60)
    return target


def _require_free(out: Path, resume: bool) -> None:
    """That a build finds its own or nothing, before it has run for an hour."""
    from avllm.checkpoints.replaced import require_replaceable

    if (out / "parts").exists() and not resume:
        raise ConfigError(f"{out} holds a build already; go on with --resume, or give another folder with --out")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; expected a folder, or a name that is free")
    others = [path.name for path in (sorted(out.iterdir()) if out.is_dir() else ()) if not _is_of_build(path.name)]
    if others:
        raise ConfigError(f"--out {out}: holds something else than a build ({others[0]}); give a new folder")
    require_replaceable(out / "nano")


def _is_of_build(name: str) -> bool:
    return name in (*STARTS, "parts", "features", "nano") or name.startswith((UNFINISHED, IN_USE, ".nano"))


def finish(stage: Path, target: Path) -> Path:
    """Writes the last stage's model with weights in half the bytes.

    Raises:
        CheckpointError: the stage's model is damaged, or the target holds something else than a model.
    """
    from avllm.checkpoints.load import open_processor, open_weights
    from avllm.checkpoints.save import save_model

    model = open_weights(stage)
    model.half()
    save_model(model, open_processor(stage), target)
    return target


def _words_line(out: Path, seed: int, quick: bool) -> None:
    _part("decoder", out, seed, quick)
    _wait_for(out / "parts" / "vision.json")
    _assemble(out, ("decoder", "vision"), "start_video", seed)
    _stage(out, "video_stage1", seed, quick)
    _stage(out, "video_stage2", seed, quick)


def _senses_line(out: Path, seed: int, quick: bool) -> None:
    _part("vision", out, seed, quick)
    _part("audio_space", out, seed, quick)
    _wait_for(out / "parts" / "decoder.json")
    _assemble(out, PARTS, "start_audio", seed)
    _stage(out, "audio_stage1", seed, quick)


def _part(name: str, out: Path, seed: int, quick: bool) -> None:
    """Trains one part of stage 0, unless it is there."""
    from avllm.nano.audio_space import train_audio_space
    from avllm.nano.decoder import train_decoder
    from avllm.nano.vision import train_vision

    folder = out / "parts"
    if (folder / f"{name}.json").exists():
        return
    if name == "decoder":
        metrics = train_decoder(folder, seed=seed, quick=quick, progress=_progress(name))
    elif name == "vision":
        metrics = train_vision(folder, seed=seed, quick=quick, progress=_progress(name))
    else:
        vision = folder / "vision.safetensors"
        metrics = train_audio_space(folder, seed=seed, quick=quick, vision=vision, progress=_progress(name))
    for key, least in GATES.get(name, {}).items():
        if metrics.get(key, 1.0) < least and not quick:
            logger.warning("%s: %s is %.3f, expected %.2f or more; nano will be worse", name, key, metrics[key], least)
    shown = ", ".join(f"{key} {value:.3g}" for key, value in metrics.items())
    logger.info("%s is done: %s", name, shown)


def _assemble(out: Path, parts: tuple[str, ...], name: str, seed: int) -> None:
    from avllm.nano.assemble import assemble

    if not (out / "parts" / name / "config.json").exists():
        assemble([out / "parts" / f"{part}.safetensors" for part in parts], out / "parts" / name, seed=seed)


def _stage(out: Path, name: str, seed: int, quick: bool) -> None:
    """Runs one of the four stages through the trainer, from its YAML."""
    from avllm.nano.data import DATASETS
    from avllm.training import train

    overrides = [
        f"init={STARTS[name].format(out=out)}",
        f"output={out / name}",
        f"seed={42 + seed}",
        f"data.0.seed={seed}",
    ]
    if quick:
        overrides += [f"schedule.steps_per_epoch={QUICK_STEPS[name]}", f"data.0.clips={QUICK_CLIPS}"]
    train(f"nano/{name}.yaml", overrides, resume=True, datasets=DATASETS)


def _wait_for(path: Path) -> None:
    """Waits for what the other process makes; if that one fails, this one is ended from outside."""
    while not path.exists():
        time.sleep(POLL_S)


def _progress(name: str) -> Callable[[int, int, Mapping[str, float]], None]:
    started = time.monotonic()

    def show(step: int, steps: int, row: Mapping[str, float]) -> None:
        if step % 100 == 0 or step == steps:
            logger.info("%s: step %d of %d, %.0f s", name, step, steps, time.monotonic() - started)

    return show


def _in_parallel(lines: Mapping[str, tuple[Callable[..., None], tuple]]) -> None:
    """Runs functions side by side, each in a process of its own with an equal share of the cores.

    Raises:
        BuildError: one of them failed; the others are ended.
    """
    # Fresh processes: a fork of one in which torch has started threads can hang.
    context = multiprocessing.get_context("spawn")
    threads = max(1, multiprocessing.cpu_count() // len(lines))
    level = logging.getLogger().getEffectiveLevel()
    running: dict[str, BaseProcess] = {}
    try:
        for name, (run, args) in lines.items():
            running[name] = context.Process(target=_run, args=(run, args, threads, level), daemon=False)
            running[name].start()
        while any(process.is_alive() for process in running.values()):
            time.sleep(POLL_S)
            failed = [name for name, process in running.items() if process.exitcode not in (None, 0)]
            if failed:
                raise BuildError(f"{failed[0]} stopped; its error stands above; go on with --resume")
        failed = [name for name, process in running.items() if process.exitcode != 0]
        if failed:
            raise BuildError(f"{failed[0]} stopped; its error stands above; go on with --resume")
    finally:
        for process in running.values():
            if process.is_alive():
                process.terminate()
            process.join()


def _end_with_parent() -> None:
    """Ends this process when the build is killed: else it would train on unseen, and against a resumed build."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a process of its own"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _run(function: Callable[..., None], args: tuple, threads: int, level: int) -> None:
    import torch

    _end_with_parent()
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("avllm.nano").setLevel(min(level, logging.INFO))  # how far it is: this takes long
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # advertises another package at import
    torch.set_num_threads(threads)
    try:
        function(*args)
    except KeyboardInterrupt:  # the parent's to tell
        sys.exit(130)
    except Exception as error:
        logger.error("%s", in_one_line(error), exc_info=level <= logging.DEBUG)
        sys.exit(1)
