"""What commands import, for the process that they are forked from."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import accelerate  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import peft  # noqa: F401
import torch

import avllm.chat.run
import avllm.checkpoints.convert
import avllm.checkpoints.unmerged
import avllm.evaluation.benchmark
import avllm.evaluation.run
import avllm.nano.build
import avllm.nano.stage_data
import avllm.training.feature_engines  # noqa: F401
import tests.kill.short_nano  # noqa: F401

torch.set_num_threads(1)
