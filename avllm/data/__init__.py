"""Data: published layouts -> records -> samples -> batches."""

from avllm.data.collate import Collate, Sample
from avllm.data.context import Context
from avllm.data.conversations import Conversations
from avllm.data.image_captions import ImageCaptions
from avllm.data.llava_instruct import LlavaInstruct
from avllm.data.media_captions import MediaCaptions
from avllm.data.mixture import Mixture, Order, Unreadable
from avllm.data.prepare import Prepare
from avllm.data.records import Medium, Record, Source, Turn
from avllm.data.videochat_instruct import VideoChatInstruct
from avllm.data.webdataset import WebDataset
from avllm.data.webvid import WebVid

DATASETS = {
    "conversations": Conversations.Config,
    "image_captions": ImageCaptions.Config,
    "llava_instruct": LlavaInstruct.Config,
    "media_captions": MediaCaptions.Config,
    "videochat_instruct": VideoChatInstruct.Config,
    "webdataset": WebDataset.Config,
    "webvid": WebVid.Config,
}

__all__ = [
    "DATASETS",
    "Collate",
    "Context",
    "Conversations",
    "ImageCaptions",
    "LlavaInstruct",
    "MediaCaptions",
    "Medium",
    "Mixture",
    "Order",
    "Prepare",
    "Record",
    "Sample",
    "Source",
    "Turn",
    "Unreadable",
    "VideoChatInstruct",
    "WebDataset",
    "WebVid",
]
