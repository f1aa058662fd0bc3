"""Digests of what media hold: of bytes on disk or in memory, of frames, of samples. None is that of another kind."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avllm.errors import MediaError
from avllm.media.clips import Audio
from avllm.media.files import frame_files, open_regular, shown_name, state_of
from avllm.media.pillow import pillow_faults
from avllm.media.pixels import as_frames, eight_bits, oriented

_SIZE = 16
_SMALL_FOLDER = 1 << 26  # bytes that are hashed in a moment; of a larger one what the disk says of each file


def new_digest(kind: str = "") -> Any:
    """What all of them are made with. Equal bytes of two kinds have two digests."""
    return hashlib.blake2b(digest_size=_SIZE, person=kind.encode())


def add(digest: Any, *parts: Any) -> None:
    """Parts one after the other, each with its length, so that no two lists of them run together to the same."""
    for part in parts:
        view = memoryview(part)
        digest.update(view.nbytes.to_bytes(8))
        digest.update(view)


def of_bytes(data: bytes) -> bytes:
    """As of a file that holds them."""
    return hashlib.blake2b(data, digest_size=_SIZE).digest()


def of_file(file: io.BytesIO | io.BufferedReader) -> bytes:
    """Of all that is left to be read of it."""
    return hashlib.file_digest(file, new_digest).digest()


def of_folder(path: Path, name: str) -> bytes:
    """Of its pictures in their order; of many bytes, of where they lie and when each was written.

    Raises:
        MediaError: it cannot be read.
    """
    files = frame_files(path, name)
    states = [state_or_nothing(file) for file in files]
    if sum(state[2] for state in states if state) > _SMALL_FOLDER:
        digest = new_digest("listing")
        for file, state in zip(files, states, strict=True):
            add(digest, str(file.absolute()).encode("utf-8", "surrogatepass"), repr(state).encode())
        return digest.digest()
    digest = new_digest("folder")
    for file, state in zip(files, states, strict=True):
        try:
            with open_regular(file, shown_name(file)) as opened:
                add(digest, of_file(opened))
        except (MediaError, OSError):  # a pipe, a dead link: it need not be among the frames that are wanted
            add(digest, str(file.absolute()).encode("utf-8", "surrogatepass"), repr(state).encode())
    return digest.digest()


def state_or_nothing(path: Path) -> tuple[int, ...]:
    """What changes when a file does; nothing of one that is not there."""
    try:
        return state_of(path)
    except (OSError, ValueError):
        return ()


def of_audio(audio: Audio) -> bytes:
    """Of its samples, their rate and when they begin."""
    digest = new_digest("sound")
    add(digest, f"{audio.sample_rate} {audio.start_s} {audio.waveform.shape}".encode())
    add(digest, np.ascontiguousarray(audio.waveform).data)
    return digest.digest()


def of_frames(frames: np.ndarray | Image.Image | Sequence[Any], name: str) -> bytes:
    """Of frames as they are shown, whatever they were handed over as. Raises MediaError for what is no frame."""
    if isinstance(frames, np.ndarray) and frames.ndim <= 2:  # sound or a picture, which is not known here
        digest = new_digest("samples")
        add(digest, f"{frames.dtype.str} {frames.shape}".encode(), np.ascontiguousarray(frames).data)
        return digest.digest()
    is_one = isinstance(frames, Image.Image)
    if isinstance(frames, np.ndarray):
        frames, is_one = as_frames(frames, name)
    digest = new_digest("picture" if is_one else "frames")
    for frame in [frames] if isinstance(frames, Image.Image) else frames:
        if not isinstance(frame, np.ndarray | Image.Image):
            add(digest, b"file", frame.digest)
            continue
        if isinstance(frame, Image.Image):
            with pillow_faults(name):
                pixels = oriented(frame)
        else:
            pixels = eight_bits(as_frames(frame, name)[0][0], name)
        add(digest, str(pixels.shape).encode(), np.ascontiguousarray(pixels).data)
    return digest.digest()
