"""The published layouts that can be read, by the `kind` of a benchmark's data."""

from avllm.evaluation.egoschema import EgoSchema
from avllm.evaluation.mmbench import MMBench
from avllm.evaluation.music_avqa import MusicAVQA
from avllm.evaluation.mvbench import MVBench
from avllm.evaluation.nextqa import NextQA
from avllm.evaluation.perception_test import PerceptionTest
from avllm.evaluation.rows import Rows
from avllm.evaluation.video_chatgpt import VideoChatGPT
from avllm.evaluation.videomme import VideoMME
from avllm.evaluation.zero_shot_qa import ZeroShotQA

READERS: dict[str, type] = {
    "egoschema": EgoSchema,
    "mmbench": MMBench,
    "music_avqa": MusicAVQA,
    "mvbench": MVBench,
    "nextqa": NextQA,
    "perception_test": PerceptionTest,
    "rows": Rows,
    "video_chatgpt": VideoChatGPT,
    "videomme": VideoMME,
    "zero_shot_qa": ZeroShotQA,
}
