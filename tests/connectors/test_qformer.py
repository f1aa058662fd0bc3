import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from avllm.checkpoints.rename import Drop, load, rename
from avllm.checkpoints.video_llama import Q_FORMER
from avllm.connectors.qformer import FrameQFormer, QFormer

TINY = QFormer.Config(width=8, depth=4, num_heads=2, mlp_width=12, cross_every=2)


def with_reference() -> tuple[QFormer, Blip2QFormerModel]:
    """Ours and the one of `transformers` with the same random weights."""
    torch.manual_seed(0)
    theirs = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=8,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=12,
            encoder_hidden_size=6,
            cross_attention_frequency=2,
            layer_norm_eps=1e-12,
            use_qformer_text_input=False,
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    names = {"layernorm.{w}": "norm.{w}", "embeddings.{rest}": Drop("text")}
    # The port spells the attention module `attention.attention`.
    moved = {key.replace(".self.", ".attention."): target for key, target in Q_FORMER.items()}
    ours = TINY.build(context_width=6).eval()
    load(ours, rename(theirs.state_dict(), {**names, **moved}))
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("is_masked", [False, True])
def test_equals_the_qformer_of_transformers(is_masked: bool):
    ours, theirs = with_reference()
    queries, context = torch.randn(3, 5, 8), torch.randn(3, 7, 6)
    mask = torch.rand(3, 7) > 0.4 if is_masked else None

    out = ours(queries, context, mask)

    expected = theirs(
        queries, encoder_hidden_states=context, encoder_attention_mask=None if mask is None else mask.long()
    )
    torch.testing.assert_close(out, expected.last_hidden_state, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_masked_context_is_not_read():
    ours, _ = with_reference()
    queries, context = torch.randn(1, 5, 8), torch.randn(2, 7, 6)
    mask = torch.tensor([[True] * 4 + [False] * 3] * 2)
    changed = context.clone()
    changed[:, 4:] += 100

    torch.testing.assert_close(ours(queries, context, mask), ours(queries, changed, mask))
    torch.testing.assert_close(ours(queries, context, mask), ours(queries, context[:, :4]))


@torch.no_grad()
def test_a_context_masked_whole_gives_numbers():
    ours, _ = with_reference()
    out = ours(torch.randn(1, 5, 8), torch.randn(1, 7, 6), torch.zeros(1, 7, dtype=torch.bool))
    assert out.isfinite().all()


def test_cross_attention_sits_in_every_kth_layer():
    layers = TINY.build(context_width=6).layers
    assert [layer.cross_attention is not None for layer in layers] == [True, False, True, False]


def test_dropout_is_active_in_training_only():
    torch.manual_seed(0)
    model = FrameQFormer.Config(width=8, depth=1, num_heads=2, mlp_width=12, num_queries=3).build(context_width=6)
    context = torch.randn(2, 4, 6)

    assert not torch.equal(model.train()(context), model(context))
    assert torch.equal(model.eval()(context), model(context))


def test_names_a_width_that_does_not_divide_into_heads():
    with pytest.raises(ValueError, match="width 8 does not divide into 3 heads"):
        QFormer.Config(width=8, depth=1, num_heads=3, mlp_width=12).build(context_width=6)
