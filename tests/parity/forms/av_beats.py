"""The form `av_beats` of VideoLLaMA 2.1-AV: BEATs, stage by stage."""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from avllm.checkpoints.beats import beats, beats_from
from avllm.checkpoints.rename import load, rename
from avllm.encoders import Beats
from avllm.media import FbankConfig
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, ready

TOLERANCE = Tolerance(0.0, 2e-5)
NOT_COVERED = {"predictor_probs": "the names of sounds that BEATs gives are not used by any system"}


def recognises(folder: Path) -> bool:
    """Whether the case holds the `cfg` of a BEATs."""
    path = folder / "config.json"
    return path.is_file() and "conv_pos_groups" in read_json(path).get("cfg", {})


@torch.no_grad()
def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    config = beats_from(read_json(path / "config.json")["cfg"])
    encoder = config.build()
    load(ready(encoder), rename(read_tensors(path / "weights.safetensors"), beats(config), source="weights"))
    inputs, outputs = read_tensors(path / "inputs.safetensors"), read_tensors(path / "outputs.safetensors")
    pictures = normalised(inputs["fbank"])
    ours = stages(encoder, pictures)
    if "padding_mask" in inputs:
        is_padding = inputs["padding_mask"].all(dim=-1)[:, None]
        ours["features_with_padding_mask"] = encoder(pictures, is_padding)[:, 0]
    return compare_all(ours, outputs, TOLERANCE, not_covered=NOT_COVERED)


def normalised(fbank: Tensor) -> Tensor:
    """Raw log-mel [b n f] as the reading of media gives it, [b 1 1 f n]."""
    config = FbankConfig()
    return rearrange((fbank - config.mean) / config.std, "b n f -> b 1 1 f n")


def stages(encoder: Beats, pictures: Tensor) -> dict[str, Tensor]:
    """Every stage under its recorded name."""
    bias: dict[str, nn.Module] = {"position_bias_HTT": encoder.relative_position}
    layers = {f"layer{index}_TBC": block for index, block in enumerate(encoder.blocks)}
    hooks = {
        "patch_embedding": encoder.patches,
        "patch_layer_norm": encoder.patch_norm,
        "pos_conv_BCT": encoder.positions,
        "encoder_input_after_layer_norm": encoder.norm,
    }
    with captured({**bias, **layers, **hooks}) as found:
        features = encoder(pictures)[:, 0]
    found |= {name: rearrange(found[name], "b p d -> p b d") for name in layers}
    found["pos_conv_BCT"] = rearrange(found["pos_conv_BCT"], "b p d -> b d p")
    frames, bins = found["patch_embedding"].shape[-2:]
    return {**found, "features": features, "grid_T": torch.tensor(frames), "grid_F": torch.tensor(bins)}
