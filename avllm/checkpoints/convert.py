"""Published weights into one model folder: safetensors, configuration, processor, manifest."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avllm.checkpoints import kinds, manifest
from avllm.checkpoints.fresh import fresh_weights
from avllm.checkpoints.hub import fetch, may_be_on_hub
from avllm.checkpoints.kinds import kind_of
from avllm.checkpoints.mapping import Mapped, Part, known, left_out, map_sources, named
from avllm.checkpoints.overlays import add_delta, merge_adapter
from avllm.checkpoints.rename import rename
from avllm.checkpoints.shards import SHARD_BYTES, Planned, write_shards
from avllm.checkpoints.sources import Source, read_json, release
from avllm.checkpoints.tokenizers import open_tokenizer
from avllm.checkpoints.wrapped import open_given
from avllm.durable import disk_faults, written_whole
from avllm.errors import CheckpointError
from avllm.model import AvllmForConditionalGeneration, AvllmProcessor

Progress = Callable[[int, int], None]  # bytes written, bytes in all
SPARE_BYTES = 50_000_000


def convert(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    system: str | None = None,
    overrides: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    decoder: str | Path | None = None,
    start: bool = False,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total: None,
) -> Mapped:
    """Converts; the folder appears whole or not at all.

    Args:
        paths: files and folders of published weights.
        out: the new folder.
        system: a published system, or a YAML that describes the sizes; None to tell by content.
        overrides: `a.b=c` of the system.
        dtype: of the stored floating-point weights; None keeps that of each source.
        decoder: a folder or hub id of the language model, as one more source.
        start: make what a first stage of training starts from: weights of the system's own checkpoint, of which no file
            is given, are drawn anew.
        seed: of these.
        shard_bytes: largest shard.
        progress: called after each tensor.

    Raises:
        CheckpointError: a file is refused, a key is missing, left over or of another shape, a value is not finite, or
            the folder exists; what is wrong is named.
    """
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"--out {out}: exists already; expected a new folder")
    given = open_given([*paths, *([_decoder_folder(decoder)] if decoder is not None else [])])
    sources = combine(given)
    mapped = map_sources(sources, system=system, overrides=overrides, start=start)
    require_whole(mapped, but=mapped.untrained if start else ())
    if start and not mapped.untrained:
        raise CheckpointError("--start: the sources hold the trained parts already, none is drawn; leave it out")
    tokenizer = open_tokenizer(_tokenizer_folder(sources), mapped.system.decoder)
    planned = [plan_weight(part, name, dtype) for part in mapped.parts for name in part.renamed.state]
    planned += _drawn(fresh_weights(mapped, seed=seed), dtype) if start else []
    _require_room(out, planned)
    with written_whole(out) as folder:
        sums = _write_weights(folder, mapped, planned, shard_bytes, progress)
        _write_settings(folder, mapped, planned, tokenizer, _generation(sources))
        facts = manifest.build(mapped, given, sums, folder)
        facts |= {"drawn": {"seed": seed, "tensors": mapped.untrained}} if start else {}
        manifest.write(folder, facts)
    return mapped


def _require_room(out: Path, planned: Sequence[Planned]) -> None:
    with disk_faults(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum(item.nbytes for item in planned) + SPARE_BYTES, shutil.disk_usage(out.parent).free
    if needed > free:
        raise CheckpointError(
            f"--out {out}: needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free; name another"
        )


def convert_with_progress(paths: Sequence[str | Path], out: str | Path, **options: Any) -> str:
    """Converts with a progress bar on standard error; returns a summary. The arguments are those of `convert`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"writing {Path(out).name}", total=None)
        mapped = convert(
            paths, out, progress=lambda done, total: bar.update(task, completed=done, total=total), **options
        )
    lines = [f"wrote {out}: {mapped.family}, {len(mapped.expected)} tensors, prompt {mapped.system.prompt}"]
    lines += told_of_parts(mapped)
    lines += [] if options.get("overrides") else [f"  {note}" for note in mapped.notes]
    if options.get("start"):
        kinds_of = dict.fromkeys(".".join(name.split(".")[:4]) for name in mapped.untrained)
        lines.append(f"  drawn anew: {len(mapped.untrained)} tensors, to be trained: {', '.join(kinds_of)}")
        return "\n".join([*lines, f"try: avllm train STAGE.yaml init={out}"])
    return "\n".join([*lines, f"try: avllm ask CLIP QUESTION --model {out}"])


def told_of_parts(mapped: Mapped) -> list[str]:
    """Lines on the sources and on what is left out of them."""
    lines = []
    for part in mapped.parts:
        lines.append(f"  {part.source.name}: {part.kind.what}; {len(part.renamed.state)} tensors")
        lines += [f"    left out: {count} keys: {reason}" for reason, count in left_out(part).items()]
        lines += [f"    {note}" for note in part.source.notes]
    return lines


def combine(given: Sequence[Source]) -> list[Source]:
    """Deltas added to their bases and adapters to theirs; other sources as they are.

    Raises:
        CheckpointError: a delta or an adapter without its base, or weights that are differences.
    """
    sources = [(source, kind_of(source)) for source in given]
    names = [kind.name if kind else "" for _, kind in sources]
    adapters = [source for source, name in zip(given, names, strict=True) if name == "adapter"]
    trained = [source for source, name in zip(given, names, strict=True) if name == "trained_parts"]
    decoders = [source for source, name in zip(given, names, strict=True) if name == "decoder"]
    rest = [s for s, n in zip(given, names, strict=True) if n not in ("adapter", "trained_parts", "decoder")]
    for source, name in zip(given, names, strict=True):
        if name in kinds.WHOLE and kinds.is_delta(kinds.norms_of(source)):
            raise CheckpointError(f"{source.path}: its language model holds differences to another one, not weights")
    decoders = [_with_base(decoders)] if decoders else []
    if not adapters and not trained:
        return [*rest, *decoders]
    wholes = [source for source in rest if (kind := kind_of(source)) is not None and kind.name in kinds.WHOLE]
    bases = wholes or decoders
    if len(adapters) != 1 or len(trained) > 1 or len(bases) != 1:
        raise CheckpointError(
            f"got {len(adapters)} adapters, {len(trained)} files of parts trained beside one (non_lora_trainables.bin) "
            f"and {len(bases)} base models; expected one adapter and the model it was trained on (also as --decoder)"
        )
    merged = merge_adapter(adapters[0], bases[0], trained[0] if trained else None)
    return [merged if source is bases[0] else source for source in [*rest, *decoders]]


def require_whole(mapped: Mapped, *, but: Collection[str] = ()) -> None:
    """Raises CheckpointError when a key is missing, left over or of another shape, or a whole file is not there.

    Args:
        mapped: the sources.
        but: our weights that need no file.
    """
    faults = mapped.faults
    if faults and mapped.without_config is not None:
        raise CheckpointError(f"{mapped.without_config} ({len(faults)} weights do not fit)")
    if faults:
        sources = ", ".join(part.source.name for part in mapped.parts)
        raise CheckpointError(f"{sources}: {len(faults)} weights do not fit: {named(faults)}")
    absent = mapped.missing_files(but)
    if absent:
        needed = "; ".join(f"{file} ({count} weights)" for file, count in absent.items())
        raise CheckpointError(f"{mapped.family}: missing {needed}; give the files beside the others")


def _with_base(decoders: list[Source]) -> Source:
    deltas = [source for source in decoders if kinds.is_delta(kinds.norms_of(source))]
    bases = [source for source in decoders if source not in deltas]
    if len(decoders) == 2 and len(deltas) == 1:
        return add_delta(deltas[0], bases[0])
    if deltas:
        raise CheckpointError(
            f"{deltas[0].path}: holds the differences to another language model (a delta, as Vicuna v0 and v1.1 are "
            f"published), not weights; give the folder of the model it was made from, LLaMA, as one more source"
        )
    if len(decoders) > 1:
        raise CheckpointError(f"two language models, {' and '.join(str(s.path) for s in decoders)}; leave one out")
    return decoders[0]


def plan_weight(part: Part, name: str, dtype: torch.dtype | None) -> Planned:
    """One weight of ours as it will be read, converted and stored.

    Args:
        part: its source.
        name: ours.
        dtype: as stored, if it holds floating-point values; None keeps that of the source.
    """
    meta, origin = part.renamed.state[name], part.renamed.origin[name]
    tensors = part.source.tensors
    lazy = {key: tensors[key] for key in origin}
    assert part.table is not None
    table, source = part.table, part.source.name

    def make() -> Tensor:
        return rename({key: tensor.read() for key, tensor in lazy.items()}, table, source=source).state[name]

    stored = dtype if dtype is not None and meta.is_floating_point() else meta.dtype
    return Planned(
        name=name, shape=tuple(meta.shape), dtype=stored, make=make, origin=f"{source}: {' + '.join(origin)}"
    )


def _drawn(weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> list[Planned]:
    return [
        Planned(
            name=name, shape=tuple(w.shape), dtype=dtype or w.dtype, make=partial(Tensor.clone, w), origin="drawn anew"
        )
        for name, w in weights.items()
    ]


def _write_weights(
    folder: Path, mapped: Mapped, planned: Sequence[Planned], shard_bytes: int, progress: Progress
) -> dict[str, str]:
    total, done = sum(item.nbytes for item in planned), 0
    last = {list(part.renamed.state)[-1]: part.source for part in mapped.parts if part.renamed.state}

    def wrote(item: Planned) -> None:
        nonlocal done
        done += item.nbytes
        if item.name in last:
            release([last[item.name]])
        progress(done, total)

    return write_shards(folder, planned, shard_bytes=shard_bytes, wrote=wrote)


def _write_settings(
    folder: Path, mapped: Mapped, planned: Sequence[Planned], tokenizer: Any, generation: dict[str, Any]
) -> None:
    config, sizes = mapped.config, dict[torch.dtype, int]()
    for item in planned:
        if item.dtype.is_floating_point:
            sizes[item.dtype] = sizes.get(item.dtype, 0) + item.nbytes
    config.dtype = max(sizes, key=lambda dtype: sizes[dtype])
    config.architectures = [AvllmForConditionalGeneration.__name__]
    with torch.device("meta"):
        settings = AvllmForConditionalGeneration(config).generation_config
    if settings is not None:
        settings.update(**generation)
        settings.save_pretrained(folder)
    try:
        AvllmProcessor.from_config(config, tokenizer).save_pretrained(folder)
        config.save_pretrained(folder)
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON may hold and no file in UTF-8
        raise CheckpointError(f"the tokenizer's settings hold a text that no file can: {error}") from error


def _generation(sources: Sequence[Source]) -> dict[str, Any]:
    """Where answers end, as published beside the language model; how to sample is left to the user."""
    for source in sources:
        path = source.path / "generation_config.json"
        if source.path.is_dir() and path.is_file():
            data = read_json(path)
            return {key: data[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in data}
    return {}


def _tokenizer_folder(sources: Sequence[Source]) -> Path:
    """That of the checkpoint, else that of the language model."""
    have = [(source, known(source).name) for source in sources if source.tokenizer is not None]
    main = [source for source, name in have if name in kinds.WHOLE] + [s for s, name in have if name == "decoder"]
    if not main:
        raise CheckpointError(
            "no tokenizer among the sources; expected tokenizer.json, tokenizer.model or vocab.json in the folder "
            "of the language model"
        )
    assert main[0].tokenizer is not None
    return main[0].tokenizer


def _decoder_folder(name: str | Path) -> Path:
    if Path(name).exists() or not may_be_on_hub(str(name)):
        return Path(name)
    return fetch(str(name), what="--decoder", pickled=True)
