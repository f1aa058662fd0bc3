"""Shared by all tests: shape checks on, one thread, no network, where the reference cases are."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
from jaxtyping import install_import_hook

_hook = install_import_hook(["avllm.encoders", "avllm.connectors", "avllm.model", "avllm.media"], "beartype.beartype")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)
