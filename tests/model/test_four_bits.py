"""A decoder in 4 bits keeps its weights, whatever it answered before: gradients, files and merges are those of them."""

import copy

import pytest
import torch

from avllm.checkpoints.load import load_model
from avllm.model.four_bits import keep_own_weights

pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")
IDS = torch.randint(3, 600, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def fresh():
    return load_model("nano", quantization="nf4")[0]


@pytest.fixture
def model(fresh):
    return copy.deepcopy(fresh)


def _gradient(model):
    embeds = model.get_input_embeddings()(IDS).detach().requires_grad_()
    model.decoder(inputs_embeds=embeds, labels=IDS).loss.backward()
    return embeds.grad


@torch.no_grad()
def _look(model):
    return model.decoder(input_ids=IDS).logits


def test_gradients_after_an_answer_are_those_before_it(model):
    before = _gradient(model)
    assert float(before.norm()) > 0

    model.generate(IDS, max_new_tokens=2)
    _look(model)

    assert torch.equal(_gradient(model), before)


def test_a_step_of_training_is_that_of_a_model_that_never_answered(fresh, model):
    from avllm.training.adapter import add_adapter, freeze_beside_adapter
    from avllm.training.stage import Adapter

    pytest.importorskip("peft", reason="adapters need avllm[train]")
    found = []
    for start in (copy.deepcopy(fresh), model):
        if start is model:
            _look(start)
        add_adapter(start, Adapter(r=4, alpha=8.0, dropout=0.0), seed=0)
        freeze_beside_adapter(start, [])
        for name, parameter in start.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
        if start is model:
            _look(start)
        start.train()
        start.decoder(input_ids=IDS, labels=IDS).loss.backward()
        found.append({name: p.grad for name, p in start.named_parameters() if p.grad is not None})

    assert found[0].keys() == found[1].keys()
    assert len(found[0]) > 20
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_is_saved_after_an_answer_is_what_was_loaded(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    _look(model)

    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_answer_follows_weights_that_changed(model):
    old = _look(model)
    layer = model.decoder.model.layers[0].mlp.down_proj
    layer.weight.data = layer.weight.data.flip(0)

    assert not torch.allclose(_look(model), old, atol=1e-2)


def test_without_copies_an_answer_is_what_a_step_of_training_computes(model):
    keep_own_weights(model, repacked_copies=False)

    assert torch.equal(_look(model), model.decoder(input_ids=IDS).logits.detach())
