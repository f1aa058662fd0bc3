"""The tokenizer that lies beside published weights, opened without running anything that it names."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avllm.checkpoints.sources import read_json
from avllm.errors import CheckpointError
from avllm.model.untrusted import REFUSED

FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "chat_template.json"),
)
CLASSES = {
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "mixtral": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer",
}


def open_tokenizer(folder: Path, decoder: Mapping[str, Any]) -> Any:
    """The tokenizer of a folder.

    Its `config.json` is not looked at, as the published ones name classes of code that lies elsewhere.

    Args:
        folder: of published weights.
        decoder: configuration of the decoder, whose kind says the class where the folder does not.

    Raises:
        CheckpointError: it cannot be read.
    """
    from transformers import AutoTokenizer

    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    settings = {key: value for key, value in settings.items() if key not in REFUSED}
    settings.setdefault("tokenizer_class", CLASSES.get(decoder["model_type"], "PreTrainedTokenizerFast"))
    with tempfile.TemporaryDirectory() as name:
        alone = Path(name)
        for file in FILES:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, alone / file)
        (alone / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        try:
            return AutoTokenizer.from_pretrained(alone, trust_remote_code=False)
        except Exception as error:  # whatever a damaged file makes the library raise
            raise CheckpointError(
                f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {error})"
            ) from error
