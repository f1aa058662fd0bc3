import pytest
import torch
from transformers.models.clip.modeling_clip import CLIPVisionConfig, CLIPVisionModel
from transformers.models.siglip.modeling_siglip import SiglipVisionConfig, SiglipVisionModel

from avllm.config import parse
from avllm.encoders import ENCODERS, Clip

SIZES = {"image_size": 20, "patch_size": 6, "width": 16, "depth": 3, "num_heads": 2, "mlp_width": 24}
THEIRS = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 20,
    "patch_size": 6,
}


def built(**changes: object) -> Clip:
    torch.manual_seed(0)
    return parse(ENCODERS["clip"], {**SIZES, **changes}).build().eval()


def reference(family: str) -> CLIPVisionModel | SiglipVisionModel:
    torch.manual_seed(1)
    if family == "clip":
        return CLIPVisionModel(CLIPVisionConfig(**THEIRS)).eval()
    return SiglipVisionModel(SiglipVisionConfig(**THEIRS)).eval()


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, 3, -1, -2, -4])
@pytest.mark.parametrize(("family", "feature"), [("clip", "patch"), ("clip", "cls_patch"), ("siglip", "patch")])
def test_gives_the_hidden_states_of_the_chosen_layer(family: str, feature: str, layer: int):
    activation = {"clip": "quick_gelu", "siglip": "gelu_pytorch_tanh"}[family]
    eps = {"clip": 1e-5, "siglip": 1e-6}[family]
    ours = built(family=family, feature=feature, layer=layer, activation=activation, layer_norm_eps=eps)
    theirs, frames = reference(family), torch.randn(2, 3, 3, 20, 20)
    kept = {name: tensor for name, tensor in theirs.state_dict().items() if name in ours.tower.state_dict()}
    ours.tower.load_state_dict(kept)

    out = ours(frames)

    hidden = theirs(frames.flatten(0, 1), output_hidden_states=True).hidden_states[layer]
    expected = hidden[:, 1:] if (family, feature) == ("clip", "patch") else hidden
    assert out.shape == (2, *ours.config.token_shape(frames.shape[1:]), 16)
    assert torch.allclose(out, expected.unflatten(0, (2, 3)), atol=1e-5)


def test_holds_nothing_that_is_not_run():
    names = set(built(family="siglip", layer=-2).state_dict())

    assert not [name for name in names if ".2." in name or "post_layernorm" in name or "head" in name]


@torch.no_grad()
def test_other_sizes_interpolate_the_positions():
    encoder, frames = built(), torch.randn(1, 2, 3, 26, 14)

    assert encoder(frames).shape[1:3] == encoder.config.token_shape(frames.shape[1:]) == (2, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 4}, "encoder.layer is 4, the tower has 3 blocks; expected -4 to 3"),
        ({"layer": -5}, "encoder.layer is -5"),
        ({"family": "siglip", "feature": "cls_patch"}, "SigLIP has no class token"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        built(**changes)


def test_frames_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match="frames are 4 x 20 pixels, a patch is 6"):
        built()(torch.zeros(1, 1, 3, 4, 20))
