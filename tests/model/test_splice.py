"""Media tokens land in their slots."""

import pytest
import torch

from avllm.model.splice import splice


def test_fills_slots_row_by_row():
    is_slot = torch.tensor([[False, True, True], [True, False, False]])

    out = splice(torch.zeros(2, 3, 1), is_slot, torch.tensor([[1.0], [2.0], [3.0]]))

    assert out.squeeze(-1).tolist() == [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]


def test_names_both_counts_when_they_differ():
    is_slot = torch.tensor([[True, True, False]])
    with pytest.raises(ValueError, match="2 media slots, encoders gave 1 tokens"):
        splice(torch.zeros(1, 3, 4), is_slot, torch.zeros(1, 4))


def test_gradients_reach_the_media_tokens_and_not_what_they_replace():
    embeds = torch.zeros(1, 3, 2, requires_grad=True)
    tokens = torch.ones(1, 2, requires_grad=True)

    splice(embeds, torch.tensor([[False, True, False]]), tokens).sum().backward()

    assert tokens.grad is not None
    assert tokens.grad.tolist() == [[1.0, 1.0]]
    assert embeds.grad is not None
    assert embeds.grad[0, 1].tolist() == [0.0, 0.0]
