"""The published layouts that can be read, by the `kind` of a benchmark's data."""

from avllm.evaluation.mvbench import MVBench

READERS: dict[str, type] = {"mvbench": MVBench}
