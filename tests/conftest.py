"""Shared by all tests: shape checks on, one thread, no network, where the reference cases are."""

import gc
import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import tests.checked  # noqa: F401  (the hook names it by its path)

# What is imported stays: looking it through for cycles again and again is a quarter of the time of every import.
gc.disable()
# Processes that the tests start import this tree, and see tests/startup/sitecustomize.py.
_ON_PATH = (str(Path(__file__).parent / "startup"), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _ON_PATH))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
_LAYERS = ["avllm.encoders", "avllm.connectors", "avllm.model", "avllm.media"]
_hook = install_import_hook(_LAYERS, "tests.checked.checked")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


def pytest_collection_finish():
    """From here on cycles are looked for again, seldom, and not in what was imported."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_unconfigure():
    """The interpreter looks for cycles once more when it ends, which frees nothing that matters then."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that the other workers do the rest meanwhile."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)
