"""Files, bytes and arrays to frames and waveforms with their times. No model is known in here."""

from avllm.media.clips import Audio, Video
from avllm.media.limits import Limits
from avllm.media.sampling import Sampling
from avllm.media.video import open_image, open_video
from avllm.media.write import write_audio, write_video

__all__ = [
    "Audio",
    "Limits",
    "Sampling",
    "Video",
    "open_image",
    "open_video",
    "write_audio",
    "write_video",
]
