"""The only place that fetches from the Hugging Face hub; it says so, and fetches weights and settings, never code."""

import logging
import re
from functools import cache
from pathlib import Path

from avllm.config import nearest
from avllm.errors import CheckpointError

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SETTINGS = ("*.json", "*.model", "*.txt", "*.jinja")
SAFETENSORS, PICKLED = "*.safetensors", "*.bin"


def may_be_on_hub(name: str) -> bool:
    """Whether a name that is no folder here can only be a repository: OWNER/NAME, where OWNER is no folder either."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists() and not Path(name).parent.is_dir()


def no_such_folder(name: str) -> str:
    """What is wrong with a path at which there is no folder: the part that is missing, and the nearest name there."""
    path = Path(name)
    if path.exists():
        return "is a file; expected the folder that it lies in"
    if len(path.parts) == 1 and path.name == name:
        return "no such folder or name"
    there = next(parent for parent in (*path.parents, Path("/")) if parent.is_dir())
    missing = path.parts[len(there.parts)] if path.parts[: len(there.parts)] == there.parts else path.parts[0]
    try:
        near = nearest(missing, [item.name for item in there.iterdir()])
    except OSError:
        near = ""
    asked = "; the hub is not asked, as that folder is here" if HUB_ID.fullmatch(name) else ""
    return f"no such folder: {there} has no {missing}{near}{asked}"


def fetch(repo: str, *, what: str = "model", pickled: bool = False) -> Path:
    """The folder of a repository, from the hub or from its cache; said in one line, as it was not here.

    Args:
        repo: OWNER/NAME.
        what: the option or file that names it, for messages.
        pickled: take `.bin` files, which are read without running anything, where there are no safetensors.

    Raises:
        CheckpointError: the hub does not give it.
    """
    from huggingface_hub import snapshot_download

    _say(repo, what, f"{SAFETENSORS} or {PICKLED}" if pickled else SAFETENSORS)
    try:
        folder = Path(snapshot_download(repo, allow_patterns=[*SETTINGS, SAFETENSORS]))
        if pickled and not any(folder.glob(SAFETENSORS)):
            folder = Path(snapshot_download(repo, allow_patterns=[*SETTINGS, SAFETENSORS, PICKLED]))
    except Exception as error:  # the hub, the network and the cache each have their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{what} {repo}: no such folder, and the hub does not give it ({reason}); check the name and the network, "
            f"or get it elsewhere (hf download {repo} --local-dir FOLDER) and give that folder"
        ) from error
    return folder


@cache  # once for each repository, however often it is asked for
def _say(repo: str, what: str, weights: str) -> None:
    logger.warning(
        "%s %s is no folder here; it is taken from the Hugging Face hub: its weights (%s) and settings (%s), no code",
        *(what, repo, weights, ", ".join(SETTINGS)),
    )
