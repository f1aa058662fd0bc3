"""Tells by its keys and its configuration what a set of weights is; names of files and folders do not count."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from avllm.checkpoints.sources import Source
from avllm.errors import CheckpointError

VIDEO_LLAMA, VIDEOCHAT, VIDEOLLAMA2 = "video_llama", "videochat", "videollama2"
VIDEO_LLAVA = "video_llava"
LLAVA_LIKE = (VIDEO_LLAVA, VIDEOLLAMA2)
# Kinds of a whole model, whose sizes stand in the config.json beside it.
WHOLE = ("video_llava", "video_llava_no_towers", "video_llava_hf", "videollama2", "videollama2_av")


@dataclass(frozen=True)
class Kind:
    """A published file or folder.

    Args:
        name: short name.
        what: in words, for people.
        has: patterns of keys; each must be found among the keys.
        lacks: patterns of which none may be found.
        systems: the systems that it can be a part of.
        config: names and patterns of values in its configuration, of which one must hold, if there are any.
    """

    name: str
    what: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    config: tuple[tuple[str, str], ...] = ()

    def fits(self, keys: Collection[str], config: Mapping[str, Any]) -> bool:
        """Whether keys and configuration are those of this kind."""
        if self.config and not any(re.search(value, str(config.get(name, ""))) for name, value in self.config):
            return False
        return all(_any(p, keys) for p in self.has) and not any(_any(p, keys) for p in self.lacks)


EMBEDDING = r"(llama_model\.)?model\.embed_tokens\.weight"
# The first kind that fits wins.
KINDS = (
    Kind("adapter", "a LoRA adapter", (r".*\.lora_(A|embedding_A)(\..*)?",)),
    Kind("trained_parts", "what was trained in full beside a LoRA adapter", (r"base_model\.model\..*",)),
    Kind("imagebind", "ImageBind", (r"modality_(trunks|preprocessors)\..*",), systems=(VIDEO_LLAMA,)),
    Kind("vl", "the vision-language checkpoint of Video-LLaMA",
         (r"video_query_tokens|video_Qformer\..*\.(weight|bias)",), (EMBEDDING,),
         (VIDEO_LLAMA,)),
    Kind("al", "the audio-language checkpoint of Video-LLaMA",
         (r"audio_query_tokens|audio_Qformer\..*\.(weight|bias)",), (EMBEDDING,),
         (VIDEO_LLAMA,)),
    Kind("whole_videochat", "a whole VideoChat", (r"extra_query_tokens|.*gmhra.*", EMBEDDING), systems=(VIDEOCHAT,)),
    Kind("videochat", "the checkpoint of VideoChat", (r"extra_query_tokens|.*gmhra.*",), systems=(VIDEOCHAT,)),
    Kind("eva_vit_g", "EVA-CLIP-g (eva_vit_g.pth)", (r"blocks\.\d+\.attn\.(q_bias|qkv\.weight)",),
         systems=(VIDEO_LLAMA, VIDEOCHAT)),
    Kind("blip2", "the Q-Former of BLIP-2", (r"Qformer\.bert\..*",), (EMBEDDING,), (VIDEO_LLAMA, VIDEOCHAT)),
    Kind("beats", "BEATs", (r"encoder\.layers\.\d+\.self_attn\.grep_[aw].*|post_extract_proj\..*",),
         systems=(VIDEOLLAMA2,)),
    Kind("video_llava_hf", "Video-LLaVA in the form of transformers",
         (r"(model\.)?multi_modal_projector\..*", r".*video_tower\..*"), systems=(VIDEO_LLAVA,)),
    Kind("video_llava", "Video-LLaVA", (r"model\.(image|video)_tower\..*",), systems=(VIDEO_LLAVA,)),
    Kind("video_llava_no_towers", "Video-LLaVA without its towers", (r"model\.mm_projector\..*", EMBEDDING),
         (r"model\.vision_tower\..*",), (VIDEO_LLAVA,), (("mm_image_tower", "."), ("mm_video_tower", "."))),
    Kind("videollama2_av", "VideoLLaMA 2 with its audio branch",
         (r"model\.audio_tower\..*", r"model\.mm_projector_a\..*", EMBEDDING), systems=(VIDEOLLAMA2,)),
    Kind("videollama2", "VideoLLaMA 2", (r"model\.mm_projector\..*", EMBEDDING), systems=(VIDEOLLAMA2,)),
    Kind("audio_tower", "the audio tower of VideoLLaMA 2 (audio_tower.bin)", (r"model\.audio_tower\..*",),
         (EMBEDDING,), (VIDEOLLAMA2,)),
    Kind("audio_projector", "the audio projector of VideoLLaMA 2 (mm_projector_a.bin)", (r"model\.mm_projector_a\..*",),
         (EMBEDDING,), (VIDEOLLAMA2,)),
    Kind("projector", "a projector of VideoLLaMA 2 (mm_projector.bin)",
         (r"model\.mm_projector\.(s1|s2|sampler|readout|downsample|net|conv)\..*",), (EMBEDDING,), (VIDEOLLAMA2,)),
    Kind("projector", "a projector of Video-LLaVA (mm_projector.bin)", (r"model\.mm_projector\..*",), (EMBEDDING,),
         (VIDEO_LLAVA,), (("mm_image_tower", "."), ("mm_video_tower", "."))),
    Kind("projector", "a projector of VideoLLaMA 2 (mm_projector.bin)", (r"model\.mm_projector\..*",), (EMBEDDING,),
         (VIDEOLLAMA2,), (("mm_vision_tower", "."),)),
    Kind("projector", "a projector (mm_projector.bin)", (r"model\.mm_projector\..*",), (EMBEDDING,), LLAVA_LIKE),
    Kind("languagebind_video", "LanguageBind_Video", (r"vision_model\..*temporal_(attn|embedding).*",),
         systems=(VIDEO_LLAVA,)),
    Kind("languagebind_image", "LanguageBind_Image", (r"vision_model\..*",), systems=(VIDEO_LLAVA,),
         config=(("model_type", "LanguageBind"), ("architectures", "LanguageBind"))),
    Kind("vision_tower", "SigLIP", (r"vision_model\.head\..*",), systems=(VIDEOLLAMA2,)),
    Kind("vision_tower", "CLIP", (r"vision_model\..*", r"(text_model\..*|vision_model\.embeddings\.class_embedding)"),
         systems=(VIDEOLLAMA2, VIDEO_LLAVA)),
    Kind("decoder", "a language model", (EMBEDDING, r"model\.layers\.\d+\.self_attn\.q_proj\.weight")),
)  # fmt: skip
AVLLM = Kind("avllm", "a model folder of avllm", (r"decoder\..*",))


def kind_of(source: Source, keys: Collection[str] | None = None) -> Kind | None:
    """The kind of a source, or None when its keys belong to nothing that is known."""
    return kind_of_keys(source.tensors if keys is None else keys, source.config)


def kind_of_keys(keys: Collection[str], config: Mapping[str, Any]) -> Kind | None:
    """The same from a list of keys."""
    if config.get("model_type") == "avllm":
        return AVLLM
    return next((kind for kind in KINDS if kind.fits(keys, config)), None)


def system_of(kinds: Collection[Kind]) -> str | None:
    """The system that parts of these kinds make together; None when they leave it open.

    Raises:
        CheckpointError: they belong to different systems.
    """
    left: set[str] | None = None
    for kind in kinds:
        if kind.systems:
            both = set(kind.systems) if left is None else left & set(kind.systems)
            if not both:
                parts = ", ".join(f"{k.what} ({' or '.join(k.systems)})" for k in kinds if k.systems)
                raise CheckpointError(f"the sources belong to different systems: {parts}; convert them one by one")
            left = both
    return next(iter(left)) if left and len(left) == 1 else None


def is_delta(norms: Mapping[str, Tensor]) -> bool:
    """Whether the scales of a decoder's norms are differences to another model's, as in a Vicuna delta.

    The scale of an RMSNorm multiplies what passes through it: in every model that works it is above 0 in nearly all
    places, and that of the last one is not near 0. A difference of two models has neither property.

    Args:
        norms: name -> scale of every norm of the decoder.
    """
    if not norms:
        return False
    values = {name: tensor.double().flatten() for name, tensor in norms.items()}
    total = sum(len(value) for value in values.values())
    above = sum(int((value > 0).sum()) for value in values.values()) / max(total, 1)
    last = [value for name, value in values.items() if not re.search(r"layers\.\d+\.", name)]
    size = max((value.abs().mean().item() for value in last), default=1.0)
    return above < 0.75 or size < 0.02


NORMS = re.compile(r"(.*\.)?(model|language_model)\.(layers\.\d+\.(input|post_attention)_layernorm|norm)\.weight")


def norms_of(source: Source) -> dict[str, Tensor]:
    """Reads the scales of the decoder's norms: a few hundred kB of a model of any size."""
    return {name: tensor.read() for name, tensor in source.tensors.items() if NORMS.fullmatch(name)}


def _any(pattern: str, keys: Collection[str]) -> bool:
    compiled = re.compile(pattern)
    return any(compiled.fullmatch(key) for key in keys)
