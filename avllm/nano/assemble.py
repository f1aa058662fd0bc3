"""Puts the parts that stage 0 made into one system, as the four stages start from it."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from avllm.checkpoints.save import save_model
from avllm.connectors.temporal_qformer import TemporalQFormer
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor
from avllm.nano.fitting import start_wide
from avllm.nano.tokenizer import build_tokenizer, slot_word_ids

logger = logging.getLogger(__name__)
TRAINED_LATER = ("query_tokens", "frame_embedding", "qformer", "projection")  # of each connector


def assemble(parts: Sequence[Path], folder: Path, *, seed: int = 0) -> Path:
    """Builds `configs/nano.yaml`, fills the frozen parts from safetensors files, and saves a folder to train on.

    What the four stages train starts at random. A branch whose encoder is in no file stays random altogether.

    Args:
        parts: files under the system's own names of weights.

    Raises:
        CheckpointError: a file holds a name or a shape that the system does not have.
    """
    torch.manual_seed(seed)
    config = AvllmConfig.from_yaml("nano")
    model = AvllmForConditionalGeneration(config)
    own = model.state_dict()
    for path in parts:
        for name, value in load_file(path).items():
            if name not in own or own[name].shape != value.shape:
                expected = list(own[name].shape) if name in own else "no such weight"
                raise CheckpointError(f"{path}: {name} is {list(value.shape)}, configs/nano.yaml has {expected}")
            own[name].copy_(value)
    table = cast(nn.Embedding, model.get_input_embeddings()).weight.detach()
    for name, branch in model.branches.items():
        words = table[list(slot_word_ids(cast(Literal["video", "audio"], name)).values())]
        start_connector(cast(TemporalQFormer, branch.connector), words, is_unit=name == "audio")
    model.eval()
    save_model(model, AvllmProcessor.from_config(config, build_tokenizer()), folder)
    return folder


@torch.no_grad()
def start_connector(connector: TemporalQFormer, words: Float[Tensor, "n d"], *, is_unit: bool) -> None:
    """Redraws what will be trained at the scales of its neighbours.

    Args:
        words: the decoder's embeddings of the words that stood in this branch's slots; the tokens shall lie among them.
        is_unit: the features are unit vectors, not layer-normed ones.
    """
    start_wide(connector.qformer)
    nn.init.normal_(connector.query_tokens)
    nn.init.normal_(
        connector.projection.weight, std=float(words.std(0).mean()) / math.sqrt(connector.projection.in_features)
    )
    connector.projection.bias.copy_(words.mean(0))
    table: Tensor = connector.frame_embedding.table.weight
    nn.init.normal_(table)
    if is_unit:
        factor = math.sqrt(table.shape[1])
        table /= factor
        for layer in connector.qformer.layers:
            layer.cross_attention.key.weight *= factor  # type: ignore[union-attr, operator]
            layer.cross_attention.value.weight *= factor  # type: ignore[union-attr, operator]
