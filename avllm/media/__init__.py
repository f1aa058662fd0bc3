"""Files, bytes and arrays to frames and waveforms with their times. No model is known in here."""

from avllm.media.ahead import read_ahead
from avllm.media.audio import open_audio
from avllm.media.clips import Audio, Video
from avllm.media.content import content_key
from avllm.media.crop import crop_and_resize, to_pixels
from avllm.media.fbank import FbankConfig, fbank_of, heard_spans
from avllm.media.fit import CropOffset, Fit, Resample, Resize, fit_picture
from avllm.media.limits import Limits
from avllm.media.mel import SegmentConfig, audio_segments, log_mel
from avllm.media.probe import MediaInfo, probe
from avllm.media.resample import resample
from avllm.media.sampling import Sampling, time_message
from avllm.media.source import MediaSource, Source, resolve
from avllm.media.video import open_image, open_video
from avllm.media.write import write_audio, write_video

__all__ = [
    "Audio",
    "CropOffset",
    "FbankConfig",
    "Fit",
    "Limits",
    "MediaInfo",
    "MediaSource",
    "Resample",
    "Resize",
    "Sampling",
    "SegmentConfig",
    "Source",
    "Video",
    "audio_segments",
    "content_key",
    "crop_and_resize",
    "fbank_of",
    "fit_picture",
    "heard_spans",
    "log_mel",
    "open_audio",
    "open_image",
    "open_video",
    "probe",
    "read_ahead",
    "resample",
    "resolve",
    "time_message",
    "to_pixels",
    "write_audio",
    "write_video",
]
