import pytest
import torch
import torch.nn.functional as F

from avllm.config import parse
from avllm.connectors import CONNECTORS, MlpConnector


def built(**settings: object) -> MlpConnector:
    torch.manual_seed(0)
    return parse(CONNECTORS["mlp"], settings).build(in_width=6, out_width=10).eval()


@torch.no_grad()
def test_depth_counts_linear_layers_with_a_gelu_between_two():
    connector, tokens = built(depth=2), torch.randn(2, 3, 4, 6)
    first, second = connector.layers[0], connector.layers[2]

    expected = F.linear(F.gelu(F.linear(tokens, first.weight, first.bias)), second.weight, second.bias)

    assert torch.allclose(connector(tokens), expected.reshape(2, 12, 10), atol=1e-6)
    assert len(built(depth=1).layers) == 1
    assert len(built(depth=3).layers) == 5


@torch.no_grad()
def test_tokens_follow_frame_after_frame():
    connector, tokens = built(depth=1), torch.randn(1, 3, 4, 6)

    out = connector(tokens)

    assert torch.allclose(out[:, 4:8], connector.layers(tokens[:, 1]), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 5])
@pytest.mark.parametrize("averages_frames", [True, False])
def test_num_tokens_is_what_forward_gives(num_frames: int, averages_frames: bool):
    connector = built(averages_frames=averages_frames)

    assert connector(torch.randn(1, num_frames, 4, 6)).shape[1] == connector.config.num_tokens(num_frames, 4)


@torch.no_grad()
def test_frames_are_averaged_before_the_projection():
    connector, tokens = built(depth=2, averages_frames=True), torch.randn(2, 3, 4, 6)

    assert torch.allclose(connector(tokens), connector.layers(tokens.mean(1)), atol=1e-6)
    assert not torch.allclose(connector(tokens), connector.layers(tokens).mean(1), atol=1e-3)


def test_no_layer_is_an_error():
    with pytest.raises(ValueError, match=r"connector\.depth is 0"):
        built(depth=0)
