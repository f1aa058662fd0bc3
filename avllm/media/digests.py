"""Digests of what media hold: of bytes on disk or in memory, of frames, of samples."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avllm.media.clips import Audio
from avllm.media.pixels import as_frames, eight_bits, oriented, pillow_faults

_SIZE = 16


def new_digest() -> Any:
    """What all of them are made with."""
    return hashlib.blake2b(digest_size=_SIZE)


def of_bytes(data: bytes) -> bytes:
    """As of a file that holds them."""
    return hashlib.blake2b(data, digest_size=_SIZE).digest()


def of_file(file: io.BytesIO | io.BufferedReader) -> bytes:
    """Of all that is left to be read of it."""
    return hashlib.file_digest(file, new_digest).digest()


def of_folder(path: Path) -> bytes:
    """Of the names in it, of sizes and times of change, and of where it is."""
    digest = new_digest()
    for file in sorted(path.iterdir()):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update(str(path.resolve()).encode())
    return digest.digest()


def of_audio(audio: Audio) -> bytes:
    """Of its samples, their rate and when they begin."""
    digest = new_digest()
    digest.update(f"sound {audio.sample_rate} {audio.start_s} {audio.waveform.shape}".encode())
    digest.update(np.ascontiguousarray(audio.waveform).data)
    return digest.digest()


def of_frames(frames: np.ndarray | Image.Image | Sequence[Any], name: str) -> bytes:
    """Of frames as they are shown, whatever they were handed over as. Raises MediaError for what is no frame."""
    digest = new_digest()
    if isinstance(frames, np.ndarray) and frames.ndim <= 2:  # sound or a picture, which is not known here
        digest.update(f"samples {frames.dtype} {frames.shape}".encode())
        digest.update(np.ascontiguousarray(frames).data)
        return digest.digest()
    is_one = isinstance(frames, Image.Image)
    if isinstance(frames, np.ndarray):
        frames, is_one = as_frames(frames, name)
    digest.update(b"picture" if is_one else b"frames")
    for frame in [frames] if isinstance(frames, Image.Image) else frames:
        for part in _parts(frame, name):
            digest.update(part)
    return digest.digest()


def _parts(frame: Any, name: str) -> Iterator[Any]:
    if not isinstance(frame, np.ndarray | Image.Image):
        yield frame.digest
        return
    if isinstance(frame, Image.Image):
        with pillow_faults(name):
            pixels = oriented(frame)
    else:
        pixels = eight_bits(as_frames(frame, name)[0][0], name)
    yield str(pixels.shape).encode()
    yield np.ascontiguousarray(pixels).data
