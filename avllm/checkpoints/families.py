"""How the sources of each published system become a `System` of ours, and where its files are to be had."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from avllm import config as yaml_config
from avllm.checkpoints import kinds
from avllm.checkpoints.kinds import Kind
from avllm.checkpoints.rename import Table
from avllm.checkpoints.sources import Source
from avllm.errors import CheckpointError
from avllm.model import System

# Of a decoder's config.json, what does not describe the model.
OUTSIDE = {"architectures", "torch_dtype", "dtype", "transformers_version", "use_cache", "_name_or_path", "auto_map"}
Parts = Sequence[tuple[Source, Kind]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One published system.

    Args:
        module: of `avllm.checkpoints`, with its name tables.
        system: makes the system from the sources and the YAML that was asked for.
        files: beginning of our names -> the published file that fills them; the first that fits counts.
    """

    module: str
    system: Callable[[Parts, Sequence[str]], System]
    files: Mapping[str, str]

    def tables(self, system: System) -> dict[str, Table]:
        """File kind -> name table onto the whole model."""
        return import_module(f"avllm.checkpoints.{self.module}").tables(system)


def _from_yaml(parts: Parts, names: Sequence[str]) -> System:
    """Systems whose files hold no configuration: the YAML of the published size, around the decoder that was given."""
    systems = [System.from_yaml(name) for name in names]
    decoder = _of_kind(parts, "decoder")
    if decoder is None:
        width = _projection_width(parts)
        return next((system for system in systems if system.decoder["hidden_size"] == width), systems[0])
    width = decoder.config.get("hidden_size")
    system = next((system for system in systems if system.decoder.get("hidden_size") == width), systems[0])
    return replace(system, decoder=decoder_of(decoder))


def _video_llama(parts: Parts, names: Sequence[str]) -> System:
    system = _from_yaml(parts, names)
    given = {kind.name for _, kind in parts}
    if given & {"vl"} and not given & {"al", "imagebind"}:
        system = replace(system, branches={"video": system.branches["video"]})
    # Video-LLaMA is published with Vicuna v0 (of LLaMA 1) and with LLaMA-2-chat; their context tells them apart.
    if _of_kind(parts, "decoder") is not None and names == YAMLS[kinds.VIDEO_LLAMA]:
        prompt = "llama2" if system.decoder.get("max_position_embeddings", 2048) >= 4096 else "vicuna"
        system = replace(system, prompt=prompt)
    return system


def _from_config(module: str) -> Callable[[Parts, Sequence[str]], System]:
    """Systems whose folder tells by `config.json` what they are."""

    def build(parts: Parts, names: Sequence[str]) -> System:
        config = config_of(parts)
        if not config or tuple(names) != YAMLS[module]:
            return _from_yaml(parts, names)
        return import_module(f"avllm.checkpoints.{module.removesuffix('_hf')}").system_from(config)

    return build


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
    audio = next((s for s, kind in parts if kind.name in ("audio_tower", "audio_projector") and s.config), None)
    if audio is not None:
        config |= {key: value for key, value in audio.config.items() if key.endswith(("_a", "_a_type", "audio_tower"))}
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


def _projection_width(parts: Parts) -> int | None:
    for source, _ in parts:
        for name, tensor in source.tensors.items():
            if name.endswith("llama_proj.weight") and tensor.shape:
                return tensor.shape[0]
    return None


EVA = "eva_vit_g.pth (EVA-CLIP-g of BLIP-2)"
QFORMER = "blip2_pretrained_flant5xxl.pth (the Q-Former of BLIP-2)"
CHECKPOINT_DECODER = "a folder of the language model it was trained with (also as --decoder)"
YAMLS: dict[str, tuple[str, ...]] = {
    kinds.VIDEO_LLAMA: ("video_llama_7b", "video_llama_13b"),
    kinds.VIDEOCHAT: ("videochat_7b", "videochat_13b"),
    kinds.VIDEO_LLAVA: ("video_llava_7b",),
    kinds.VIDEO_LLAVA_HF: ("video_llava_7b_hf",),
    kinds.VIDEOLLAMA2: ("videollama2_7b", "videollama2_7b_16f"),
}
FAMILIES: dict[str, Family] = {
    kinds.VIDEO_LLAMA: Family(
        module="video_llama",
        system=_video_llama,
        files={
            "branches.video.encoder.": EVA,
            "branches.video.connector.frame_qformer.": QFORMER,
            "branches.video.": "the VL checkpoint (VL_LLaMA_2_7B_Finetuned.pth or another of Video-LLaMA)",
            "branches.audio.encoder.": "imagebind_huge.pth",
            "branches.audio.": "the AL checkpoint (AL_LLaMA_2_7B_Finetuned.pth or another of Video-LLaMA)",
            "decoder.": "a folder of LLaMA-2-chat or Vicuna (also as --decoder)",
        },
    ),
    kinds.VIDEOCHAT: Family(
        module="videochat",
        system=_from_yaml,
        files={
            "branches.video.encoder.blocks.": EVA,
            "branches.video.encoder.gmhra": "videochat_7b.pth or videochat_13b.pth",
            "branches.video.encoder.": EVA,
            "branches.video.connector.projection": "videochat_7b.pth or videochat_13b.pth",
            "branches.video.connector.": QFORMER,
            "decoder.": "a folder of Vicuna or StableVicuna (also as --decoder)",
        },
    ),
    kinds.VIDEO_LLAVA: Family(
        module="video_llava",
        system=_from_config(kinds.VIDEO_LLAVA),
        files={
            "branches.video.encoder.image": "the folder LanguageBind/LanguageBind_Image",
            "branches.video.encoder.": "the folder LanguageBind/LanguageBind_Video_merge",
            "branches.video.connector.": "the folder of Video-LLaVA, or its mm_projector.bin",
            "decoder.": "a folder of Vicuna-7B v1.5 (also as --decoder)",
        },
    ),
    kinds.VIDEO_LLAVA_HF: Family(
        module="video_llava",
        system=_from_config(kinds.VIDEO_LLAVA_HF),
        files={"": "the other files of the folder LanguageBind/Video-LLaVA-7B-hf"},
    ),
    kinds.VIDEOLLAMA2: Family(
        module="videollama2",
        system=_from_config(kinds.VIDEOLLAMA2),
        files={
            "branches.video.encoder.": "the vision tower that config.json names (mm_vision_tower: a folder of CLIP or "
            "SigLIP)",
            "branches.video.": "the folder of VideoLLaMA 2, or its mm_projector.bin",
            "branches.audio.encoder.": "audio_tower.bin of VideoLLaMA 2.1-AV, or the BEATs .pt file",
            "branches.audio.": "mm_projector_a.bin of VideoLLaMA 2.1-AV",
            "decoder.": CHECKPOINT_DECODER,
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
