"""eva_vit_g.pth onto VideoChat's encoder: the kernel of pictures made one of frames, the positions of another grid."""

from pathlib import Path

from avllm.checkpoints.rename import rename
from avllm.checkpoints.videochat import eva_file
from avllm.encoders.eva_clip_temporal import EvaClipTemporal
from tests.parity.common import Row, Tolerance, compare_all, read_json, read_tensors

OURS = {
    "patch_embed.proj.weight": "patches.weight",
    "patch_embed.proj.bias": "patches.bias",
    "pos_embed": "positions",
    "cls_token": "class_token",
}


def run(path: Path) -> list[Row]:
    """Compares the few tensors of the case, with and without `temporal_downsample`."""
    case, weights = read_json(path / "config.json"), read_tensors(path / "weights.safetensors")
    ours = {}
    for name, downsamples in (("plain", False), ("downsample", True)):
        config = EvaClipTemporal.Config(
            image_size=case["img_size"],
            patch_size=case["patch_size"],
            width=case["embed_dim"],
            temporal_downsample=downsamples,
        )
        state = rename(weights, eva_file(config), source="weights.safetensors").state
        ours |= {f"{name}.{published}": state[mine] for published, mine in OURS.items() if mine in state}
    return compare_all(ours, read_tensors(path / "outputs.safetensors"), Tolerance(0.0, 1e-6))
