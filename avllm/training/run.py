"""Runs a stage: from its YAML to a folder that `avllm.load` opens."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from avllm.checkpoints.adapters import ADAPTER, save_adapter
from avllm.checkpoints.load import base_name
from avllm.data import DATASETS, Collate, Context, Mixture, Order, Prepare
from avllm.data.grouping import Outlines
from avllm.data.ready import require_ready
from avllm.durable import UNFINISHED, disk_faults, in_use, remove_unfinished, sync, sync_folder, write_json, write_whole
from avllm.errors import ConfigError
from avllm.extras import require
from avllm.media.isolated import reader_of
from avllm.model.four_bits import keep_own_weights
from avllm.training import checkpoint
from avllm.training.adapter import add_adapter, freeze_beside_adapter, full_weights
from avllm.training.arguments import arguments
from avllm.training.features import use_store
from avllm.training.frozen import freeze, recompute_activations, unfreeze
from avllm.training.held_out import Watch
from avllm.training.progress import CsvLog, draw_curve
from avllm.training.sharding import shard
from avllm.training.stage import Stage, read_stage
from avllm.training.start import RECORD, open_start, save_system, trained_in
from avllm.training.trainer import StageTrainer, run_to_end

logger = logging.getLogger(__name__)
# May differ between a run and its resumption: they change no weight.
FREE = ("output", "logging", "checkpoints", "workers", "max_unreadable", "trusted_media")


def train(
    stage: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    datasets: Mapping[str, type] | None = None,
) -> Path:
    """Trains one stage.

    Args:
        stage: a YAML, or its name in `train_configs/`.
        overrides: `a.b=c`.
        resume: go on from the newest checkpoint in the output folder, or from the start if there is none.
        datasets: kinds of datasets beside the published layouts, by the same form as `avllm.data.DATASETS`.

    Returns:
        The output folder: a complete model or an adapter, with `training.json`, `stage.yaml`, `log.csv`, `curve.png`.

    Raises:
        MissingPackage: of the extra `train`.
        ConfigError: a fault in the stage, or an output folder that holds another run or a model.
        InUse: another process trains into the output folder; said before a model is loaded.
        DiskError: it cannot be written; the last checkpoint is whole, and resume goes on from it.
        Stopped: Ctrl-C; the state is stored.
    """
    settings, plain = read_stage(stage, overrides, datasets={**DATASETS, **(datasets or {})})
    require("train", "accelerate", *(["peft"] if settings.adapter else []), purpose="training")
    folder = Path(settings.output)
    # One file at a time in each process that reads data: a DataLoader's have children of their own.
    isolated = reader_of(trusted_media=settings.trusted_media, num_workers=1, starts=False)
    with in_use(folder), isolated as reader:
        return _train(settings, plain, folder, reader, resume=resume)


def _train(settings: Stage, plain: Mapping[str, Any], folder: Path, reader: Any, *, resume: bool) -> Path:
    if not int(os.environ.get("RANK", 0)):
        for place in (folder, folder / "checkpoints"):
            remove_unfinished(place)
    newest = _to_resume(plain, folder, resume)
    if (folder / RECORD).exists():
        logger.warning("%s is finished already", folder)
        return folder
    model, processor = open_start(settings)
    if processor is not None and not settings.trusted_media:
        processor.door = reader
    try:
        trained, adapted = _make_ready(model, settings)
        trainer = build_trainer(settings, model, processor, folder, resume_from=newest)
        if trainer.is_world_process_zero():
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "stage.yaml", yaml.safe_dump(plain, sort_keys=False))
        run_to_end(trainer, newest)
        weights = trainer.trained_weights() if trainer.is_sharded else {}
    finally:
        _release(model)
    if trainer.is_world_process_zero():
        draw_curve(folder / "log.csv", folder / "curve.png", title=folder.name)
        if trainer.is_sharded:  # whole again
            model, processor = open_start(settings)
            trained, adapted = _make_ready(model, settings)
            _release(model)
        if trainer.best is not None:
            weights = checkpoint.read_parameters(trainer.best / checkpoint.TRAINABLE)
        if weights:
            checkpoint.fill_parameters(model, weights, folder, expected=set(trained))
        export(model, processor, trained, trainer, plain, adapted=adapted)
    trainer.accelerator.wait_for_everyone()
    return folder


def build_trainer(
    settings: Stage, model: nn.Module, processor: Any, folder: Path, *, resume_from: Path | None = None
) -> StageTrainer:
    """Puts data, order and log together for a model that is frozen already."""
    args = arguments(settings, folder)
    context = Context(
        model=model, processor=processor, modality=settings.modality, seed=settings.seed, cache=folder / "cache"
    )
    sources = [item.build(context) for item in settings.data]
    store = use_store(settings, model, processor)
    held_out_sources = [item.build(context) for item in settings.held_out.data] if settings.held_out is not None else []
    prepare = Prepare(
        processor,
        modality=settings.modality,
        max_text_tokens=settings.max_text_tokens,
        store=store,
        context=getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None),
    )
    require_ready(_named(sources, held_out_sources), prepare, max_unreadable=settings.max_unreadable)
    collate = Collate(pad_id=getattr(processor, "pad_id", 0))
    processes: dict[str, Any] = {"rank": args.process_index, "world": args.world_size}
    order = Order(
        [len(source) for source in sources],
        [getattr(item, "ratio", 1.0) for item in settings.data],
        num_batches=settings.schedule.num_steps * settings.accumulation,
        batch=settings.batch,
        seed=settings.seed,
        mix=settings.mix,
        outlines=None if settings.group_by == "none" else Outlines(sources),
        **processes,
    )
    order.start = 0 if resume_from is None else checkpoint.step_of(resume_from) * settings.accumulation
    watch = None
    if settings.held_out is not None:
        held_out = Mixture(held_out_sources, prepare)
        fixed: dict[str, Any] = {"batch": settings.batch, "seed": settings.seed, "workers": settings.workers}
        is_sharded = settings.distributed == "fsdp"
        watch = Watch(settings.held_out, held_out, collate, is_sharded=is_sharded, **fixed, **processes)
    log = CsvLog(
        folder / "log.csv",
        start=order.start // settings.accumulation,
        samples_per_step=settings.batch * settings.accumulation * args.world_size,
        name=folder.name,
    )
    if settings.distributed == "fsdp":
        if resume_from is not None:
            trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
            checkpoint.load_parameters(model, trained, resume_from / checkpoint.TRAINABLE)
        shard(model, args.device)
    return StageTrainer(
        settings,
        model,
        Mixture(sources, prepare),
        order,
        collate,
        args=args,
        folder=folder,
        log=log,
        watch=watch,
    )


def _named(sources: Sequence[Any], held_out: Sequence[Any]) -> dict[str, Any]:
    """Datasets by where they stand in the stage."""
    named = {f"data.{index}": source for index, source in enumerate(sources)}
    return named | {f"held_out.data.{index}": source for index, source in enumerate(held_out)}


def export(
    model: Any,
    processor: Any,
    trained: Sequence[str],
    trainer: StageTrainer,
    plain: Mapping[str, Any],
    *,
    adapted: Any = None,
) -> None:
    """Writes the complete model, or the adapter, into the output folder, each file whole, `training.json` last."""
    folder = trainer.folder
    unfinished = folder / f"{UNFINISHED}export"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with disk_faults(folder):
            _fill(unfinished, model, processor, trained, trainer, adapted)
            sync(unfinished)
            for path in sorted(unfinished.iterdir()):
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    record = {
        "stage": dict(plain),
        "base": list(trainer.stage.starts),
        "trained": list(trained),
        "steps": trainer.state.global_step,
        "processes": trainer.args.world_size,
        "samples": trainer.num_read,
        "unreadable": trainer.unreadable,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "accelerate")},
    }
    if trainer.watch is not None:
        record["held_out"] = {
            **trainer.watch.standing.to_dict(),
            "stopped_early": trainer.watch.is_over,
            "unreadable": trainer.watch.num_unreadable,
        }
    write_json(folder / RECORD, record)
    sync_folder(folder)


def _fill(
    folder: Path, model: Any, processor: Any, trained: Sequence[str], trainer: StageTrainer, adapted: Any
) -> None:
    if adapted is None:
        save_system(model, processor, folder)
    else:
        base, *parts = trainer.stage.starts
        # The base is what the adapter names; parts of earlier stages that lie over it go along.
        changed = list(dict.fromkeys([*(name for part in parts for name in trained_in(part)), *trained]))
        save_adapter(adapted, folder, base=base_name(base), trained=full_weights(model, changed))
    parameters = dict(model.named_parameters())
    trained_weights = {name: parameters[name].detach().cpu().contiguous() for name in trained}
    checkpoint.save_weights(trained_weights, folder / checkpoint.TRAINABLE)


def _make_ready(model: nn.Module, settings: Stage) -> tuple[list[str], Any]:
    """Freezes, puts the adapter in, and sets the dtypes: frozen weights as they are stored, trained ones in fp32.

    Returns:
        Names of what is trained, and the adapter or None.
    """
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision: fp16 needs CUDA, there is none here; use bf16 or fp32")
    if settings.precision == "fp32" and settings.quantization is None:
        model.float()
    adapted = None
    if settings.adapter is None:
        trained = freeze(model, settings.trainable)
    else:
        adapted = add_adapter(model, settings.adapter, seed=settings.seed)
        trained = freeze_beside_adapter(model, settings.trainable)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if settings.quantization is not None:
        # So that the loss on held-out data is that of the weights that are trained.
        keep_own_weights(model, repacked_copies=False)
    if settings.gradient_checkpointing:
        recompute_activations(model)
    return trained, adapted


def _release(model: Any) -> None:
    unfreeze(model)
    for branch in model.branches.values():
        branch.modality, branch.stored_end = "own", "prefix"


def _to_resume(plain: Mapping[str, Any], folder: Path, resume: bool) -> Path | None:
    """The newest checkpoint, if the run is to go on from one.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, the run had another stage, or there is a model in it.
    """
    model = next((name for name in ("config.json", ADAPTER) if (folder / name).is_file()), None)
    if model is not None and not (folder / "stage.yaml").is_file():
        raise ConfigError(
            f"output: {folder} holds a model that no stage trained ({model}), it would be written over; "
            f"give another folder (output=...)"
        )
    checkpoints = checkpoint.stored(folder / "checkpoints")
    has_run = bool(checkpoints) or (folder / RECORD).exists()
    if not resume:
        if has_run:
            raise ConfigError(
                f"output: {folder} holds a run already; go on with --resume, or give another folder (output=...)"
            )
        return None
    if has_run and (folder / "stage.yaml").is_file():
        before = dict(_flat(yaml.safe_load((folder / "stage.yaml").read_text(encoding="utf-8"))))
        now = dict(_flat(plain))
        for key in sorted(set(before) | set(now)):
            if key.split(".")[0] not in FREE and before.get(key) != now.get(key):
                raise ConfigError(
                    f"{key}: the run in {folder} was started with {before.get(key)!r}, now it is {now.get(key)!r}; "
                    f"go on with the old value, or give another folder (output=...)"
                )
    return checkpoints[-1] if checkpoints else None


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}.{index}")
    else:
        yield path, value
