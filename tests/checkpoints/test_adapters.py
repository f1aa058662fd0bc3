"""Adapters: loaded beside their base model they compute what they compute merged into it; quantised decoders."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from avllm.checkpoints import adapters
from avllm.checkpoints.load import find_model, load_model, merge_adapter
from avllm.errors import CheckpointError, ConfigError

peft = pytest.importorskip("peft", reason="adapters need avllm[train]")
IDS = torch.tensor([[1, 5, 6, 7, 8, 300]])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    model, _ = load_model("nano")
    targets = r"decoder\.model\.layers\.\d+\.(self_attn|mlp)\..*_proj"
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    trained = {"branches.video.connector.projection.bias": torch.full((128,), 0.25)}
    return adapters.save_adapter(adapted, tmp_path_factory.mktemp("a") / "adapter", base="nano", trained=trained)


@torch.no_grad()
def test_merged_weights_compute_what_the_adapter_does(adapter, tmp_path):
    base, _ = load_model("nano")
    unmerged, _ = load_model(adapter)
    merged, _ = load_model(merge_adapter(adapter, tmp_path / "merged", dtype="fp32"))
    expected = unmerged(input_ids=IDS).logits
    assert torch.allclose(merged(input_ids=IDS).logits, expected, atol=1e-5)
    assert not torch.allclose(base(input_ids=IDS).logits, expected, atol=1e-2)
    for model in (unmerged, merged):
        assert bool((model.state_dict()["branches.video.connector.projection.bias"] == 0.25).all())
    assert not any("lora" in name for name in merged.state_dict())


def test_the_merged_model_is_stored_as_its_base_is(adapter, tmp_path):
    merged = merge_adapter(adapter, tmp_path / "merged")
    assert load_file(merged / "model.safetensors")["decoder.model.norm.weight"].dtype == torch.float16


def damaged(adapter, tmp_path, change):
    folder = shutil.copytree(adapter, tmp_path / "damaged")
    state = load_file(folder / adapters.WEIGHTS)
    change(state, folder)
    save_file(state, folder / adapters.WEIGHTS)
    return folder


@pytest.mark.parametrize("fault", ["missing", "left over", "of another shape", "no base", "trained"])
def test_what_does_not_fit_is_refused(adapter, tmp_path, fault):
    def change(state, folder):
        name = sorted(state)[0]
        if fault == "missing":
            del state[name]
        elif fault == "left over":
            state[name.replace("layers.0", "layers.9")] = state[name].clone()
        elif fault == "of another shape":
            state[name] = state[name][:, :-1].contiguous()
        elif fault == "no base":
            config = json.loads((folder / adapters.ADAPTER).read_text())
            (folder / adapters.ADAPTER).write_text(json.dumps({**config, "base_model_name_or_path": None}))
        else:
            save_file({"branches.video.connector.nothing": torch.zeros(2)}, folder / adapters.TRAINED)

    with pytest.raises(CheckpointError):
        load_model(damaged(adapter, tmp_path, change))


@pytest.mark.parametrize("file", [adapters.WEIGHTS, adapters.TRAINED])
def test_s13_notes_in_the_header_that_are_no_texts_are_one_line(adapter, tmp_path, file):
    folder = shutil.copytree(adapter, tmp_path / "damaged")
    data = (folder / file).read_bytes().replace(b'{"format":"pt"}', b'{"format":128 }')
    (folder / file).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{file}: __metadata__ of its safetensors header is damaged"):
        merge_adapter(folder, tmp_path / "merged")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("megatron_core", "canary_module"),
        ("megatron_config", {"tensor_model_parallel_size": 1}),
        ("auto_mapping", {"base_model_class": "Canary", "parent_library": "canary_module"}),
        ("eva_config", {"rho": 2.0}),
        ("corda_config", {}),
        ("loftq_config", {"loftq_bits": 4}),
        ("runtime_config", {"ephemeral_gpu_offload": True}),
        ("layer_replication", [[0, 1]]),
        ("use_dora", True),
        ("trainable_token_indices", [1]),
    ],
)
def test_s13_no_module_that_an_adapter_names_is_imported(adapter, tmp_path, monkeypatch, key, value):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "canary_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\nclass Canary: pass\n")
    monkeypatch.syspath_prepend(str(modules))
    folder = shutil.copytree(adapter, tmp_path / "forged")
    settings = json.loads((folder / adapters.ADAPTER).read_text())
    (folder / adapters.ADAPTER).write_text(json.dumps({**settings, "megatron_core": "canary_module", key: value}))
    for call in (load_model, lambda path: merge_adapter(path, tmp_path / "merged")):
        with pytest.raises(CheckpointError, match=r"adapter_config\.json: \w+ (is|asks)"):
            call(folder)
    assert not (tmp_path / "canary").exists()
    assert "canary_module" not in sys.modules


def test_an_adapter_of_another_model_is_told_in_one_line(adapter, tmp_path):
    def narrow(state, folder):
        state.update({name: tensor[:, :64].contiguous() for name, tensor in state.items() if "lora_A" in name})

    with pytest.raises(
        CheckpointError, match=r"does not fit its base model: decoder\..* \(\d+ such weights\)"
    ) as found:
        load_model(damaged(adapter, tmp_path, narrow))
    assert "\n" not in str(found.value)


def test_a_base_model_that_is_gone_is_told(adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "moved")
    settings = json.loads((folder / adapters.ADAPTER).read_text())
    (folder / adapters.ADAPTER).write_text(json.dumps({**settings, "base_model_name_or_path": "/nowhere/model"}))

    for run in (lambda: load_model(folder), lambda: merge_adapter(folder, tmp_path / "out")):
        with pytest.raises(CheckpointError, match="moved: its base model /nowhere/model is not here"):
            run()


def test_a_whole_model_is_no_adapter(tmp_path):
    with pytest.raises(CheckpointError, match="whole model already"):
        merge_adapter("nano", tmp_path / "out")


@torch.no_grad()
@pytest.mark.parametrize(("kind", "layer"), [("int8", "Linear8bitLt"), ("nf4", "Linear4bit")])
def test_a_quantised_decoder_answers_much_as_the_whole_one_does(kind, layer):
    pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")
    whole, _ = load_model("nano")
    small, _ = load_model("nano", quantization=kind)
    kinds = {name: type(module).__name__ for name, module in small.named_modules()}
    assert kinds["decoder.model.layers.0.self_attn.q_proj"] == layer
    assert not any(layer == found for name, found in kinds.items() if name.startswith("branches"))
    ours, theirs = small(input_ids=IDS).logits.float(), whole(input_ids=IDS).logits
    alike = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    assert float(alike.min()) > 0.97, alike
    assert not torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_an_adapter_is_not_added_to_quantised_weights(adapter, tmp_path, kind):
    pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")
    message = "cannot be added to quantised weights without rounding it away"
    with pytest.raises(CheckpointError, match=message):
        adapters.merge(load_model("nano", quantization=kind)[0], adapter)
    adapted, _ = load_model(adapter, quantization=kind)
    with pytest.raises(CheckpointError, match=message):
        next(module for name, module in adapted.named_modules() if name.endswith("q_proj")).merge()  # as peft does

    base, processor = load_model("nano", quantization=kind)
    base.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    folder = shutil.copytree(adapter, tmp_path / "on_quantised")
    settings = json.loads((folder / adapters.ADAPTER).read_text())
    (folder / adapters.ADAPTER).write_text(json.dumps({**settings, "base_model_name_or_path": str(tmp_path / "base")}))
    with pytest.raises(CheckpointError, match=r"base model .*base holds quantised weights"):
        merge_adapter(folder, tmp_path / "merged")
    with pytest.raises(ConfigError, match="are quantised already; leave it out"):
        load_model(tmp_path / "base", quantization=kind)


def test_settings_that_cannot_be_had_are_refused():
    with pytest.raises(ConfigError, match="expected one of: fp32"):
        load_model("nano", dtype="float8")
    with pytest.raises(ConfigError, match="hundred times slower"):
        load_model("nano", dtype="fp16", device="cpu")
    with pytest.raises(ConfigError, match="int8 or nf4"):
        load_model("nano", quantization="int3")  # type: ignore[arg-type]


def test_bf16_by_name():
    model, _ = load_model("nano", dtype="bf16")
    assert model.dtype == torch.bfloat16


def test_a_hub_id_that_cannot_be_had_is_told(monkeypatch):
    def refuse(repo, **options):
        raise OSError(f"no route to the hub for {repo}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="the hub does not give it"):
        find_model("someone/something")


def test_a_hub_id_is_taken_from_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **options: str(find_model("nano")))
    assert load_model("someone/something")[0].config.model_type == "avllm"
