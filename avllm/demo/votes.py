"""Thumbs up and down, written down only where the configuration names a file."""

import threading
import time
from pathlib import Path
from typing import Any

from avllm.durable import append_line, json_line
from avllm.errors import ConfigError


class Votes:
    """Appends one line of JSON per vote.

    Args:
        path: of the JSONL file; it is made if it is not there.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise ConfigError(f"page.votes: {path} cannot be written ({error.strerror}); name another file") from error

    def add(self, vote: str, **facts: Any) -> None:
        """Writes a vote.

        Args:
            vote: "up", "down", or "none" when it was taken back.
            facts: model, question, answer. No file, no name of a file and nothing about the visitor.

        Raises:
            DiskError: it cannot be written; nothing of it is in the file.
        """
        with self._lock:
            append_line(self.path, json_line({"time": round(time.time(), 3), "vote": vote, **facts}))
