import pytest
import torch

from avllm.config import parse
from avllm.connectors import CONNECTORS, TemporalQFormer
from avllm.connectors.temporal_qformer import FrameEmbedding

FRAMES = {"width": 8, "depth": 2, "num_heads": 2, "mlp_width": 12, "num_queries": 3}
PLAIN = {"num_queries": 4, "max_frames": 5, "width": 8, "num_heads": 2, "mlp_width": 12}


def built(**more: object) -> TemporalQFormer:
    torch.manual_seed(0)
    return parse(CONNECTORS["temporal_qformer"], {**PLAIN, **more}).build(in_width=6, out_width=10).eval()


@torch.no_grad()
def test_adds_one_vector_per_frame():
    embedding = FrameEmbedding(max_frames=3, width=2)
    embedding.table.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))

    out = embedding(torch.zeros(1, 2, 2, 2))

    assert out.tolist() == [[[[1.0, 2.0], [1.0, 2.0]], [[3.0, 4.0], [3.0, 4.0]]]]


@torch.no_grad()
def test_forward_is_prefix_then_resample():
    connector, tokens = built(frame_qformer=FRAMES), torch.randn(2, 3, 7, 6)

    features = connector.prefix(tokens)

    assert features.shape == (2, 3, 3, 8)
    assert connector(tokens).shape == (2, connector.config.num_tokens(3, tokens.shape[2]), 10)
    assert torch.equal(connector(tokens), connector.resample(features))


@torch.no_grad()
def test_the_prefix_sees_each_frame_alone_and_is_the_identity_without_a_frame_qformer():
    connector, tokens = built(frame_qformer=FRAMES), torch.randn(2, 3, 7, 6)
    torch.testing.assert_close(connector.prefix(tokens)[1, 2], connector.prefix(tokens[1:, 2:])[0, 0])

    assert built().prefix(tokens) is tokens


@torch.no_grad()
def test_the_order_of_frames_matters_and_the_order_of_tokens_within_one_does_not():
    connector, tokens = built(), torch.randn(1, 3, 4, 6)
    for parameter in connector.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    out = connector(tokens)

    assert not torch.allclose(out, connector(tokens.flip(1)), atol=1e-3)
    torch.testing.assert_close(out, connector(tokens.flip(2)))


def test_names_a_clip_that_is_too_long():
    with pytest.raises(ValueError, match="clip has 6 frames or segments, the frame embedding holds 5"):
        built()(torch.zeros(1, 6, 1, 6))


def test_gradients_reach_everything_trained_and_not_a_frozen_prefix():
    connector = built(frame_qformer=FRAMES)
    assert connector.frame_qformer is not None
    connector.frame_qformer.requires_grad_(False)

    connector(torch.randn(1, 2, 4, 6)).square().sum().backward()

    without = {name for name, p in connector.named_parameters() if p.grad is None}
    assert without == {name for name, _ in connector.named_parameters() if name.startswith("frame_qformer.")}


def test_defaults_are_the_published_sizes():
    with torch.device("meta"):
        config = parse(TemporalQFormer.Config, {"frame_qformer": {}})
        connector = config.build(in_width=1408, out_width=4096)

    trained = {n: p.numel() for n, p in connector.named_parameters() if not n.startswith("frame_qformer.")}
    # 22.1 million: video_Qformer, queries, positions, llama_proj; position_ids (512) are no parameter.
    assert sum(trained.values()) == 18_905_600 - 512 + 24_576 + 24_576 + 3_149_824
