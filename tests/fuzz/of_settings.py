"""YAML: every system, stage, benchmark and demo that ships, and overrides of them."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from avllm.config import load, read_yaml
from tests.fuzz.case import Case, Good, good_file

ROOT = Path(__file__).parents[2]
OVERRIDES = ("x=1", "data.0.kind=x", "a.b.c=[", "=1", "data.0=null", "data=3", "branches.video.media.size=-1", "model=",
             "schedule.lr=nan", "batch=1e400", "data.99.kind=x", "media.frames=[1]", "a.=1", ".a=1",
             "output=\0")  # fmt: skip


def corpus(folder: Path) -> list[Good]:
    """All YAMLs of the repository."""
    goods = []
    for kind in ("configs", "train_configs", "eval_configs"):
        for path in sorted((ROOT / kind).rglob("*.yaml")):
            name = f"{kind}_{path.parent.name}_{path.stem}.yaml"
            is_demo = kind == "eval_configs" and "page" in read_yaml(path)
            goods.append(good_file(folder, name, path.read_bytes(), "yaml", of="demo" if is_demo else kind))
    return goods


def calls(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """The reader of that kind of YAML, with and without overrides."""
    rng, readers = case.random(), _readers()
    name, read = readers[case.more["of"]]
    overrides = rng.sample(OVERRIDES, 2) if case.number >= 0 and rng.random() < 0.3 else []
    yield name, lambda: read(case.path, overrides)
    if case.more["of"] == "configs" and ("nano" in case.name or rng.random() < 0.1):
        yield "config", lambda: _config(case.path)
    if case.more["of"] == "configs" and "nano" in case.name and rng.random() < 0.5:
        yield "plan", lambda: _plan(case.path)


@cache
def _readers() -> dict[str, tuple[str, Callable[[Path, list[str]], Any]]]:
    from avllm.data import DATASETS
    from avllm.demo.config import DemoConfig
    from avllm.evaluation.benchmark import read_benchmark
    from avllm.model.configuration import System
    from avllm.nano.benchmark import READERS
    from avllm.nano.data import DATASETS as DRAWN
    from avllm.training.stage import read_stage

    kinds = {**DATASETS, **DRAWN}
    return {
        "configs": ("system", lambda path, overrides: System.from_yaml(path, tuple(overrides))),
        "train_configs": ("stage", lambda path, overrides: read_stage(path, overrides, datasets=kinds)),
        "eval_configs": ("benchmark", lambda path, overrides: read_benchmark(path, overrides, READERS)),
        "demo": ("demo", lambda path, overrides: load(DemoConfig, path, overrides)),
    }


def _config(path: Path) -> object:
    """The configuration as it is stored and read again."""
    from avllm.model.configuration import AvllmConfig

    config = AvllmConfig.from_yaml(path)
    return config.parsed(), json.dumps(config.to_dict(), default=str)


def _plan(path: Path) -> object:
    from avllm.checkpoints.load import find_config
    from avllm.model.plan import Workload, plan

    return plan(find_config(path), Workload()).to_table()
