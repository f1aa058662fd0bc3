"""Saves over a folder again and again, each time killed one step later; prints what was left. Run by tests."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from avllm.checkpoints import adapters
from avllm.checkpoints.load import load_model
from avllm.checkpoints.save import save_model
from avllm.durable import whole
from tests.training.media_system import save_media_system

# Steps that change what is on the disk, of which Python tells before they are taken.
STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "open", "shutil.rmtree")


def kill_at(step: int, root: Path) -> None:
    """Ends this process, as kill -9 does, when the step of this number begins."""
    taken = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal taken
        if (
            event in STEPS
            and args
            and str(root) in os.fsdecode(args[0] if isinstance(args[0], str | bytes) else str(args[0]))
        ):
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)
            taken += 1

    sys.addaudithook(hook)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def writer(what: str, root: Path) -> Callable[[Path, int], None]:
    """What saves version 0 or 1 of a model or an adapter into a folder."""
    save_media_system(root / "base")
    model, processor = load_model(root / "base")
    changed = model.state_dict()["decoder.model.norm.weight"]
    if what == "model":

        def save(folder: Path, version: int) -> None:
            changed.fill_(version)
            save_model(model, processor, folder)

        return save
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r"decoder\..*q_proj"))

    def write(folder: Path, version: int) -> None:
        trained = {"decoder.model.norm.weight": torch.full_like(changed, version)}
        adapters.save_adapter(adapted, folder, base=root / "base", trained=trained)

    return write


def main(what: str, root: Path) -> None:
    """Prints `old` or `new` for each step."""
    save = writer(what, root)
    where = root / "disk"
    target, states = where / "model", []
    for version in (1, 0):
        save(target, version)
        shutil.copytree(target, root / str(version))
    known = {"old": content(root / "0"), "new": content(root / "1")}
    shutil.copytree(target, where / "other")
    if not whole._exchange(where / "other", target):
        print(json.dumps("cannot swap"))
        return
    while True:
        shutil.rmtree(where)
        shutil.copytree(root / "0", target)
        child = os.fork()
        if child == 0:
            kill_at(len(states), where)
            save(target, 1)
            os._exit(0)
        killed = os.waitpid(child, 0)[1] != 0
        found = content(target) if target.is_dir() else {}
        states.append(next((name for name, files in known.items() if files == found), f"neither: {sorted(found)}"))
        if not killed:
            break
    print(json.dumps(states))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
