"""The growing cache holds what the one of `transformers` holds, whatever is done to it."""

import logging
import warnings

import pytest
import torch
from transformers.cache_utils import DynamicCache
from transformers.utils.logging import get_logger

from avllm.model.cache import BLOCK, CACHE, GrowingLayer, growing_cache, grows
from tests.model.tiny import tiny_model


def states(length, rows=1):
    return torch.randn(rows, 2, length, 4), torch.randn(rows, 2, length, 4)


@pytest.fixture
def both():
    config = tiny_model().config.text_config
    return growing_cache(config).layers[0], DynamicCache(config=config).layers[0]


def same(ours, theirs):
    return torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_holds_what_was_written_across_the_growth_of_its_buffers(both):
    torch.manual_seed(0)
    for length in (3, 1, 1, BLOCK, 1, 2 * BLOCK + 1, 1):
        new = states(length)
        returned = [layer.update(*new) for layer in both]
        assert torch.equal(returned[0][0], returned[1][0])
        assert same(*both)
        assert both[0].get_seq_length() == both[1].get_seq_length()


def test_a_token_is_written_in_place_also_after_a_crop():
    layer = GrowingLayer()
    layer.update(*states(5))
    held = layer.keys.data_ptr()
    layer.update(*states(1))
    layer.crop(-3)
    layer.update(*states(2))
    assert layer.keys.data_ptr() == held
    assert layer.get_seq_length() == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.crop(-2),
        lambda layer: layer.batch_select_indices(torch.tensor([1])),
        lambda layer: layer.batch_repeat_interleave(2),
        lambda layer: layer.reorder_cache(torch.tensor([1, 0])),
        lambda layer: layer.reset(),
    ],
)
def test_what_beams_batches_and_sessions_do_to_it_is_kept(both, change):
    torch.manual_seed(0)
    first = states(5, rows=2)
    for layer in both:
        layer.update(*first)
        change(layer)
    rows = 2 if both[1].keys is None else len(both[1].keys)
    for new in (states(1, rows), states(2, rows)):
        for layer in both:
            layer.update(*new)
    assert same(*both)


def test_layers_that_forget_are_left_to_transformers():
    from transformers import MistralConfig

    config = MistralConfig(num_hidden_layers=2, sliding_window=8)
    assert not grows(growing_cache(config))
    assert grows(growing_cache(tiny_model().config.text_config))


def test_the_decoder_takes_and_returns_it_without_a_warning(caplog):
    model, cache = tiny_model(), growing_cache(tiny_model().config.text_config)
    get_logger("transformers").addHandler(caplog.handler)
    try:
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")
            out = model.decoder(inputs_embeds=torch.zeros(1, 3, 32), use_cache=True, **{CACHE: cache})
            model.decoder(inputs_embeds=torch.zeros(1, 1, 32), use_cache=True, **{CACHE: out[CACHE]})
    finally:
        get_logger("transformers").removeHandler(caplog.handler)
    assert out[CACHE] is cache
    assert cache.get_seq_length() == 4
    assert not caplog.messages
