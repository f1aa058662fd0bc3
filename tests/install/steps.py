"""What a fresh installation must do, as a user would: fourteen steps, each with a check of what came out of it."""

import csv
import json
import math
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 600
# Warnings that our own calls cause: those that name our files, and what transformers says of a call of its models,
# which arrives through a module of torch. What libraries warn of among themselves is theirs.
_WARNS = re.compile(r"^(.*?):\d+: (\w*(?:Deprecation|Future)Warning): (.*)$", re.MULTILINE)
_OURS = re.compile(r"[/\\]avllm[/\\]|[/\\]torch[/\\]nn[/\\]modules[/\\]module\.py")
_LOGGED = re.compile(r"^.*\b(?:is|are) deprecated\b.*$", re.MULTILINE)


class Failed(Exception):
    """A step did not do what it must; the message says what came instead."""


@dataclass
class Installation:
    """An environment in which the wheel lies, and a folder for its work.

    Args:
        bin: where the programs of the environment are.
        folder: of the work, outside the repository.
        clips: the sampled clips, one truth for each.
    """

    bin: Path
    folder: Path
    clips: list[dict] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the repository on the path, no network, and every warning shown."""
        out = ("PYTHON", "AVLLM", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(out)}
        shown = {"PYTHONWARNINGS": "default", "PYTHONNOUSERSITE": "1", "TRANSFORMERS_VERBOSITY": "warning"}
        path = f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}"
        return kept | shown | {"PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def python(self, code: str) -> str:
        """What a piece of Python prints."""
        return self.run([str(self.bin / "python"), "-c", code])

    def avllm(self, *arguments: str | Path) -> str:
        """What a command prints."""
        return self.run([str(self.bin / "avllm"), *map(str, arguments)])

    def run(self, command: list[str]) -> str:
        """Standard output; fails on an exit code, a traceback, and warnings that our calls cause."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise Failed(f"exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        require_clean(done.stdout + done.stderr)
        return done.stdout


def require_clean(text: str) -> None:
    """Fails on a traceback, and on a warning that a call of ours is deprecated."""
    if "Traceback (most recent call last)" in text:
        raise Failed(f"a traceback: {text}")
    for place, kind, message in _WARNS.findall(text):
        if _OURS.search(place):
            raise Failed(f"{kind} at {place}: {message}")
    lines = [line for line in _LOGGED.findall(text) if not _WARNS.match(line)]
    if lines:
        raise Failed(f"a warning: {lines[0]}")


def expect(condition: object, what: str) -> None:
    """Fails with what came instead."""
    if not condition:
        raise Failed(what)


def truth(clip: dict, kind: str) -> str:
    """The answer that the world of nano knows to one kind of question."""
    return next(row["answer"] for row in clip["questions"] if row["type"] == kind)


def seen_and_heard(clip: dict, answer: str) -> None:
    """An answer names what the clip shows, how it moves, and what it sounds like."""
    for kind in ("caption", "hearing"):
        expect(truth(clip, kind) in answer, f"expected {truth(clip, kind)!r} in the answer, got {answer!r}")


def sample(at: Installation) -> str:
    at.avllm("nano", "sample", "clips", "--clips", "6", "--seed", "3")
    lines = (at.folder / "clips" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    at.clips = [json.loads(line) for line in lines]
    expect(len(at.clips) == 6, f"expected 6 lines of truth, got {len(at.clips)}")
    absent = [row["file"] for row in at.clips if not (at.folder / "clips" / row["file"]).stat().st_size]
    expect(not absent, f"empty clips: {absent}")
    return f"{len(at.clips)} clips"


def ask(at: Installation) -> str:
    answer = at.avllm("ask", clip_of(at), "What do you see and hear?").strip()
    seen_and_heard(at.clips[0], answer)
    return answer


def ask_json(at: Installation) -> str:
    row = json.loads(at.avllm("ask", clip_of(at), "What moves?", "--json"))
    thing = truth(at.clips[0], "thing").split()[-1]
    expect(thing in row["answer"], f"expected {thing!r} in the answer, got {row}")
    expect(row["question"] == "What moves?", f"another question: {row}")
    return row["answer"]


def plan(at: Installation) -> str:
    size = json.loads(at.avllm("plan", "video_llama_7b", "--json"))["total"] / 2**30
    expect(13 < size < 20, f"expected the memory of a 7B model in bf16, got {size:.1f} GiB")
    return f"{size:.1f} GiB"


def inspect(at: Installation) -> str:
    weights = at.python("import avllm.config; print(avllm.config.PACKAGE / 'nano' / 'weights')").strip()
    expect(Path(weights).is_dir(), f"the wheel brought no weights: {weights}")
    found = json.loads(at.avllm("inspect", weights, "--json"))
    expect(found["ok"] and found["complete"], f"the shipped weights are not whole: {found}")
    return f"{found['parts'][0]['fills']} weights"


def evaluate(at: Installation) -> str:
    at.avllm("eval", "nano", "limit=6", "out=ev")
    report = json.loads((at.folder / "ev" / "report.json").read_text(encoding="utf-8"))
    overall = report["overall"]
    expect(overall["n"] == 6 and overall["mean"] >= 0.5, f"expected most of 6 answers to be right, got {overall}")
    return f"{overall['mean']:.0%} of {overall['n']} right"


def data_check(at: Installation) -> str:
    entries = []
    for row in at.clips:
        turns = [{"from": "human", "value": "<video>\nwho wins?"}, {"from": "gpt", "value": winner(row)}]
        entries.append(json.dumps({"video": row["file"], "conversations": turns}))
    (at.folder / "clips" / "my.jsonl").write_text("\n".join(entries) + "\n", encoding="utf-8")
    report = json.loads(at.avllm("data", "check", "clips/my.jsonl", "--sound", "auto", "--json"))
    expect(report["ok"] and report["good"] == 6 == report["media"]["audio"], f"expected 6 good entries, got {report}")
    return f"{report['good']} entries"


def train(at: Installation) -> str:
    steps = ("schedule.steps_per_epoch=5", "schedule.warmup_steps=1", "checkpoints.every=5", "logging.every=1")
    at.avllm("train", "nano/own", "output=own", *steps)
    with (at.folder / "own" / "log.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    expect(len(losses) == 5 and all(map(math.isfinite, losses)), f"expected 5 losses, got {losses}")
    expect((at.folder / "own" / "adapter_config.json").is_file(), "no adapter was written")
    return f"loss {losses[0]:.2f} to {losses[-1]:.2f}"


def ask_adapter(at: Installation) -> str:
    answer = at.avllm("ask", clip_of(at), "who wins?", "--model", "own").strip()
    expect(answer, "an empty answer")
    return answer


def merge(at: Installation) -> str:
    at.avllm("merge", "own", "--out", "own-merged")
    found = sorted(path.name for path in (at.folder / "own-merged").iterdir())
    expect("config.json" in found and any(name.endswith(".safetensors") for name in found), f"merged into {found}")
    one, other = (at.avllm("ask", clip_of(at), "who wins?", "--model", name) for name in ("own", "own-merged"))
    expect(one == other, f"with the adapter {one!r}, merged {other!r}")
    return "answers as the adapter does"


def features(at: Installation) -> str:
    at.avllm("features", "nano/own", "--out", "feats")
    files = [path for path in (at.folder / "feats").rglob("*") if path.is_file() and path.stat().st_size]
    expect(files, "an empty store")
    return f"{len(files)} files"


def python(at: Installation) -> str:
    code = (
        "import avllm, json; chat = avllm.load('nano').chat(); "
        f"first = chat.ask('What do you see and hear?', video={clip_of(at)!r}); "
        "print(json.dumps([str(first), list(chat.stream('What do you hear?'))]))"
    )
    answer, pieces = json.loads(at.python(code).splitlines()[-1])
    seen_and_heard(at.clips[0], answer)
    heard, said = truth(at.clips[0], "hearing").split()[-1], "".join(pieces)
    expect(heard in said, f"expected {heard!r} in what was streamed, got {said!r}")
    return f"{said} in {len(pieces)} pieces"


def demo(at: Installation) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = at.folder / "demo.log"
    with log.open("wb") as out:
        command = [str(at.bin / "avllm"), "demo", "--port", str(port)]
        running = subprocess.Popen(command, cwd=at.folder, env=at.environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            page = _page(port, running, log)
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                code = running.wait(60)
            except subprocess.TimeoutExpired:
                running.kill()
                raise Failed("did not end when it was told to") from None
    text = log.read_text(encoding="utf-8")
    expect(code == 0, f"exit code {code} at the end: {text}")
    expect("gradio" in page.lower() and len(page) > 1000, f"no page of Gradio: {page[:200]}")
    expect("avllm demo: ended" in text, f"no word of its end: {text}")
    require_clean(text)
    return f"a page of {len(page)} bytes"


def _page(port: int, running: subprocess.Popen, log: Path) -> str:
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        if running.poll() is not None:
            raise Failed(f"ended with code {running.returncode}: {log.read_text(encoding='utf-8')}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.5)
    raise Failed(f"no answer from port {port}")


def run(at: Installation) -> str:
    rows = [{"id": n, "video": row["file"], "question": "What do you see and hear?"} for n, row in enumerate(at.clips)]
    (at.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    at.avllm("run", "asked.jsonl", "ans.jsonl", "--media-root", "clips")
    lines = (at.folder / "ans.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {row["id"]: row for row in map(json.loads, lines)}
    expect(set(answers) == {0, 1} and "answer" in answers[0], f"expected two answers, got {answers}")
    seen_and_heard(at.clips[0], answers[0]["answer"])
    return f"{len(answers)} rows"


def clip_of(at: Installation) -> str:
    """The first clip, by its path from the folder of the work."""
    return f"clips/{at.clips[0]['file']}"


def winner(row: dict) -> str:
    """An answer that no model knows before it is trained."""
    things = row["scene"]["things"]
    return f"the {things[0]['colour']} thing" if things else "nothing"


STEPS: dict[str, Callable[[Installation], str]] = {
    "sample": sample,
    "ask": ask,
    "ask --json": ask_json,
    "plan": plan,
    "inspect": inspect,
    "eval": evaluate,
    "data check": data_check,
    "train": train,
    "ask adapter": ask_adapter,
    "merge": merge,
    "features": features,
    "Python": python,
    "demo": demo,
    "run": run,
}
# Without these, the others cannot be run.
NEEDED = ("sample", "data check", "train")
