"""Which folder may be replaced by a model: one that is empty or holds a model of avllm and nothing else."""

import re
from pathlib import Path

from avllm.checkpoints.sources import read_json
from avllm.config import PACKAGE
from avllm.durable import UNFINISHED
from avllm.errors import CheckpointError

# What avllm, transformers and peft write into the folder of a model or an adapter.
WRITTEN = re.compile(
    r"(config|generation_config|processor_config|preprocessor_config|avllm_manifest|adapter_config|tokenizer|"
    r"tokenizer_config|special_tokens_map|added_tokens|vocab|model\.safetensors\.index)\.json|merges\.txt|"
    r"tokenizer\.model|chat_template\.jinja|README\.md|(model|adapter_model|trained)\.safetensors|"
    r"model-\d{5}-of-\d{5}\.safetensors"
)


def require_replaceable(out: Path, *used: Path) -> None:
    """That nothing is lost when a model is written to a folder.

    Args:
        out: where to; a link is followed.
        used: what the model is made of.

    Raises:
        CheckpointError: it holds something else than a model of avllm, which is named, or is or holds what is used,
            the current folder or the user's home.
    """
    place = out.resolve()
    for path in used:
        if place == path.resolve():
            raise CheckpointError(f"--out {out}: is what the model is made of ({path}); expected another folder")
        if path.resolve().is_relative_to(place):
            raise CheckpointError(f"--out {out}: holds {path}, which the model is made of; expected another folder")
    for what, path in (("the current folder", Path.cwd()), *_home(), ("avllm itself", PACKAGE)):
        if path.resolve().is_relative_to(place) or (path == PACKAGE and place.is_relative_to(PACKAGE.resolve())):
            raise CheckpointError(f"--out {out}: is, or holds, {what}; expected a new folder")
    if not place.is_dir() or not any(place.iterdir()):
        return
    for path in sorted(place.iterdir()):
        if path.name.startswith(UNFINISHED):  # of a save that was killed
            continue
        if path.is_symlink() or not path.is_file() or not WRITTEN.fullmatch(path.name):
            raise CheckpointError(
                f"--out {out}: holds something else than a model, which would be lost ({path.name}); give a new folder"
            )
    if not is_model_of_ours(place):
        raise CheckpointError(
            f"--out {out}: holds something else than a model of avllm, which would be lost; give a new folder"
        )


def _home() -> list[tuple[str, Path]]:
    try:
        return [("your home", Path.home())]
    except RuntimeError:  # a user of a container may have none
        return []


def is_model_of_ours(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter that avllm wrote, by its settings."""
    for name, key, value in (("config.json", "model_type", "avllm"), ("adapter_config.json", "peft_type", "LORA")):
        try:
            if (folder / name).is_file():
                return read_json(folder / name).get(key) == value
        except CheckpointError:  # damaged: nobody can tell
            return False
    return False
