from dataclasses import replace

import pytest
import torch

from avllm.checkpoints.rename import join, load, published_names, rename
from avllm.checkpoints.videochat import eva_file, fit_positions, inflate, system_from, tables
from avllm.connectors import QFormerProjection
from avllm.connectors.qformer import FrameQFormer
from avllm.encoders import EvaClipTemporal
from avllm.errors import CheckpointError, ConfigError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from avllm.model.configuration import CONNECTORS, ENCODERS

CONFIG = {
    "vit": {"img_size": 12, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2.6},
    "qformer": {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "cross_attention_freq": 2,
    },
    "num_query_token": 3,
    "extra_num_query_token": 2,
    "llama": {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 20,
    },
    "model": {
        "img_size": 12,
        "gmhra_layers": 1,
        "gmhra_dropout": 0.5,
        "no_lmhra": True,
        "double_lmhra": False,
        "lmhra_reduction": 2.0,
        "temporal_downsample": False,
    },
}


def with_settings(**changes):
    return {**CONFIG, "model": {**CONFIG["model"], **changes}}


def model_of(system: System) -> AvllmForConditionalGeneration:
    torch.manual_seed(0)
    return AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()


def published(model: AvllmForConditionalGeneration, system: System) -> dict[str, dict[str, torch.Tensor]]:
    """The model's weights as the four published files hold them: each weight in one file, ln_vision in two."""
    known = tables(system)
    files = {kind: {} for kind in ("eva_vit_g", "blip2", "videochat", "llama")}
    for name, tensor in model.state_dict().items():
        kind = next(kind for kind in files if published_names(name, known[kind]))
        files[kind][published_names(name, known[kind])[0]] = tensor
    eva = files["eva_vit_g"]
    eva["patch_embed.proj.weight"] = eva["patch_embed.proj.weight"][:, :, 0]
    files["blip2"]["ln_vision.weight"] = torch.full((8,), 7.0)
    return files


def test_the_published_files_fill_the_model_and_videochats_norm_wins():
    system = system_from(CONFIG)
    model, known = model_of(system), tables(system)
    files = published(model, system)
    assert {kind: len(file) > 2 for kind, file in files.items()} == dict.fromkeys(files, True)
    surplus = {f"blocks.2.{name}": torch.zeros(8) for name in ("norm1.weight", "norm2.bias")} | {
        "head.bias": torch.ones(1)
    }
    files["eva_vit_g"] |= surplus
    other = model_of(system)
    torch.nn.init.zeros_(other.branches["video"].encoder.gmhra_token)

    renamed = {kind: rename(file, known[kind], source=kind) for kind, file in files.items()}
    load(other, join(*renamed.values()))

    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    assert list(renamed["blip2"].dropped) == ["ln_vision.weight"]
    assert "its own checkpoint" in renamed["blip2"].dropped["ln_vision.weight"]
    assert set(renamed["eva_vit_g"].dropped) == set(surplus)


def test_a_missing_norm_of_videochat_is_named():
    system = system_from(CONFIG)
    files, known = published(model_of(system), system), tables(system)
    del files["videochat"]["ln_vision.weight"]
    renamed = [rename(file, known[kind], source=kind) for kind, file in files.items()]

    with pytest.raises(CheckpointError, match=r"missing ln_vision\.weight \(ours: .*input_norm\.weight\)"):
        load(model_of(system), join(*renamed))


@pytest.mark.parametrize("changes", [{}, {"no_lmhra": False, "double_lmhra": True, "temporal_downsample": True}])
def test_a_whole_state_dict_has_a_name_for_every_weight(changes):
    system = system_from(with_settings(**changes))
    table, model = tables(system)["model"], model_of(system)

    names = {name: published_names(name, table) for name in model.state_dict()}

    assert [name for name, keys in names.items() if len(keys) != 1] == []
    state = {keys[0]: model.state_dict()[name] for name, keys in names.items()}
    load(model_of(system), rename(state, table))
    assert {key.split(".")[0] for key in state} == {
        *("visual_encoder", "ln_vision", "Qformer", "query_tokens", "extra_query_tokens", "llama_proj", "llama_model")
    }


def test_buffers_of_the_checkpoint_are_left_out_with_a_reason():
    buffers = {
        "Qformer.bert.embeddings.position_ids": torch.zeros(1, 4),
        "llama_model.model.layers.31.self_attn.rotary_emb.inv_freq": torch.zeros(2),
    }

    renamed = rename(buffers, tables(system_from(CONFIG))["videochat"])

    assert (renamed.state, set(renamed.dropped)) == ({}, set(buffers))


def test_a_kernel_of_pictures_looks_at_the_frame_in_the_middle():
    kernel = torch.randn(2, 3, 4, 4)
    clip = torch.randn(1, 3, 3, 4, 4)

    out = torch.nn.functional.conv3d(clip, inflate(kernel, num_frames=3))

    torch.testing.assert_close(out[:, :, 0], torch.nn.functional.conv2d(clip[:, :, 1], kernel), atol=1e-5, rtol=1e-5)
    assert inflate(inflate(kernel, num_frames=3), num_frames=1).shape == (2, 3, 3, 4, 4)  # has its frames already


def test_positions_are_fitted_to_the_grid_of_the_model():
    table = torch.randn(1, 17, 8)

    assert fit_positions(table, side=4) is table
    fitted = fit_positions(table, side=3)
    assert fitted.shape == (1, 10, 8)
    assert torch.equal(fitted[:, 0], table[:, 0])
    with pytest.raises(CheckpointError, match=r"pos_embed of shape \[1, 16, 8\].*16 positions, expected a class"):
        rename({"pos_embed": table[:, 1:]}, eva_file(system_from(CONFIG).branches["video"].encoder))


def test_a_published_configuration_names_no_sizes_and_gives_those_of_the_yaml():
    published = with_settings(img_size=224, gmhra_layers=8, num_query_token=32, extra_num_query_token=64)
    yaml = System.from_yaml("videochat_7b")

    system = system_from({"model": published["model"]}, decoder=yaml.decoder)

    assert replace(system, weights=yaml.weights) == yaml
    assert system.branches["video"].num_tokens((8, 3, 224, 224)) == 96


@pytest.mark.parametrize(("name", "trained"), [("videochat_7b", 205_542_528), ("videochat_13b", 206_329_984)])
def test_the_yamls_have_the_published_sizes(name, trained):
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(AvllmConfig.from_yaml(name))
    table = tables(System.from_yaml(name))["videochat"]

    state = model.named_parameters()

    assert sum(p.numel() for key, p in state if published_names(key, table)) == trained


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "gmhra_norm_eps": 1e-6}, "gmhra_norm_eps: expected 1e-05 as in the published code, got 1e-06"),
        ({**CONFIG, "qformer": {**CONFIG["qformer"], "hidden_act": "relu"}}, "qformer: expected layer_norm_eps 1e-12"),
        ({key: value for key, value in CONFIG.items() if key != "llama"}, "llama: the configuration does not describe"),
    ],
)
def test_names_a_configuration_that_is_no_videochat(config, message):
    with pytest.raises(ConfigError, match=message):
        system_from(config)


def test_the_kinds_are_registered():
    assert ENCODERS["eva_clip_temporal"] is EvaClipTemporal.Config
    assert CONNECTORS["qformer"] is QFormerProjection.Config
    assert isinstance(system_from(CONFIG).branches["video"].connector.frame_qformer, FrameQFormer.Config)
