import pytest
import torch
from torch import nn

from avllm.checkpoints.rename import Convert, Drop, Part, join, load, problems, published_names, rename, under
from avllm.errors import CheckpointError

TABLE = {
    "old.{n}.{rest}": Drop("surplus layer", when=lambda match: int(match["n"]) >= 1),
    "old.{i}.lin.{w}": "{i}.{w}",
    "position_ids": Drop("an unused buffer"),
}


def weights(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"old.0.lin.weight": torch.ones(2, 3), "old.0.lin.bias": torch.zeros(2), **more}


def test_renames_and_drops_with_a_reason():
    renamed = rename(weights(position_ids=torch.zeros(1), **{"old.1.lin.bias": torch.zeros(2)}), TABLE)

    assert set(renamed.state) == {"0.weight", "0.bias"}
    assert renamed.dropped == {"position_ids": "an unused buffer", "old.1.lin.bias": "surplus layer"}


def test_loads_into_a_module_and_onto_meta():
    for device in ("cpu", "meta"):
        model = nn.Sequential(nn.Linear(3, 2, device=device))

        load(model, rename(weights(), TABLE))

        assert model[0].weight.tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


def test_keeps_the_dtype_of_the_module():
    model = nn.Sequential(nn.Linear(3, 2))

    load(model, rename({name: tensor.half() for name, tensor in weights().items()}, TABLE))

    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old.0.lin.extra": torch.zeros(2)}, "does not know old.0.lin.extra"),
        ({"other": torch.zeros(2)}, "does not know other"),
    ],
)
def test_names_an_unknown_key(change: dict[str, torch.Tensor], message: str):
    with pytest.raises(CheckpointError, match=message):
        rename(weights(**change), TABLE, source="file")


def test_names_the_published_key_that_is_missing_and_changes_nothing():
    model = nn.Sequential(nn.Linear(3, 2))
    before = model[0].weight.clone()
    found = weights()
    del found["old.0.lin.bias"]

    with pytest.raises(CheckpointError, match=r"file: .*missing old.0.lin.bias \(ours: 0.bias\)"):
        load(model, rename(found, TABLE, source="file"))

    assert torch.equal(model[0].weight, before)


def test_names_a_wrong_shape_and_a_weight_without_a_place():
    model = nn.Sequential(nn.Linear(4, 2, bias=False))

    with pytest.raises(CheckpointError) as error:
        load(model, rename(weights(), TABLE))

    assert "wrong shape old.0.lin.weight: expected [2, 4], got [2, 3]" in str(error.value)
    assert "left over old.0.lin.bias" in str(error.value)


def test_two_keys_with_one_name_are_refused():
    with pytest.raises(CheckpointError, match=r"b and a are both x"):
        rename({"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": "x", "b": "x"})


def test_parts_are_joined_in_order_and_a_missing_one_is_named():
    table = {f"l.{{i}}.{n}.{{w}}": Part("l.{i}.qkv.{w}", k, of=3) for k, n in enumerate("qkv")}
    parts = {f"l.0.{n}.weight": torch.full((1, 2), float(k)) for k, n in ((2, "v"), (0, "q"), (1, "k"))}

    renamed = rename(parts, table)

    assert renamed.state["l.0.qkv.weight"].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert published_names("l.0.qkv.weight", table) == ("l.0.q.weight", "l.0.k.weight", "l.0.v.weight")
    del parts["l.0.k.weight"]
    with pytest.raises(CheckpointError, match=r"missing l.0.k.weight beside l.0.v.weight, l.0.q.weight"):
        rename(parts, table)


def test_a_conversion_is_applied_and_its_fault_is_named():
    table = {"conv": Convert("patches", lambda tensor: tensor.unflatten(1, (2, 2)))}

    assert rename({"conv": torch.zeros(3, 4)}, table).state["patches"].shape == (3, 2, 2)
    with pytest.raises(CheckpointError, match=r"conv of shape \[3, 5\] cannot be converted"):
        rename({"conv": torch.zeros(3, 5)}, table)


def test_files_are_joined_and_a_weight_in_two_of_them_is_refused():
    one = rename({"a": torch.zeros(1)}, under("x.", {"a": "a"}), source="one")
    two = rename({"b": torch.zeros(1)}, {"b": "b"}, source="two")

    both = join(one, two)

    assert set(both.state) == {"x.a", "b"}
    assert problems({"x.a": torch.Size([1]), "c": torch.Size([1])}, both) == [
        "missing a published key (ours: c)",
        "left over b (would be b, which this configuration does not have)",
    ]
    with pytest.raises(CheckpointError, match=r"one: x.a came from another file already"):
        join(one, one)


def test_parts_are_dealt_over_a_new_axis():
    experts = {f"e.{e}.w{w}": torch.full((2, 3), float(10 * e + w)) for e in range(3) for w in (1, 3)}
    table = {f"e.{e}.w{w}": Part("e.both", 2 * e + w // 2, of=6, stack=3) for e in range(3) for w in (1, 3)}

    both = rename(experts, table).state["e.both"]

    assert both.shape == (3, 4, 3)
    assert both[:, :, 0].tolist() == [[1, 1, 3, 3], [11, 11, 13, 13], [21, 21, 23, 23]]
    assert published_names("e.both", table) == tuple(sorted(experts))
    with pytest.raises(CheckpointError, match=r"the parts of e.both differ in shape: .*e.1.w3 \[4, 3\]"):
        rename({**experts, "e.1.w3": torch.zeros(4, 3)}, table)


def test_a_missing_part_is_named_though_a_general_rule_knows_the_joined_weight_too():
    table = {"l.{i}.k": Part("l.{i}.kv", 0, of=2), "l.{i}.v": Part("l.{i}.kv", 1, of=2), "l.{i}.{rest}": "l.{i}.{rest}"}

    assert published_names("l.0.kv", table) == ("l.0.k", "l.0.v")
    assert set(rename({"l.0.kv": torch.zeros(1)}, table).state) == {"l.0.kv"}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_shared_parameter_is_filled_once_and_stays_shared(device: str):
    model = nn.Sequential(nn.Linear(2, 2, bias=False, device=device), nn.Linear(2, 2, bias=False, device=device))
    model[1].weight = model[0].weight

    load(model, rename({"w": torch.ones(2, 2)}, {"w": "0.weight"}))

    assert model[1].weight is model[0].weight
    assert model[1].weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
