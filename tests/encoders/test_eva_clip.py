import pytest
import torch
import torch.nn.functional as F

from avllm.config import parse
from avllm.encoders import ENCODERS, EvaClip

TINY = EvaClip.Config(image_size=12, patch_size=4, width=8, depth=2, num_heads=2, mlp_ratio=2.6)


def plain(encoder: EvaClip, image: torch.Tensor) -> torch.Tensor:
    """The same tokens [p d] of one image, token by token, head by head, with nothing fused."""
    weights, config = encoder.state_dict(), encoder.config
    patches = image.unfold(1, config.patch_size, config.patch_size).unfold(2, config.patch_size, config.patch_size)
    rows = [patches[:, y, x].flatten() for y in range(patches.shape[1]) for x in range(patches.shape[2])]
    kernel = weights["patches.weight"].flatten(1)
    tokens = torch.stack([kernel @ row + weights["patches.bias"] for row in rows])
    x = torch.cat([weights["class_token"][0], tokens]) + weights["positions"][0]
    size = config.width // config.num_heads
    for index in range(config.depth):
        w = {
            name.removeprefix(f"blocks.{index}."): v
            for name, v in weights.items()
            if name.startswith(f"blocks.{index}.")
        }
        y = F.layer_norm(x, [config.width], w["norm1.weight"], w["norm1.bias"], 1e-6)
        q, k, v = (y @ w["attention.qkv.weight"].T).split(config.width, dim=1)
        q, v = q + w["attention.q_bias"], v + w["attention.v_bias"]
        heads = []
        for head in range(config.num_heads):
            part = slice(head * size, (head + 1) * size)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / size**0.5, dim=1) @ v[:, part])
        x = x + torch.cat(heads, dim=1) @ w["attention.out.weight"].T + w["attention.out.bias"]
        y = F.layer_norm(x, [config.width], w["norm2.weight"], w["norm2.bias"], 1e-6)
        y = y @ w["mlp.up.weight"].T + w["mlp.up.bias"]
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        x = x + y @ w["mlp.down.weight"].T + w["mlp.down.bias"]
    return x


def random_weights(encoder: EvaClip) -> EvaClip:
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder.eval()


@torch.no_grad()
def test_equals_attention_written_out():
    encoder = random_weights(TINY.build())
    frames = torch.randn(1, 2, 3, 12, 12)

    out = encoder(frames)

    for frame in range(2):
        torch.testing.assert_close(out[0, frame], plain(encoder, frames[0, frame]), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_each_frame_is_seen_alone():
    encoder = random_weights(TINY.build())
    frames = torch.randn(2, 3, 3, 12, 12)

    torch.testing.assert_close(encoder(frames)[1, 2], encoder(frames[1:, 2:])[0, 0])


@torch.no_grad()
def test_positions_are_interpolated_for_another_size_and_kept_for_the_stored_one():
    encoder = random_weights(TINY.build())
    assert torch.equal(encoder.positions_for(12, 12), encoder.positions)

    wider = encoder.positions_for(8, 20)

    assert wider.shape == (1, 1 + 2 * 5, 8)
    assert torch.equal(wider[:, 0], encoder.positions[:, 0])
    grid = encoder.positions[0, 1:].T.reshape(1, 8, 3, 3)
    image = F.interpolate(grid, size=(2, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(wider[0, 1:], image[0].flatten(1).T)
    assert encoder(torch.randn(1, 1, 3, 8, 20)).shape == (1, 1, 11, 8)


def test_names_an_image_that_does_not_divide_into_patches():
    with pytest.raises(ValueError, match="image is 12 x 13 pixels, it does not divide into patches of 4"):
        TINY.build()(torch.zeros(1, 1, 3, 12, 13))


def test_defaults_are_the_published_sizes():
    with torch.device("meta"):
        encoder = parse(ENCODERS["eva_clip"], {}).build()

    assert sum(p.numel() for p in encoder.parameters()) == 985_894_528
    assert encoder.blocks[0].mlp.up.out_features == 6144
    assert encoder.width == 1408


def test_gradients_reach_every_parameter():
    encoder = TINY.build()

    encoder(torch.randn(1, 1, 3, 12, 12)).square().sum().backward()

    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []
