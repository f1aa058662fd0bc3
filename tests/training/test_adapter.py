"""LoRA in a stage: what it trains, the folder that it leaves, and that it goes on where it stopped."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from avllm.chat.assistant import Assistant
from avllm.checkpoints.load import load_model, merge_adapter
from avllm.errors import ConfigError
from avllm.training import checkpoint, train
from avllm.training.progress import read_log
from tests.training.media_system import save_media_system, write_layouts
from tests.training.tiny_system import DATASETS, make_stage

pytest.importorskip("peft", reason="adapters need avllm[train]")
LORA = {"kind": "lora", "r": 4, "alpha": 8.0, "dropout": 0.1}
CONNECTOR = "branches.video.connector.projection"
IDS = torch.tensor([[1, 40, 50, 60]])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    save_media_system(root / "base")
    return root


@pytest.fixture(scope="module")
def layouts(root):
    return write_layouts(root)


def _stage(tmp_path, root, layouts, **changes):
    stage = {
        "init": str(root / "base"),
        "output": str(tmp_path / "out"),
        "trainable": [CONNECTOR],
        "adapter": LORA,
        "data": [layouts["videochat_instruct"]],
        "batch": 2,
        "schedule": {"steps_per_epoch": 3, "lr": 1e-2},
        "logging": {"every": 1, "tensorboard": False},
        **changes,
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(stage))
    return path


def test_the_output_is_an_adapter_that_answers_and_merges(tmp_path, root, layouts):
    out = train(_stage(tmp_path, root, layouts))

    assert not (out / "config.json").exists()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(root / "base")
    assert set(load_file(out / "trained.safetensors")) == {f"{CONNECTOR}.weight", f"{CONNECTOR}.bias"}
    adapted, processor = load_model(out)
    merged, _ = load_model(merge_adapter(out, tmp_path / "merged"))
    base, _ = load_model(root / "base")
    with torch.no_grad():
        logits = adapted(input_ids=IDS).logits
        assert torch.allclose(merged(input_ids=IDS).logits, logits, atol=1e-3)
        assert not torch.allclose(base(input_ids=IDS).logits, logits, atol=1e-1)
    own = merged.state_dict()
    assert torch.equal(own[f"{CONNECTOR}.weight"], load_file(out / "trained.safetensors")[f"{CONNECTOR}.weight"])
    video = root / "videos/p/1.mp4"
    assert Assistant(adapted, processor).chat().ask("What?", video=video, max_new_tokens=3) is not None


def test_all_linear_layers_of_the_decoder_but_the_head_get_one(tmp_path):
    out = train(make_stage(tmp_path, adapter=LORA, schedule={"steps_per_epoch": 1, "lr": 1e-2}), datasets=DATASETS)

    layers = {name.split(".lora_")[0] for name in load_file(out / "adapter_model.safetensors")}
    assert len(layers) == 2 * 7
    assert not any("lm_head" in name or "branches" in name for name in layers)


def test_only_the_named_layers_get_one(tmp_path):
    stage = make_stage(tmp_path, adapter={**LORA, "target": ["q_proj"]}, trainable=[])

    out = train(stage, ["schedule.steps_per_epoch=1", "schedule.warmup_steps=0"], datasets=DATASETS)

    names = load_file(out / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj"}
    assert not (out / "trained.safetensors").exists()


def test_an_adapter_goes_on_bit_by_bit(tmp_path):
    stage = make_stage(tmp_path, adapter=LORA)
    whole = train(stage, [f"output={tmp_path}/whole"], datasets=DATASETS)
    part = train(stage, datasets=DATASETS)
    for name in ("training.json", "trainable.safetensors", "adapter_model.safetensors", "adapter_config.json"):
        (part / name).unlink()
    newest = checkpoint.stored(part / "checkpoints")[-1]
    newest.rename(newest.with_name(".gone"))

    train(stage, resume=True, datasets=DATASETS)

    for file in ("trainable.safetensors", "adapter_model.safetensors"):
        expected, found = load_file(whole / file), load_file(part / file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_parts_of_an_earlier_stage_go_along(tmp_path, root, layouts):
    first = train(_stage(tmp_path, root, layouts, adapter=None, output=str(tmp_path / "first")))
    (tmp_path / "b").mkdir()

    out = train(_stage(tmp_path / "b", root, layouts, init=[str(root / "base"), str(first)], trainable=[]))

    stored, before = load_file(out / "trained.safetensors"), load_file(first / "trainable.safetensors")
    assert stored.keys() == before.keys()
    assert all(torch.equal(stored[name], before[name]) for name in stored)


def test_the_base_may_be_held_in_4_bits(tmp_path, root, layouts):
    pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")

    out = train(_stage(tmp_path, root, layouts, quantization="nf4", precision="bf16", gradient_checkpointing=True))

    weights = load_file(out / "adapter_model.safetensors")
    assert any(bool(weights[name].any()) for name in weights if "lora_B" in name)
    assert load_model(out)[1] is not None


def test_in_4_bits_a_look_at_held_out_data_changes_nothing_and_a_run_goes_on_bit_by_bit(tmp_path):
    pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")
    held_out = {"data": [{"kind": "tiny_features", "size": 5}], "every": 2}
    stage = make_stage(tmp_path, adapter=LORA, quantization="nf4", held_out=held_out)
    few = ["checkpoints.best=false"]
    whole = train(stage, [*few, f"output={tmp_path}/whole"], datasets=DATASETS)
    blind = train(stage, [*few, "held_out=null", f"output={tmp_path}/blind"], datasets=DATASETS)
    part = train(stage, few, datasets=DATASETS)
    for name in ("training.json", "trainable.safetensors", "adapter_model.safetensors", "adapter_config.json"):
        (part / name).unlink()
    newest = checkpoint.stored(part / "checkpoints")[-1]
    newest.rename(newest.with_name(".gone"))

    train(stage, few, resume=True, datasets=DATASETS)

    looks = [row["held_out_loss"] for row in read_log(whole / "log.csv") if "held_out_loss" in row]
    assert looks
    assert all(loss > 0 for loss in looks)
    expected = load_file(whole / "trainable.safetensors")
    for other in (blind, part):
        found = load_file(other / "trainable.safetensors")
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter.kind=dora"], "adapter.kind: got the text 'dora', allowed are: lora"),
        (["adapter.rank=4"], r"adapter\.rank: unknown key"),
        (["adapter.target=[query]"], r"adapter\.target\.0: 'query' is no linear layer of the decoder, it has: q_proj"),
        (["trainable=[decoder.model.norm]"], "trainable: names decoder.model.norm.weight of the decoder"),
        (["adapter=null", "quantization=nf4"], "quantization: weights in 4 bits cannot be trained; add an adapter"),
    ],
)
def test_what_cannot_be_is_told(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(make_stage(tmp_path, adapter=LORA), overrides, datasets=DATASETS)


def test_a_stage_does_not_start_from_an_adapter(tmp_path, root, layouts):
    out = train(_stage(tmp_path, root, layouts))

    with pytest.raises(ConfigError, match=r"init\.0: .*out is an adapter; make it a whole model first: avllm merge"):
        train(tmp_path / "stage.yaml", [f"init={out}", f"output={tmp_path}/next"])
