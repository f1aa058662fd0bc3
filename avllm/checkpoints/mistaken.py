"""What lies where weights were expected, in words: pointers, web pages, pieces of a training, broken downloads."""

import re
from collections.abc import Iterator
from pathlib import Path

AGAIN = "download it again"
LFS = b"version https://git-lfs"
# Of DeepSpeed's ZeRO and of FSDP: each holds the share of one process, with the state of its optimizer.
STATE_FOLDER = re.compile(r"(global_step\d+|(pytorch_model|optimizer)(_fsdp)?_\d+|__\d+_\d+)")
STATE_FILE = re.compile(r".*(_optim_states|_model_states)\.pt|.*\.distcp")
UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".download", ".tmp")
OTHER_FORMATS = (".gguf", ".ggml", ".onnx", ".h5", ".msgpack", ".tflite", ".engine", ".mlmodel", ".npz")
TRAINING = ("trainer_state.json", "optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin", "rng_state.pth")


def what_file(head: bytes, size: int) -> str | None:
    """What a file that holds no weights is, and what to do; None when its first bytes do not tell.

    Args:
        head: its first bytes, some hundred.
        size: of the file.
    """
    if size == 0:
        return f"is empty (0 bytes): its download or its copy broke off; {AGAIN}"
    if head.startswith(LFS):
        return (
            "is a Git LFS pointer, what it points at was not downloaded; run in its folder: git lfs pull "
            "(or get it with: hf download)"
        )
    if not head.strip(b"\0"):
        return f"begins with nothing but zeros: a download that was not finished; {AGAIN}"
    text = _text(head)
    if text is None:
        return None
    if re.match(r"\s*<(!doctype html|html|head|\?xml)", text, re.IGNORECASE):
        return f"is a web page: the answer of a server (login, licence, error) was saved in its place; {AGAIN}"
    return f"is text, which begins with {' '.join(text.split())[:60]!r}; {AGAIN}"


def what_folder(folder: Path) -> str:
    """Why nothing in a folder without weights is weights, and what to do."""
    names = sorted(str(path.relative_to(folder)) for path in _nearby(folder))
    state = [name for name in names if is_state(Path(name))]
    if any(name.endswith(".distcp") for name in state):
        return (
            f"holds weights in the shares of FSDP ({state[0]}), which are not read; join them first: "
            f"accelerate merge-weights {folder} OUT, then convert OUT"
        )
    if state:
        folder = folder.parent if STATE_FOLDER.fullmatch(folder.name) else folder
        return (
            f"holds weights in the shares of DeepSpeed's ZeRO ({state[0]}), which are not read; join them first: "
            f"python {folder}/zero_to_fp32.py {folder} OUT, then convert OUT with the config.json of the model"
        )
    broken = next((name for name in names if name.endswith(UNFINISHED)), None)
    if broken is not None:
        return f"holds no weights, but {broken}, a download that was not finished; {AGAIN}"
    training = [name for name in names if Path(name).name.startswith(tuple(n.partition(".")[0] for n in TRAINING))]
    if training:
        return (
            f"holds the state of a training ({', '.join(training[:3])}) and no weights; they lie in another checkpoint "
            f"or in the folder above"
        )
    other = next((name for name in names if name.endswith(OTHER_FORMATS)), None)
    if other is not None:
        return f"holds {other}, a format that is not read; expected .safetensors, .bin, .pth or .pt"
    beside = f", only {', '.join(names[:4])}" if names else ""
    return f"holds no weights (.safetensors, .bin, .pth, .pt){beside}; download them into it"


def is_state(path: Path) -> bool:
    """Whether a file or folder is a share of a training's state, beside which whole weights may lie."""
    return any(STATE_FOLDER.fullmatch(part) for part in path.parts) or STATE_FILE.fullmatch(path.name) is not None


def _text(head: bytes) -> str | None:
    if b"\0" in head:
        return None
    text = head.decode("utf-8", errors="ignore")  # the last sign may be cut
    whole = len(text.encode()) >= len(head) - 3
    return text if whole and all(sign.isprintable() or sign.isspace() for sign in text) else None


def _nearby(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        yield path
        if path.is_dir():
            yield from path.iterdir()
