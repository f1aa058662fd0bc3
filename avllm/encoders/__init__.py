"""Frozen encoders: one frame or one segment of sound at a time, `[b t ...] -> [b t p d]`."""

from avllm.encoders.clip import Clip
from avllm.encoders.eva_clip import EvaClip
from avllm.encoders.eva_clip_temporal import EvaClipTemporal
from avllm.encoders.imagebind import ImageBind

ENCODERS = {
    "clip": Clip.Config,
    "eva_clip": EvaClip.Config,
    "eva_clip_temporal": EvaClipTemporal.Config,
    "imagebind": ImageBind.Config,
}

__all__ = ["ENCODERS", "Clip", "EvaClip", "EvaClipTemporal", "ImageBind"]
