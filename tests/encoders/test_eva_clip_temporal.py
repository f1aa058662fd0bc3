import pytest
import torch
import torch.nn.functional as F

from avllm.config import parse
from avllm.encoders import ENCODERS, EvaClip, EvaClipTemporal
from avllm.encoders.eva_clip_temporal import GlobalMhra, LocalMhra

SIZES = {"image_size": 12, "patch_size": 4, "width": 8, "depth": 3, "num_heads": 2, "mlp_ratio": 2.6}
TINY = EvaClipTemporal.Config(**SIZES, num_global=2)


def random_weights(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


def written_out(step: GlobalMhra, token: torch.Tensor, tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """One step for one clip [t p d], position by position and head by head."""
    w = step.state_dict()
    t, p, d = tokens.shape
    y = F.layer_norm(tokens, [d], w["norm_context.weight"], w["norm_context.bias"], 1e-5)
    columns = (p - 1) // rows
    grid = y[:, 1:].reshape(t, rows, columns, d)
    added = grid.clone()
    for a in range(t):
        for b in range(rows):
            for c in range(columns):
                total = w["position.bias"].clone()
                for i in range(-1, 2):
                    for j in range(-1, 2):
                        for k in range(-1, 2):
                            if 0 <= a + i < t and 0 <= b + j < rows and 0 <= c + k < columns:
                                total += w["position.weight"][:, 0, i + 1, j + 1, k + 1] * grid[a + i, b + j, c + k]
                added[a, b, c] += total
    context = torch.cat([y[:, :1], added.reshape(t, p - 1, d)], dim=1).reshape(t * p, d)
    query = F.layer_norm(token, [d], w["norm_query.weight"], w["norm_query.bias"], 1e-5)
    matrices, biases = w["attention.in_proj_weight"].split(d), w["attention.in_proj_bias"].split(d)
    q, k, v = (x @ m.T + b for x, m, b in zip((query, context, context), matrices, biases, strict=True))
    size = d // step.attention.num_heads
    heads = [
        torch.softmax(q[:, s : s + size] @ k[:, s : s + size].T / size**0.5, dim=1) @ v[:, s : s + size]
        for s in range(0, d, size)
    ]
    token = token + torch.cat(heads, dim=1) @ w["attention.out_proj.weight"].T + w["attention.out_proj.bias"]
    y = F.layer_norm(token, [d], w["norm_mlp.weight"], w["norm_mlp.bias"], 1e-5)
    y = y @ w["mlp.up.weight"].T + w["mlp.up.bias"]
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    return token + y @ w["mlp.down.weight"].T + w["mlp.down.bias"]


@torch.no_grad()
def test_a_step_of_the_global_token_equals_attention_written_out():
    step = random_weights(GlobalMhra(8, 2, mlp_width=21, dropout=0.5))
    token, tokens = torch.randn(2, 1, 8), torch.randn(2, 3, 1 + 2 * 3, 8)

    out = step(token, tokens, 2)

    for clip in range(2):
        torch.testing.assert_close(out[clip], written_out(step, token[clip], tokens[clip], 2), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_frames_go_through_as_in_eva_clip_and_the_global_token_comes_last():
    encoder, plain = random_weights(TINY.build()), EvaClip.Config(**SIZES).build().eval()
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("gmhra")}
    state["patches.weight"] = state["patches.weight"].squeeze(2)
    plain.load_state_dict(state)
    frames = torch.randn(2, 3, 3, 12, 12)

    out = encoder(frames)

    assert out.shape == (2, 1, 3 * 10 + 1, 8)
    torch.testing.assert_close(out[:, 0, :-1], plain(frames).flatten(1, 2), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_only_the_global_token_knows_the_order_of_the_frames():
    encoder = random_weights(TINY.build())
    frames = torch.randn(1, 4, 3, 12, 12)

    forward, backward = encoder(frames)[0, 0], encoder(frames.flip(1))[0, 0]

    torch.testing.assert_close(forward[:-1].reshape(4, 10, 8), backward[:-1].reshape(4, 10, 8).flip(0))
    assert not torch.allclose(forward[-1], backward[-1], atol=1e-3)


@pytest.mark.parametrize("local", ["none", "single", "double"])
@pytest.mark.parametrize(("downsamples", "steps"), [(False, {1: 1, 6: 6, 7: 7}), (True, {1: 1, 6: 3, 7: 4})])
@torch.no_grad()
def test_the_shape_is_the_one_that_is_told(local, downsamples, steps):
    config = EvaClipTemporal.Config(**SIZES, num_global=1, local=local, temporal_downsample=downsamples)
    encoder = config.build().eval()
    for num_frames, num_steps in steps.items():
        out = encoder(torch.randn(1, num_frames, 3, 8, 20))

        assert tuple(out.shape[1:3]) == config.token_shape((num_frames, 3, 8, 20)) == (1, num_steps * 11 + 1)


@torch.no_grad()
def test_local_relations_mix_neighbouring_frames_of_a_patch_and_nothing_else():
    mhra = random_weights(LocalMhra(8, reduction=1.5))
    assert mhra.reduce.out_channels == 5  # rounded down
    tokens = torch.randn(1, 5, 4, 8)
    other = tokens.clone()
    other[0, 1, 2] += 1.0  # patch 1 of frame 1

    changed = (mhra(tokens) != mhra(other)).any(-1)[0]

    assert torch.equal(mhra(tokens)[:, :, 0], tokens[:, :, 0])
    assert changed.nonzero().tolist() == [[0, 2], [1, 2], [2, 2]]


def test_starts_as_a_global_token_of_zeros_that_can_be_learned():
    encoder = TINY.build()
    out = encoder(torch.randn(1, 2, 3, 12, 12))

    assert not out[0, 0, -1].any()
    (out[0, 0, -1] - 1).square().sum().backward()
    assert encoder.gmhra_token.grad.any()
    assert all(step.attention.out_proj.weight.grad.any() for step in encoder.gmhra)


def test_dropout_is_active_in_training_alone():
    step = random_weights(GlobalMhra(8, 2, mlp_width=64, dropout=0.5))
    token, tokens = torch.randn(1, 1, 8), torch.randn(1, 2, 5, 8)

    assert torch.equal(step(token, tokens, 2), step(token, tokens, 2))
    step.train()
    assert not torch.equal(step(token, tokens, 2), step(token, tokens, 2))


@pytest.mark.parametrize("num_global", [0, 4])
def test_names_a_number_of_steps_that_cannot_be(num_global):
    with pytest.raises(ValueError, match=f"num_global: expected 1 to depth = 3 blocks, got {num_global}"):
        EvaClipTemporal.Config(**SIZES, num_global=num_global)


def test_defaults_are_the_published_sizes():
    with torch.device("meta"):
        encoder = parse(ENCODERS["eva_clip_temporal"], {}).build()

    trained = sum(p.numel() for name, p in encoder.named_parameters() if "gmhra" in name)
    assert trained == 202_340_736
    assert sum(p.numel() for p in encoder.parameters()) == 985_894_528 + trained
    assert encoder.gmhra[0].mlp.up.out_features == 6144
