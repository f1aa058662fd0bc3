"""Files, bytes and arrays to frames and waveforms with their times. No model is known in here."""

from avllm.media.clips import Audio, Video
from avllm.media.write import write_audio, write_video

__all__ = ["Audio", "Video", "write_audio", "write_video"]
