"""Frozen encoders: one frame or one segment of sound at a time, `[b t ...] -> [b t p d]`."""

from avllm.encoders.beats import Beats
from avllm.encoders.clip import Clip
from avllm.encoders.eva_clip import EvaClip
from avllm.encoders.eva_clip_temporal import EvaClipTemporal
from avllm.encoders.imagebind import ImageBind
from avllm.encoders.languagebind import LanguageBind

ENCODERS = {
    "beats": Beats.Config,
    "clip": Clip.Config,
    "eva_clip": EvaClip.Config,
    "eva_clip_temporal": EvaClipTemporal.Config,
    "imagebind": ImageBind.Config,
    "languagebind": LanguageBind.Config,
}

__all__ = ["ENCODERS", "Beats", "Clip", "EvaClip", "EvaClipTemporal", "ImageBind", "LanguageBind"]
