"""The demo: a page in the browser on which a file is added and asked about."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["serve"]


def serve(
    cfg_path: str | Path,
    *,
    model: str | None = None,
    host: str | None = None,
    port: int | None = None,
    allowed_hosts: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> int:
    """Answers an example clip in the terminal, then serves the page until Ctrl-C; see `avllm.demo.server.serve`."""
    from avllm.demo.server import serve as run  # here, so that importing the package does not wait for Gradio

    return run(cfg_path, model=model, host=host, port=port, allowed_hosts=allowed_hosts, overrides=overrides)
