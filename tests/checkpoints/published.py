"""Tiny random models written as the published ones lie on disk: files, containers, key names and extra keys."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from avllm.checkpoints import video_llama, video_llava, videochat, videollama2
from avllm.checkpoints.rename import Convert, Part, Table, _target, published_names, unshared_state
from avllm.config import PACKAGE, parse, to_plain
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System

LLAMA = {
    **{"model_type": "llama", "vocab_size": 688, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
}
MISTRAL = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 2}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2}
MIXTRAL = {**MISTRAL, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
TOWER = {
    **{"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 7},
    **{"image_size": 28, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "model_type": "clip_vision_model"},
}
SIGLIP = {**TOWER, "model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh"}
BERT = {"width": 32, "num_heads": 4, "mlp_width": 64, "dropout": 0.0}
BEATS = {
    **{"input_patch_size": 16, "embed_dim": 16, "encoder_layers": 2, "encoder_embed_dim": 24, "conv_pos": 8},
    **{"encoder_ffn_embed_dim": 40, "encoder_attention_heads": 4, "conv_pos_groups": 4, "num_buckets": 32},
    **{"max_distance": 64, "gru_rel_pos": True, "deep_norm": True, "layer_norm_first": False, "activation_fn": "gelu"},
    **{"relative_position_embedding": True},
}


@dataclass
class Layout:
    """One published layout.

    Args:
        sources: what a user gives to `avllm convert`.
        options: and its options.
        state: our weights that must come out.
        files: name of a table -> the file (or folder) that holds its keys.
    """

    sources: list[Path]
    options: dict[str, Any]
    state: dict[str, Tensor]
    files: dict[str, Path]


def random_model(system: System, seed: int = 0) -> AvllmForConditionalGeneration:
    """A model whose every weight differs from every other one."""
    torch.manual_seed(seed)
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape) * 0.05 + (1.0 if "norm" in name and name.endswith("weight") else 0))
    return model


def published(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Our weights under published names: the table read backwards."""
    found: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        names = published_names(ours, table)
        target = _target(names[0], table) if names else None
        if isinstance(target, Part):
            values = (tensor.flatten(0, 1) if target.stack else tensor).chunk(target.of)
            found |= {name: value.clone() for name, value in zip(names, values, strict=True)}
        elif isinstance(target, Convert) and tensor.ndim == 5:  # a kernel over one frame
            found[names[0]] = tensor[:, :, 0].clone()
        elif names:
            found[names[0]] = tensor.clone()
    return found


def llama_folder(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], *, shards: int = 2) -> Path:
    """A language model as on the hub in 2023: two pickled shards and their index, with buffers of rotary positions."""
    folder.mkdir(parents=True)
    weights = {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    names, index = list(weights), {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = names[number::shards]
        torch.save({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return tokenizer(folder)


def hub_folder(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], *, words: bool = True) -> Path:
    """A folder of one safetensors file."""
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return tokenizer(folder) if words else folder


def tokenizer(folder: Path) -> Path:
    """Puts nano's tokenizer there."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(PACKAGE / "nano" / "weights" / name, folder / name)
    return folder


def training(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint of a training."""
    optimizer = {"state": {0: {"step": 1.0, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    return {"model": dict(weights), "optimizer": optimizer, "config": {"run": {"seed": 1}}, "scaler": {}, "epoch": 3}


def write_yaml(folder: Path, system: System) -> Path:
    """The sizes, which files of this system do not hold."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_plain(system)))
    return path


def video_llama_layout(folder: Path) -> Layout:
    """VL + AL + EVA + BLIP-2 + ImageBind + LLaMA."""
    trunk = {"width": 16, "depth": 1, "num_heads": 4}
    frame_qformer = {**BERT, "num_queries": 3, "depth": 2, "cross_every": 2}
    data = {
        "decoder": LLAMA,
        "prompt": "llama2",
        "weights": {"table": "video_llama"},
        "branches": {
            "video": {
                "media": {"kind": "frames", "num_frames": 4, "size": 28},
                "encoder": {"kind": "eva_clip", "image_size": 28, "width": 24, "depth": 2, "num_heads": 4},
                "connector": {
                    **{"kind": "temporal_qformer", **BERT, "depth": 2, "num_queries": 4, "max_frames": 8},
                    "frame_qformer": frame_qformer,
                },
            },
            "audio": {
                "media": {"kind": "segments", "num_segments": 2, "num_mel_bins": 32, "num_frames": 36},
                "encoder": {
                    **{"kind": "imagebind", "width": 20, "vision": {**trunk, "image_size": 28}},
                    "audio": {**trunk, "num_mel_bins": 32, "num_frames": 36, "kernel_size": 16, "stride": 10},
                },
                "connector": {"kind": "temporal_qformer", **BERT, "depth": 2, "num_queries": 2, "max_frames": 4},
            },
        },
    }
    system = parse(System, data)
    state = unshared_state(random_model(system))[0]
    tables = video_llama.tables(system)
    files = {
        "eva_vit_g": folder / "eva_vit_g.pth",
        "blip2": folder / "blip2_pretrained_flant5xxl.pth",
        "vl": folder / "VL_LLaMA_2_7B_Finetuned.pth",
        "imagebind_huge": folder / "imagebind_huge.pth",
        "al": folder / "AL_LLaMA_2_7B_Finetuned.pth",
    }
    weights = {name: published(state, tables[name]) for name in files}
    weights["eva_vit_g"]["blocks.2.norm1.weight"] = torch.ones(24)
    weights["blip2"] |= {"t5_proj.weight": torch.ones(4, 32), "Qformer.bert.embeddings.position_ids": torch.ones(1, 9)}
    weights["vl"] |= {"llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    weights["al"] |= {
        "video_Qformer.bert.embeddings.position_ids": torch.ones(1, 9),
        "audio_encoder.modality_preprocessors.text.mask": torch.ones(3, 3),
    }
    weights["imagebind_huge"] |= {
        "modality_preprocessors.text.mask": torch.ones(3, 3),
        "modality_trunks.depth.blocks.0.norm_1.weight": torch.ones(5),
    }
    for name, path in files.items():
        data = {"blip2": {"model": weights[name]}, "vl": training(weights[name]), "al": training(weights[name])}
        torch.save(data.get(name, weights[name]), path)
    llama = llama_folder(folder / "llama-2-7b-chat-hf", published(state, tables["llama"]), LLAMA)
    return Layout([folder], {"system": str(write_yaml(folder, system))}, state, {**files, "llama": llama})


def videochat_layout(folder: Path) -> Layout:
    """EVA + BLIP-2 + VideoChat + Vicuna, with the configuration that lies beside them."""
    model = {
        **{"vit_model": "eva_clip_g", "img_size": 28, "num_query_token": 4, "temporal_downsample": False},
        **{"no_lmhra": True, "double_lmhra": False, "lmhra_reduction": 2.0, "gmhra_layers": 1, "gmhra_dropout": 0.5},
        **{"extra_num_query_token": 3},
    }
    vit = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 4, "mlp_ratio": 4.3637}
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = {"model": model, "vit": vit, "qformer": {**bert, "cross_attention_freq": 2}}
    system = videochat.system_from(config, decoder=LLAMA)
    state = unshared_state(random_model(system))[0]
    tables = videochat.tables(system)
    files = {
        "eva_vit_g": folder / "eva_vit_g.pth",
        "blip2": folder / "blip2_pretrained_flant5xxl.pth",
        "videochat": folder / "videochat_7b.pth",
    }
    weights = {name: published(state, tables[name]) for name in files}
    weights["eva_vit_g"] |= {"norm.weight": torch.ones(24), "blocks.2.norm1.weight": torch.ones(24)}
    weights["blip2"] |= {"ln_vision.weight": torch.zeros(24), "t5_proj.bias": torch.ones(3)}
    weights["videochat"] |= {"llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    torch.save(weights["eva_vit_g"], files["eva_vit_g"])
    torch.save({"model": weights["blip2"]}, files["blip2"])
    torch.save({"model": weights["videochat"]}, files["videochat"], _use_new_zipfile_serialization=False)
    (folder / "config.json").write_text(json.dumps(config))
    llama = llama_folder(folder / "vicuna", published(state, tables["llama"]), LLAMA)
    return Layout([*files.values(), llama], {}, state, {**files, "llama": llama})


VIDEO_LLAVA = {
    **{k: v for k, v in LLAMA.items() if k != "model_type"},
    **{"model_type": "llava", "mm_image_tower": "LanguageBind/LanguageBind_Image", "mm_hidden_size": 24},
    **{"mm_video_tower": "LanguageBind/LanguageBind_Video_merge", "mm_projector_type": "mlp2x_gelu"},
    **{"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "tokenizer_model_max_length": 3072},
}
IMAGE = {**TOWER, "hidden_act": "gelu", "add_time_attn": False, "num_frames": 1}
VIDEO = {**TOWER, "hidden_act": "gelu", "add_time_attn": True, "num_frames": 4}


def _video_llava(folder: Path) -> tuple[dict[str, Tensor], dict[str, Table], dict[str, Path]]:
    config = {**VIDEO_LLAVA, "_image_vision_config": IMAGE, "_video_vision_config": VIDEO}
    system = video_llava.system_from(config)
    state, tables = unshared_state(random_model(system))[0], video_llava.tables(system)
    files = {}
    for kind, name, sizes in (("image", "LanguageBind_Image", IMAGE), ("video", "LanguageBind_Video_merge", VIDEO)):
        weights = published(state, tables[f"languagebind_{kind}"])
        weights |= {"text_model.final_layer_norm.weight": torch.ones(3), "logit_scale": torch.tensor(2.0)}
        data = {"model_type": name.removesuffix("_merge").replace("_", ""), "vision_config": sizes}
        files[f"languagebind_{kind}"] = llama_folder(folder / name, weights, data, shards=1)
        rotary = files[f"languagebind_{kind}"] / "pytorch_model-00001-of-00001.bin"
        torch.save(weights, rotary)
        _index(files[f"languagebind_{kind}"], list(weights), rotary.name)
    return state, tables, files


def _index(folder: Path, names: list[str], file: str) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))


def video_llava_layout(folder: Path) -> Layout:
    """The original folder, whose towers' sizes are in the LanguageBind folders."""
    state, tables, files = _video_llava(folder)
    main = llama_folder(folder / "Video-LLaVA-7B", published(state, tables["model"]), VIDEO_LLAVA)
    return Layout([main, *files.values()], {}, state, {"model": main, **files})


def projector_layout(folder: Path) -> Layout:
    """mm_projector.bin of stage 1, the towers, and the language model as --decoder."""
    state, tables, files = _video_llava(folder)
    pretrain = folder / "Video-LLaVA-Pretrain-7B"
    pretrain.mkdir()
    torch.save(published(state, tables["mm_projector"]), pretrain / "mm_projector.bin")
    (pretrain / "config.json").write_text(json.dumps(VIDEO_LLAVA))
    decoder = llama_folder(folder / "vicuna", published(state, tables["decoder"]), LLAMA)
    files |= {"mm_projector": pretrain / "mm_projector.bin", "decoder": decoder}
    return Layout([pretrain, *list(files.values())[:2]], {"decoder": decoder}, state, files)


def video_llava_hf_layout(folder: Path) -> Layout:
    """The port of `transformers`."""
    config = {
        **{"model_type": "video_llava", "vision_config": TOWER, "text_config": LLAMA, "vision_feature_layer": -2},
        **{"projector_hidden_act": "gelu", "vision_feature_select_strategy": "default", "image_token_index": 686},
        **{"video_token_index": 687, "image_seq_length": 16, "video_seq_length": 68},
    }
    system = video_llava.system_from(config)
    state, tables = unshared_state(random_model(system))[0], video_llava.tables(system)
    main = hub_folder(folder / "Video-LLaVA-7B-hf", published(state, tables["hf"]), config)
    return Layout([main], {}, state, {"hf": main})


def _videollama2(decoder: Mapping[str, Any], tower: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    names = {"llama": "videollama2", **{kind: f"videollama2_{kind}" for kind in ("mistral", "mixtral", "qwen2")}}
    return {
        **decoder,
        **{"model_type": names[decoder["model_type"]], "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
        **{"mm_projector_type": "stc_connector", "mm_hidden_size": 24, "mm_vision_select_layer": -2, "num_frames": 4},
        **{"mm_vision_select_feature": "patch", "vision_config": dict(tower), **more},
    }


def videollama2_layout(
    folder: Path, decoder: Mapping[str, Any] = MISTRAL, tower: Mapping[str, Any] = TOWER, **more: Any
) -> Layout:
    """The folder of a chat checkpoint."""
    config = _videollama2(decoder, tower, **more)
    system = videollama2.system_from(config)
    state, tables = unshared_state(random_model(system))[0], videollama2.tables(system)
    main = hub_folder(folder / "VideoLLaMA2-7B", published(state, tables["model"]), config)
    return Layout([main], {}, state, {"model": main})


def base_layout(folder: Path) -> Layout:
    """mm_projector.bin of a -Base repository, a folder of CLIP, and Mistral."""
    config = {k: v for k, v in _videollama2(MISTRAL, TOWER).items() if k != "vision_config"}
    system = videollama2.system_from({**config, "vision_config": TOWER})
    state, tables = unshared_state(random_model(system))[0], videollama2.tables(system)
    base = folder / "VideoLLaMA2-7B-Base"
    base.mkdir()
    torch.save(published(state, tables["mm_projector"]), base / "mm_projector.bin")
    (base / "config.json").write_text(json.dumps(config))
    clip = {**published(state, tables["vision_tower"]), "text_projection.weight": torch.ones(2, 2)}
    tower = hub_folder(folder / "clip", clip, {"model_type": "clip", "vision_config": TOWER}, words=False)
    decoder = llama_folder(folder / "mistral", published(state, tables["decoder"]), MISTRAL)
    files = {"mm_projector": base / "mm_projector.bin", "vision_tower": tower, "decoder": decoder}
    return Layout([base, tower, decoder], {}, state, files)


def av_layout(folder: Path) -> Layout:
    """The folder of VideoLLaMA 2.1 with audio_tower.bin, mm_projector_a.bin, and the BEATs file it was made from."""
    more = {"mm_projector_type": "stc_connector_v35"}
    sound = {"mm_audio_tower": "beats", "mm_projector_a_type": "mlp2x_gelu", "beats_cfg": BEATS}
    config = _videollama2(QWEN2, SIGLIP, **more)
    system = videollama2.system_from({**config, **sound})
    state, tables = unshared_state(random_model(system))[0], videollama2.tables(system)
    seen = {name: tensor for name, tensor in state.items() if not name.startswith("branches.audio.")}
    main = hub_folder(folder / "VideoLLaMA2.1-7B-16F", published(seen, tables["model"]), config)
    files = {"model": main}
    for kind in ("audio_tower", "mm_projector_a"):
        files[kind] = folder / f"{kind}.bin"
        torch.save(published(state, tables[kind]), files[kind])
    beats = {name: torch.zeros_like(tensor) for name, tensor in published(state, tables["beats"]).items()}
    torch.save({"cfg": BEATS, "model": {**beats, "predictor.bias": torch.ones(3)}}, folder / "BEATs.pt")
    return Layout([*files.values(), folder / "BEATs.pt"], {}, state, files)


def lora_of(base: Layout, folder: Path) -> Layout:
    """A LoRA adapter of a model, with a projector that was trained on, beside the other parts of the model."""
    state, files = dict(base.state), dict(base.files)
    adapter = folder / "lora"
    adapter.mkdir()
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    name = "model.layers.1.self_attn.q_proj"
    pair = {f"base_model.model.{name}.lora_{part}.weight": value for part, value in (("A", down), ("B", up))}
    torch.save(pair, adapter / "adapter_model.bin")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}))
    projector = files.pop("mm_projector")
    weights = torch.load(projector, weights_only=True)
    trained = {f"base_model.model.{key}": value * 2 for key, value in weights.items()}
    torch.save(trained, adapter / "non_lora_trainables.bin")
    shutil.copyfile(projector.parent / "config.json", adapter / "config.json")
    state |= {key: value * 2 for key, value in state.items() if ".connector." in key}
    state[f"decoder.{name}.weight"] = state[f"decoder.{name}.weight"] + up @ down * 3.0
    decoder = files.pop("decoder")
    towers = list(files.values())
    files |= {"decoder": decoder, "lora": adapter / "adapter_model.bin"}
    return Layout([adapter, *towers], {"decoder": decoder}, state, files)


def delta_layout(folder: Path) -> Layout:
    """Video-LLaMA with Vicuna as its delta, and LLaMA, whose vocabulary is one token shorter."""
    layout = video_llama_layout(folder)
    llama = layout.files["llama"]
    whole = {name.removeprefix("decoder."): t for name, t in layout.state.items() if name.startswith("decoder.")}
    shutil.rmtree(llama)
    torch.manual_seed(1)
    change = {name: torch.randn(t.shape) * 0.002 for name, t in whole.items()}
    grown = ("model.embed_tokens.weight", "lm_head.weight")
    base = {n: (t - change[n])[: -1 if n in grown else None] for n, t in whole.items()}
    padded = {n: torch.nn.functional.pad(t, (0, 0, 0, 1)) if n in grown else t for n, t in base.items()}
    delta = {n: t - padded[n] for n, t in whole.items()}
    files = {
        "delta": llama_folder(folder / "vicuna-7b-delta-v0", delta, LLAMA),
        "base": llama_folder(folder / "llama-7b", base, {**LLAMA, "vocab_size": 687}),
    }
    return replace(layout, files={**{k: v for k, v in layout.files.items() if k != "llama"}, **files})


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "video_llama": video_llama_layout,
    "videochat": videochat_layout,
    "video_llava": video_llava_layout,
    "video_llava_projector": projector_layout,
    "video_llava_hf": video_llava_hf_layout,
    "videollama2_mistral": videollama2_layout,
    "videollama2_mixtral": lambda folder: videollama2_layout(folder, MIXTRAL),
    "videollama2_qwen2_siglip": lambda folder: videollama2_layout(
        folder, QWEN2, SIGLIP, mm_projector_type="stc_connector_v35"
    ),
    "videollama2_base": base_layout,
    "videollama2_av": av_layout,
    "lora": lambda folder: lora_of(base_layout(folder), folder),
    "delta": delta_layout,
}
