"""Entry point for lmms-eval, which then knows the model `avllm`; loaded by lmms-eval alone."""

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest(model_id="avllm", simple_class_path="avllm.evaluation.lmms_model.Avllm")
