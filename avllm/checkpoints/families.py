"""How the sources of each published system become a `System` of ours, and where its files are to be had."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from avllm import config as yaml_config
from avllm.checkpoints import kinds
from avllm.checkpoints.kinds import Kind
from avllm.checkpoints.rename import Table
from avllm.checkpoints.sources import Source
from avllm.connectors import Stc
from avllm.errors import CheckpointError
from avllm.model import System

# Of a decoder's config.json, what does not describe the model.
OUTSIDE = {"architectures", "torch_dtype", "dtype", "transformers_version", "use_cache", "_name_or_path", "auto_map"}
Parts = Sequence[tuple[Source, Kind]]
PROJECTOR = "model.mm_projector."
SOUND = ("mm_audio_tower", "mm_projector_a_type", "mm_hidden_size_a", "hidden_size_a", "beats_cfg")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One published system.

    Args:
        module: of `avllm.checkpoints`, with its name tables.
        systems: makes the systems that the sources may be, from them and the YAMLs that were asked for.
        files: name of a table -> the published file that it maps, in words.
    """

    module: str
    systems: Callable[[Parts, Sequence[str]], list[System]]
    files: Mapping[str, str]

    def tables(self, system: System, *, start: bool = False) -> dict[str, Table]:
        """File kind -> name table onto the whole model; with `start`, as its training begins."""
        module = import_module(f"avllm.checkpoints.{self.module}")
        return (getattr(module, "start_tables", module.tables) if start else module.tables)(system)


def _from_yaml(parts: Parts, names: Sequence[str]) -> list[System]:
    """Systems whose files hold no configuration: the YAMLs of the published sizes, around the given decoder."""
    systems = [System.from_yaml(name) for name in names]
    decoder = _of_kind(parts, "decoder")
    if decoder is None:
        return systems
    width = decoder.config.get("hidden_size")
    system = next((system for system in systems if system.decoder.get("hidden_size") == width), systems[0])
    return [replace(system, decoder=decoder_of(decoder))]


def _video_llama(parts: Parts, names: Sequence[str]) -> list[System]:
    systems = _from_yaml(parts, names)
    given = {kind.name for _, kind in parts}
    if "vl" in given and not given & {"al", "imagebind"}:
        systems = [replace(system, branches={"video": system.branches["video"]}) for system in systems]
    # Video-LLaMA is published with Vicuna v0 (of LLaMA 1) and with LLaMA-2-chat; their context tells them apart.
    if _of_kind(parts, "decoder") is not None and names == YAMLS[kinds.VIDEO_LLAMA]:
        prompt = "llama2" if systems[0].decoder.get("max_position_embeddings", 2048) >= 4096 else "vicuna"
        systems = [replace(system, prompt=prompt) for system in systems]
    return systems


def equal_in_keys(system: System, parts: Parts) -> list[str]:
    """What keys and shapes cannot tell of a system whose files have no configuration, and how it was taken."""
    connector = getattr(system.branches.get("video"), "connector", None)
    decoder = _of_kind(parts, "decoder")
    is_video_llama = system.weights is not None and system.weights.table == kinds.VIDEO_LLAMA
    if is_video_llama and decoder is not None and system.prompt in ("llama2", "vicuna"):
        context = system.decoder.get("max_position_embeddings", 2048)
        return [
            f"prompt {system.prompt}: LLaMA-2-chat has a context of 4096, Vicuna v0 of 2048, this one of {context}; "
            f"for another Vicuna add prompt=vicuna"
        ]
    if isinstance(connector, Stc.Config) and connector.depth and not config_of(parts):
        name, other = ("STC", 0) if connector.padding else ("STC v3.5", 1)
        return [
            f"connector {name}: there is no config.json, and STC (of CLIP) and STC v3.5 (of SigLIP) have equal keys; "
            f"for the other one add branches.video.connector.padding={other}"
        ]
    return []


def _videochat(parts: Parts, names: Sequence[str]) -> list[System]:
    """By the published configuration (config.json with a section `model`), where it lies beside a file."""
    decoder = _of_kind(parts, "decoder")
    config = next((source.config for source, _ in parts if "extra_num_query_token" in _section(source.config)), None)
    if config is None or decoder is None or names != YAMLS[kinds.VIDEOCHAT]:
        return _from_yaml(parts, names)
    return [import_module("avllm.checkpoints.videochat").system_from(config, decoder=decoder_of(decoder))]


def _section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    model = config.get("model")
    return model if isinstance(model, Mapping) else {}


def _from_config(family: str) -> Callable[[Parts, Sequence[str]], list[System]]:
    """Systems whose folder tells by `config.json` what they are."""

    def build(parts: Parts, names: Sequence[str]) -> list[System]:
        config = config_of(parts)
        if names != YAMLS[family]:
            return _from_yaml(parts, names)
        if "mm_projector_type" not in config and "text_config" not in config:
            config |= projector_of({name for source, _ in parts for name in source.tensors})
        if not config.keys() - {"mm_projector_type"}:
            module = import_module(f"avllm.checkpoints.{FAMILIES[family].module}")
            return [_with_projector(system, config, module) for system in _from_yaml(parts, names)]
        return [import_module(f"avllm.checkpoints.{FAMILIES[family].module}").system_from(config)]

    return build


def _videollama2(parts: Parts, names: Sequence[str]) -> list[System]:
    """By its config.json; without one, the keys of its projector tell which it has."""
    systems = _from_config(kinds.VIDEOLLAMA2)(parts, names)
    if config_of(parts) or names != YAMLS[kinds.VIDEOLLAMA2]:
        return systems
    keys = [name for source, _ in parts for name in source.tensors]
    return [import_module("avllm.checkpoints.videollama2").with_projector(system, keys) for system in systems]


def projector_of(keys: Collection[str]) -> dict[str, str]:
    """The projector that the keys of a LLaVA-like checkpoint show, as its configuration would name it.

    STC and STC v3.5 have the same keys and shapes, so these are left open.
    """
    found = {key.removeprefix(PROJECTOR) for key in keys if key.startswith(PROJECTOR)}
    blocks, sampler = any(key.startswith("s1.") for key in found), any(key.startswith("sampler.") for key in found)
    if "weight" in found:
        return {"mm_projector_type": "linear"}
    layers = [key for key in found if re.fullmatch(r"\d+\.weight", key)]
    if layers:
        return {"mm_projector_type": f"mlp{len(layers)}x_gelu"}
    if not found or (blocks and sampler):
        return {}
    return {"mm_projector_type": "stp_connector" if blocks else "spatial_conv" if sampler else "spatial_pool"}


def _with_projector(system: System, config: Mapping[str, Any], module: Any) -> System:
    if not config:
        return system
    video = replace(system.branches["video"], connector=module.connector_from(config))
    return replace(system, branches={**system.branches, "video": video})


def config_of(parts: Parts) -> dict[str, Any]:
    """The published configuration of all parts together; what the parts beside it tell is put where it belongs."""
    main = ("video_llava", "video_llava_hf", "video_llava_no_towers", "videollama2_av", "videollama2", "projector")
    config: dict[str, Any] = {}
    decoder = _of_kind(parts, "decoder")
    if decoder is not None:
        config |= decoder_of(decoder)
    found = next((source for name in main if (source := _of_kind(parts, name)) is not None), None)
    if found is None or not found.config:
        return {}
    config |= found.config
    config |= _sound_of(parts)
    for name, key in (
        ("languagebind_image", "_image_vision_config"),
        ("languagebind_video", "_video_vision_config"),
        ("vision_tower", "vision_config"),
        ("beats", "beats_cfg"),
    ):
        part = _of_kind(parts, name)
        if part is not None and part.config:
            config.setdefault(key, part.config.get("vision_config", part.config))
    return config


def _sound_of(parts: Parts) -> dict[str, Any]:
    """The settings of an audio branch whose files lie beside a checkpoint without one."""
    given = [source for source, kind in parts if kind.name in ("audio_tower", "audio_projector", "beats")]
    if not given:
        return {}
    names = {name for source in given for name in source.tensors}
    depth = sum(re.fullmatch(r"model\.mm_projector_a\.(\d+\.)?weight", name) is not None for name in names)
    found = {"mm_audio_tower": given[0].name}
    if depth:
        found["mm_projector_a_type"] = f"mlp{depth}x_gelu" if depth > 1 else "linear"
    told = {key: value for source in given for key, value in source.config.items() if key in SOUND}
    return {**found, **told}


def decoder_of(source: Source) -> dict[str, Any]:
    """A decoder's configuration as a system holds it; the size of its vocabulary is that of its embedding."""
    if "model_type" not in source.config:
        raise CheckpointError(f"{source.path}: config.json is missing beside the language model; download it too")
    decoder = {key: value for key, value in source.config.items() if key not in OUTSIDE}
    embedding = source.tensors.get("model.embed_tokens.weight")
    if embedding is not None and embedding.shape:
        decoder["vocab_size"] = embedding.shape[0]
    return decoder


def _of_kind(parts: Parts, name: str) -> Source | None:
    return next((source for source, kind in parts if kind.name == name), None)


EVA = "eva_vit_g.pth (EVA-CLIP-g of BLIP-2)"
QFORMER = "blip2_pretrained_flant5xxl.pth (the Q-Former of BLIP-2)"
YAMLS: dict[str, tuple[str, ...]] = {
    kinds.VIDEO_LLAMA: ("video_llama_7b", "video_llama_13b"),
    kinds.VIDEOCHAT: ("videochat_7b", "videochat_13b"),
    kinds.VIDEO_LLAVA: ("video_llava_7b", "video_llava_7b_hf"),
    kinds.VIDEOLLAMA2: (
        *("videollama2_7b_16f", "videollama2_1_7b_16f", "videollama2_1_7b_av"),
        *("videollama2_8x7b", "videollama2_72b"),
    ),
}
FAMILIES: dict[str, Family] = {
    kinds.VIDEO_LLAMA: Family(
        module="video_llama",
        systems=_video_llama,
        files={
            "eva_vit_g": EVA,
            "blip2": QFORMER,
            "vl": "the VL checkpoint (VL_LLaMA_2_7B_Finetuned.pth or another of Video-LLaMA)",
            "imagebind_huge": "imagebind_huge.pth",
            "al": "the AL checkpoint (AL_LLaMA_2_7B_Finetuned.pth or another of Video-LLaMA)",
            "llama": "a folder of LLaMA-2-chat or Vicuna (also as --decoder)",
        },
    ),
    kinds.VIDEOCHAT: Family(
        module="videochat",
        systems=_videochat,
        files={
            "eva_vit_g": EVA,
            "blip2": QFORMER,
            "videochat": "videochat_7b.pth or videochat_13b.pth",
            "llama": "a folder of Vicuna or StableVicuna (also as --decoder)",
        },
    ),
    kinds.VIDEO_LLAVA: Family(
        module="video_llava",
        systems=_from_config(kinds.VIDEO_LLAVA),
        files={
            "languagebind_image": "the folder LanguageBind/LanguageBind_Image",
            "languagebind_video": "the folder LanguageBind/LanguageBind_Video_merge",
            "mm_projector": "the folder of Video-LLaVA, or its mm_projector.bin",
            "decoder": "a folder of Vicuna-7B v1.5 (also as --decoder)",
        },
    ),
    kinds.VIDEOLLAMA2: Family(
        module="videollama2",
        systems=_videollama2,
        files={
            "vision_tower": "the folder of CLIP or SigLIP that config.json names (mm_vision_tower)",
            "mm_projector": "the folder of VideoLLaMA 2, or its mm_projector.bin",
            "audio_tower": "audio_tower.bin of VideoLLaMA 2.1-AV, or the BEATs .pt file",
            "beats": "audio_tower.bin of VideoLLaMA 2.1-AV, or the BEATs .pt file",
            "mm_projector_a": "mm_projector_a.bin of VideoLLaMA 2.1-AV",
            "decoder": "a folder of the language model it was trained with (also as --decoder)",
        },
    ),
}


def family_of(parts: Parts, system: str | None) -> tuple[str, tuple[str, ...]]:
    """The published system and the YAMLs that may describe it.

    Args:
        parts: the sources with their kinds.
        system: what the user asked for: a published system, a YAML of `configs/`, or a path; None to tell by content.

    Raises:
        CheckpointError: the sources leave it open, or belong to different systems.
    """
    if system in FAMILIES:
        return system, YAMLS[system]
    if system is not None:
        weights = yaml_config.load(System, yaml_config.find_file("configs", system)).weights
        if weights is None or weights.table not in FAMILIES:
            raise CheckpointError(
                f"--system {system}: weights.table is {getattr(weights, 'table', 'missing')}, expected one of: "
                f"{', '.join(FAMILIES)}"
            )
        return weights.table, (system,)
    found = kinds.system_of([kind for _, kind in parts])
    if found is None:
        what = ", ".join(f"{source.name} is {kind.what}" for source, kind in parts)
        raise CheckpointError(
            f"{what}; that alone does not tell the system; add its other files, or --system {' | '.join(FAMILIES)}"
        )
    return found, YAMLS[found]
