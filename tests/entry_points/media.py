"""Everything that takes a medium from a user, as one table: its name, and how a test hands it a file."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import avllm
from avllm import media
from avllm.chat import Request
from avllm.media.isolated import IsolatedMedia
from tests.entry_points.commands import command, printed

Kind = Literal["video", "image", "audio"]
QUESTION = "What moves?"
KINDS: dict[str, Kind] = {".mp4": "video", ".png": "image", ".wav": "audio"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry point.

    Args:
        name: a Python name, or a command with its argument.
        use: hands it a medium and a folder for what it writes; a text that it returns is its complaint, as is an
            AvllmError that it raises.
        kinds: of media that it takes.
        decodes: it looks into the file.
    """

    name: str
    use: Callable[[Path, Path], object]
    kinds: tuple[Kind, ...] = ("video", "image", "audio")
    decodes: bool = True


def _given(medium: Path) -> dict[str, Any]:
    return {KINDS[medium.suffix]: medium}


def _isolated(name: str) -> Callable[[Path, Path], object]:
    def use(medium: Path, folder: Path) -> None:
        with IsolatedMedia(num_workers=1) as isolated:
            getattr(isolated, name)(medium)

    return use


def _processor_template(medium: Path, folder: Path) -> None:
    kind = KINDS[medium.suffix]
    content = [{"type": kind, kind: str(medium)}, {"type": "text", "text": QUESTION}]
    avllm.load("nano").processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True)


def _processor_read(medium: Path, folder: Path) -> None:
    avllm.load("nano").processor.read(medium, KINDS[medium.suffix])


def _session_ask(medium: Path, folder: Path) -> None:
    avllm.load("nano").chat().ask(QUESTION, **_given(medium), max_new_tokens=1)


def _session_stream(medium: Path, folder: Path) -> None:
    list(avllm.load("nano").chat().stream(QUESTION, **_given(medium), max_new_tokens=1))


def _answers(medium: Path, folder: Path) -> None:
    avllm.load("nano").answers([Request(question=QUESTION, **_given(medium))], max_new_tokens=1)


def _ask(medium: Path, folder: Path) -> str:
    return command("ask", medium, QUESTION, "--max-new-tokens", 1)


def _chat(medium: Path, folder: Path) -> str:
    code, told = printed("chat", medium, "--max-new-tokens", 1, typed=f"{QUESTION}\n")
    return told if code or "Limits." in told else ""


def _run(medium: Path, folder: Path) -> object:
    row = {"id": 1, KINDS[medium.suffix]: medium.name, "question": QUESTION, "max_new_tokens": 1}
    (folder / "in.jsonl").write_text(json.dumps(row))
    told = command("run", folder / "in.jsonl", folder / "out.jsonl", "--media-root", medium.parent)
    return told or json.loads((folder / "out.jsonl").read_text()).get("error")


def _entries(medium: Path, folder: Path) -> Path:
    """Data of a user: one conversation about the medium."""
    kind = KINDS[medium.suffix]
    turns = [{"from": "human", "value": f"<{kind}>\n{QUESTION}"}, {"from": "gpt", "value": "a star"}]
    path = folder / "own.jsonl"
    path.write_text(json.dumps({kind: medium.name, "conversations": turns}))
    return path


def _check(medium: Path, folder: Path) -> str:
    return command("data", "check", _entries(medium, folder), "--media-root", medium.parent)


def _preview(medium: Path, folder: Path) -> str:
    page = folder / "page.html"
    told = command("data", "preview", _entries(medium, folder), "--media-root", medium.parent, "--out", page)
    return told or " ".join(re.findall(r"raise Limits\.\w+", page.read_text()))


def _stage(medium: Path, folder: Path) -> list[str]:
    return [
        "nano/own.yaml",
        f"output={folder / 'out'}",
        f"data.0.annotations={_entries(medium, folder)}",
        f"data.0.root={medium.parent}",
        "data.0.sound=none",
        "schedule.steps_per_epoch=1",
        "schedule.warmup_steps=0",
        "batch=1",
        "checkpoints.every=1",
    ]


def _train(medium: Path, folder: Path) -> str:
    return command("train", *_stage(medium, folder))


def _features(medium: Path, folder: Path) -> str:
    return command("features", *_stage(medium, folder), "--out", folder / "features", "--workers", 1)


def _eval(medium: Path, folder: Path) -> object:
    kind = KINDS[medium.suffix]
    (folder / "questions.json").write_text(json.dumps([{"file": medium.name, "q": QUESTION, "a": "a star"}]))
    (folder / medium.name).symlink_to(medium)
    (folder / "benchmark.yaml").write_text(
        f"name: one\ndata: {{kind: rows, folder: {folder}, file: questions.json, media: {{{kind}: '{{file}}'}}, "
        f"question: q, answers: a}}\nscore: {{kind: accepted}}\nmax_new_tokens: 1\n"
    )
    told = command("eval", folder / "benchmark.yaml", f"out={folder / 'out'}")
    rows = map(json.loads, (folder / "out" / "log.jsonl").read_text().splitlines())
    return told or next((row["error"] for row in rows if "error" in row), None)


def _media(name: str) -> Callable[[Path, Path], object]:
    return lambda medium, folder: getattr(media, name)(medium)


ENTRIES = (
    Entry(name="avllm.media.resolve", use=_media("resolve"), decodes=False),
    Entry(name="avllm.media.probe", use=_media("probe"), kinds=("video", "image")),
    Entry(name="avllm.media.open_video", use=_media("open_video"), kinds=("video", "image")),
    Entry(name="avllm.media.open_image", use=_media("open_image"), kinds=("image",)),
    Entry(name="avllm.media.open_audio", use=_media("open_audio"), kinds=("audio",)),
    Entry(name="IsolatedMedia.probe", use=_isolated("probe"), kinds=("video", "image")),
    Entry(name="IsolatedMedia.open_video", use=_isolated("open_video"), kinds=("video",)),
    Entry(name="IsolatedMedia.open_image", use=_isolated("open_image"), kinds=("image",)),
    Entry(name="IsolatedMedia.open_audio", use=_isolated("open_audio"), kinds=("audio",)),
    Entry(name="AvllmProcessor.read", use=_processor_read),
    Entry(name="AvllmProcessor.apply_chat_template", use=_processor_template),
    Entry(name="Session.ask", use=_session_ask),
    Entry(name="Session.stream", use=_session_stream, kinds=("video",)),
    Entry(name="Assistant.answers", use=_answers, kinds=("video",)),
    Entry(name="ask media", use=_ask),
    Entry(name="chat media", use=_chat),
    Entry(name="probe file", use=lambda medium, folder: command("probe", medium), kinds=("video", "image")),
    Entry(name="run source", use=_run),
    Entry(name="data check file", use=_check, kinds=("video", "image")),
    Entry(name="data preview file", use=_preview, kinds=("video", "image")),
    Entry(name="train stage", use=_train, kinds=("video",)),
    Entry(name="features stage", use=_features, kinds=("video",)),
    Entry(name="eval benchmark", use=_eval, kinds=("video", "image")),
)
