"""Everything that takes weights from a user, as one table: its name, and how a test hands it a folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import avllm
from avllm.chat import Assistant
from avllm.checkpoints.load import load_config
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor
from tests.entry_points.commands import command, printed

EXAMPLE = Path(avllm.__file__).parent / "nano" / "examples" / "rocket.mp4"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry point.

    Args:
        name: a Python name, or a command with its argument.
        use: hands it a model folder, and a folder for what it writes; a text that it returns is its complaint, as is an
            AvllmError that it raises.
        takes_whole: it ends by itself with a whole model; otherwise only what is too large is tried.
    """

    name: str
    use: Callable[[Path, Path], object]
    takes_whole: bool = True


def _run(model: Path, folder: Path) -> str:
    row = {"id": 1, "video": str(EXAMPLE), "question": "What moves?", "max_new_tokens": 1}
    (folder / "in.jsonl").write_text(json.dumps(row))
    return command("run", folder / "in.jsonl", folder / "out.jsonl", "--model", model)


def _chat(model: Path, folder: Path) -> str:
    code, told = printed("chat", EXAMPLE, "--model", model, typed="/bye\n")
    return told if code else ""


def _merge(model: Path, folder: Path) -> str:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").symlink_to(model / "config.json")
    (folder / "adapter" / "adapter_model.safetensors").symlink_to(model / "model.safetensors")
    return command("merge", folder / "adapter", "--out", folder / "out")


def _data(action: str) -> Callable[[Path, Path], str]:
    def use(model: Path, folder: Path) -> str:
        turns = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "a star"}]
        (folder / "own.jsonl").write_text(json.dumps({"conversations": turns}))
        page = ("--out", folder / "page.html") if action == "preview" else ()
        return command("data", action, folder / "own.jsonl", "--model", model, *page)

    return use


ENTRIES = (
    Entry(name="avllm.load", use=lambda model, folder: isinstance(avllm.load(model), Assistant)),
    Entry(name="AvllmConfig.from_pretrained", use=lambda model, folder: AvllmConfig.from_pretrained(model)),
    Entry(
        name="AvllmForConditionalGeneration.from_pretrained",
        use=lambda model, folder: AvllmForConditionalGeneration.from_pretrained(model),
    ),
    Entry(name="AvllmProcessor.from_pretrained", use=lambda model, folder: AvllmProcessor.from_pretrained(model)),
    Entry(name="load_config", use=lambda model, folder: load_config(model)),
    Entry(
        name="ask --model",
        use=lambda model, folder: command("ask", EXAMPLE, "What?", "--model", model, "--max-new-tokens", 1),
    ),
    Entry(name="chat --model", use=_chat),
    Entry(name="run --model", use=_run),
    Entry(name="demo --model", use=lambda model, folder: command("demo", "--model", model), takes_whole=False),
    Entry(
        name="nano score --model",
        use=lambda model, folder: command("nano", "score", "--model", model, "--clips", 1),
    ),
    Entry(name="data check --model", use=_data("check")),
    Entry(name="data preview --model", use=_data("preview")),
    Entry(name="merge adapter", use=_merge, takes_whole=False),
    Entry(name="inspect sources", use=lambda model, folder: command("inspect", model)),
    Entry(
        name="convert sources",
        use=lambda model, folder: command("convert", model, "--out", folder / "out"),
        takes_whole=False,
    ),
    Entry(
        name="train stage", use=lambda model, folder: command("train", "nano/own", f"init={model}"), takes_whole=False
    ),
)
