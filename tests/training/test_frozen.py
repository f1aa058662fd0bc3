import pytest
import torch
from torch import nn

from avllm.errors import ConfigError
from avllm.training.frozen import freeze, unfreeze
from tests.training.tiny_system import TRAINABLE


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def forward(self, x):
        return self.head(self.encoder(x))


def test_only_what_a_pattern_names_has_gradients_and_trains():
    net = Net()

    names = freeze(net, ["head.*.weight", "head.0.bias"])
    net.train()
    net(torch.ones(2, 4)).sum().backward()

    assert names == ["head.0.weight", "head.0.bias"]
    assert net.encoder[0].weight.grad is None
    assert net.head[0].weight.grad is not None


def test_frozen_modules_stay_in_eval_after_train_and_dropout_goes_with_its_parent():
    net = Net()
    freeze(net, ["head"])

    net.train()
    net.eval()
    net.train()

    assert not net.encoder.training
    assert not net.encoder[1].training
    assert net.head[1].training


def test_unfreeze_undoes_it():
    net = Net()
    freeze(net, ["head"])

    unfreeze(net)
    net.train()

    assert net.encoder[1].training
    assert all(p.requires_grad for p in net.parameters())


def test_the_name_of_a_module_does_not_match_a_longer_name():
    net = nn.ModuleDict({"head": nn.Linear(2, 2), "head2": nn.Linear(2, 2)})

    assert freeze(net, ["head"]) == ["head.weight", "head.bias"]


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.raises(ConfigError, match=r"trainable\.1: 'haed' matches no parameter.*head\.0"):
        freeze(Net(), ["head", "haed"])


def test_the_four_parts_of_a_branch_are_trained_and_nothing_else(tmp_path):
    from avllm.model.modeling import AvllmForConditionalGeneration
    from tests.training.tiny_system import save_tiny_system

    model = AvllmForConditionalGeneration.from_pretrained(save_tiny_system(tmp_path / "base"))
    names = freeze(model, TRAINABLE)
    model.train()

    assert all(name.startswith("branches.video.connector.") and ".frame_qformer." not in name for name in names)
    branch = model.branches["video"]
    assert branch.connector.qformer.training
    assert not any(module.training for module in branch.connector.frame_qformer.modules())
    assert not any(module.training for module in [*branch.encoder.modules(), *model.decoder.modules()])
