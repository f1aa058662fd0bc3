"""Training: a stage from its YAML, on transformers' Trainer."""

from avllm.training.frozen import freeze, unfreeze
from avllm.training.run import train
from avllm.training.schedule import Schedule
from avllm.training.stage import Stage, read_stage
from avllm.training.stop import Stopped

__all__ = ["Schedule", "Stage", "Stopped", "freeze", "read_stage", "train", "unfreeze"]
