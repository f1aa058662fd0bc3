"""Weights: published pickles and folders, converted and saved models, adapters; one file of each damaged at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.fuzz.case import Case, Good
from tests.fuzz.mutate import Form

LAYOUTS = ("video_llama", "videochat", "videollama2_qwen2_siglip", "videollama2_av", "lora", "delta")
FORMS: dict[str, Form] = {".safetensors": "safetensors", ".json": "json", ".yaml": "yaml"}


def corpus(folder: Path) -> list[Good]:
    """A few published layouts of tiny models, one of them converted, a saved model, an adapter of nano."""
    import torch

    from avllm.checkpoints.convert import convert
    from tests.checkpoints.published import LAYOUTS as MAKERS
    from tests.training.media_system import save_media_system

    torch.manual_seed(0)
    goods: list[Good] = []
    for name in LAYOUTS:
        root = folder / name
        root.mkdir(parents=True)
        layout = MAKERS[name](root)
        options = {key: str(Path(value).relative_to(root)) for key, value in layout.options.items()}
        sources = [str(path.relative_to(root)) for path in layout.sources]
        goods += _damageable(name, root, of="published", sources=sources, options=options)
        if name == "videollama2_qwen2_siglip":
            convert(layout.sources, folder / "converted", **layout.options)
    goods += _damageable("converted", folder / "converted", of="model", sources=["."])
    goods += _damageable("saved", save_media_system(folder / "saved"), of="model", sources=["."])
    return goods + _damageable("adapter", _adapter(folder / "adapter"), of="adapter", sources=["."])


def _damageable(name: str, root: Path, **more: object) -> list[Good]:
    """Each file of a folder in turn is the one that is damaged."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        Good(
            name=f"{name}_{path.name}",
            folder=root,
            file=str(path.relative_to(root)),
            form=FORMS.get(path.suffix, "binary"),
            more=more,
        )
        for path in files
        if path.suffix != ".md"
    ]


def _adapter(folder: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    from avllm.checkpoints import adapters
    from avllm.checkpoints.load import load_model

    model, _ = load_model("nano")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r"decoder\.model\.layers\.0\.self_attn\.q_proj"))
    trained = {"branches.video.connector.projection.bias": torch.full((128,), 0.25)}
    return adapters.save_adapter(adapted, folder, base="nano", trained=trained)


def calls(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Readers of that kind of folder; those that build a model only now and then."""
    from avllm.checkpoints.convert import convert
    from avllm.checkpoints.inspect import inspect
    from avllm.checkpoints.load import load_config, load_model, merge_adapter

    rng = case.random()
    paths = [case.folder / name for name in case.more["sources"]]
    yield "open", partial(_read_all, case.path.parent if case.path.suffix == ".json" else case.path)
    yield "inspect", partial(_inspected, inspect, paths)
    builds = case.number < 0 or rng.random() < 0.4
    if case.more["of"] == "published" and builds:
        options = {name: case.folder / value for name, value in case.more["options"].items()}
        yield "convert", partial(convert, paths, case.folder / "out", **options)
    if case.more["of"] == "model":
        yield "config", partial(load_config, case.folder)
        if builds:
            yield "load", partial(load_model, case.folder)
    if case.more["of"] == "adapter" and builds:
        yield "load", partial(load_model, case.folder)
        yield "merge", partial(merge_adapter, case.folder, case.folder / "out")


def _read_all(path: Path) -> None:
    """Every tensor of every file."""
    from avllm.checkpoints.sources import open_sources, read_json

    if path.suffix == ".json":
        read_json(path)
        return
    for source in open_sources(path):
        for tensor in source.tensors.values():
            tensor.read()


def _inspected(inspect: Callable, paths: list[Path]) -> None:
    report = inspect(paths)
    report.to_table()
    report.to_dict()
