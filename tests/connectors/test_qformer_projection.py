import pytest
import torch

from avllm.connectors import QFormerProjection
from avllm.connectors.qformer import FrameQFormer

FRAME = FrameQFormer.Config(width=8, depth=2, num_heads=2, mlp_width=16, num_queries=3)
TINY = QFormerProjection.Config(num_extra_queries=2, frame_qformer=FRAME)


def random_weights(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


@torch.no_grad()
def test_equals_one_q_former_whose_queries_are_those_of_blip2_and_then_the_extra_ones():
    connector = random_weights(TINY.build(in_width=6, out_width=5))
    together = FrameQFormer.Config(**{**vars(FRAME), "num_queries": 5}).build(context_width=6).eval()
    state = connector.frame_qformer.state_dict()
    state["query_tokens"] = torch.cat([state["query_tokens"], connector.extra_query_tokens], dim=1)
    together.load_state_dict(state)
    tokens = torch.randn(2, 3, 4, 6)

    out = connector(tokens)

    assert out.shape == (2, TINY.num_tokens(3, 4), 5) == (2, 5, 5)
    torch.testing.assert_close(out, connector.projection(together(tokens.flatten(1, 2))))


@torch.no_grad()
def test_all_frames_are_read_at_once():
    connector = random_weights(TINY.build(in_width=6, out_width=5))
    tokens = torch.randn(1, 4, 3, 6)

    torch.testing.assert_close(connector(tokens), connector(tokens.reshape(1, 1, 12, 6)))


def test_the_extra_queries_start_as_zeros_and_are_learned_apart_from_those_of_blip2():
    connector = TINY.build(in_width=6, out_width=5).eval()
    assert not connector.extra_query_tokens.any()
    connector.frame_qformer.query_tokens.requires_grad_(False)

    connector(torch.randn(2, 1, 4, 6)).square().sum().backward()

    assert connector.extra_query_tokens.grad.any()
    assert connector.frame_qformer.query_tokens.grad is None


def test_nothing_of_it_is_computed_ahead_of_training():
    tokens = torch.randn(1, 1, 4, 6)

    assert TINY.build(in_width=6, out_width=5).prefix(tokens) is tokens


def test_names_a_number_of_queries_that_cannot_be():
    with pytest.raises(ValueError, match="num_extra_queries is -1, expected 0 or more"):
        QFormerProjection.Config(num_extra_queries=-1, frame_qformer=FRAME).build(in_width=6, out_width=5)
