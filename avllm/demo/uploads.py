"""Files that visitors send: taken over under names of our own, removed with the visitor."""

import os
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path

from avllm.errors import MediaError

# What a browser may play inline. Anything else is kept without a telling suffix and offered as a download.
_VIDEO = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpeg", ".mpg", ".ogv")
_AUDIO = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus")
PLAYABLE = frozenset((*_VIDEO, *_AUDIO, ".png", ".jpg", ".jpeg", ".gif", ".webp"))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GRADIO_COPY_SECONDS = 120.0


class Uploads:
    """The demo's own folder of temporary files, removed when the demo ends.

    Gradio stores an upload as `<root>/<sha256>/<name>`, so that two visitors who send the same file share one path. A
    visitor therefore gets a hard link of its own, under a name nobody can guess; Gradio's copy goes a little later.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="avllm-demo-")).resolve()
        self.max_bytes = max_bytes
        self._taken: dict[Path, float] = {}
        self._lock = threading.Lock()

    def folder(self, token: str) -> Path:
        """Makes the folder of one visitor; `token` is random and part of every address below it."""
        folder = self.root / "visitors" / token
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def take(self, path: str, folder: Path, *, number: int) -> Path:
        """Takes over the file that Gradio stored at `path`.

        Args:
            path: what the page reports; it comes from the visitor, so it is checked to be an upload.
            folder: the visitor's folder.
            number: running number, part of the new name.

        Raises:
            MediaError: not an upload, gone, or too large.
        """
        source = Path(os.path.realpath(path))
        inside = source.parts[len(self.root.parts) :] if source.is_relative_to(self.root) else ()
        if len(inside) != 2 or not _SHA256.fullmatch(inside[0]) or not source.is_file():
            raise MediaError("the upload did not arrive; send the file again")
        if source.stat().st_size > self.max_bytes:
            raise MediaError(too_large(source.stat().st_size, self.max_bytes))
        suffix = source.suffix.lower()
        target = folder / f"{number}{suffix if suffix in PLAYABLE else '.bin'}"
        link_or_copy(source, target)
        with self._lock:
            self._taken[source] = time.monotonic()
        return target

    def sweep(self) -> None:
        """Removes Gradio's copies of files that were taken over a while ago."""
        old = time.monotonic() - _GRADIO_COPY_SECONDS
        with self._lock:
            gone = [path for path, taken in self._taken.items() if taken < old]
            for path in gone:
                del self._taken[path]
        for path in gone:
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.root, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-links a file, or copies it where the file system cannot link."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def too_large(num_bytes: int, max_bytes: int) -> str:
    """The one sentence for a file over the limit."""
    return f"the file has {num_bytes / 2**20:.1f} MB, at most {max_bytes / 2**20:.0f} MB are taken; cut or compress it"


def shown_name(name: str, limit: int = 60) -> str:
    """A file name as it may be shown: the last part, without control characters, cut in the middle when long."""
    name = "".join(c for c in name.replace("\\", "/").rpartition("/")[2] if c.isprintable()).strip() or "file"
    return name if len(name) <= limit else f"{name[: limit - 16]}…{name[-15:]}"
