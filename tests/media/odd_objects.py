"""What nobody should hand over, to every door; prints what each of them says. Run by test_s03_error_texts.py."""

import collections
import io
import json
import os
import sys
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from PIL import Image

from avllm.media import Audio, open_audio, open_image, open_video, probe

PLACE = f"{Path.home()}/visitor-7f3a91c2"
WAVE = np.zeros((1, 80), np.float32)
HUGE = 10**5000


class Tells:
    """Says where it is, in every way in which an object can."""

    def _tell(self, *args: Any, **options: Any) -> Any:
        raise KeyError(f"{object()!r} at {PLACE}")

    def __repr__(self) -> str:
        return f"<Tells at 0x7f1234567890 in {PLACE}>"


class OddArray(Tells):
    __array__ = Tells._tell


class NoArray(Tells):
    def __array__(self, *args, **options):
        return [object()]


class Boundless(Tells):
    nbytes = 1 << 50
    __array__ = Tells._tell


class OddTensor(Tells):
    __array__ = detach = numel = Tells._tell


class OddFile(Tells):
    read = seek = tell = Tells._tell


class FileOfObjects(Tells):
    def read(self, size=-1):
        return [self]


class Endless(Tells):
    def read(self, size=-1):
        return b"x" * (1 << 20)


class OddPath(Tells, os.PathLike):
    __fspath__ = Tells._tell


class OddList(Tells, collections.abc.Sequence):
    __getitem__ = __len__ = Tells._tell


class OddMapping(Tells, collections.abc.Mapping):
    __getitem__ = __len__ = __iter__ = Tells._tell


class OddAttributes:
    def __getattr__(self, name):
        raise RuntimeError(f"{PLACE}: {name}")


def odd() -> dict[str, Any]:
    itself: list = []
    itself.append(itself)
    structured = np.zeros(3, [(f"/home/field{number}", "f4") for number in range(99)])
    masked = np.ma.masked_array(np.zeros((4, 4, 3), np.uint8), mask=True)
    closed = Image.open(io.BytesIO(_png()))
    closed.close()
    objects = [OddArray(), NoArray(), Boundless(), OddTensor(), OddFile(), FileOfObjects(), OddPath(), OddAttributes()]
    objects += [object(), Tells(), OddList(), OddMapping(), itself, collections.deque(), collections.deque([object()])]
    objects += [range(10**12), {1, 2}, (n for n in "ab"), io.BytesIO, np.ndarray, len, None, 3, HUGE, 1.5, True]
    found = {type(value).__name__ + str(number): value for number, value in enumerate(objects)}
    found |= {f"list of {name}": [value] for name, value in found.items() if not isinstance(value, GeneratorType)}
    arrays = {
        "objects": np.array([object()]),
        "texts": np.array(["a"]),
        "times": np.array(["2026-01-01"], "datetime64[s]"),
        "complex": np.zeros((4, 4, 3), complex),
        "structured": structured,
        "masked": masked,
        "NaN": np.full((4, 4, 3), np.nan, np.float32),
        "infinite": np.full((4, 4, 3), np.inf),
        "negative": np.full((4, 4, 3), -1),
        "huge": np.full((4, 4, 3), 2**64 - 1, np.uint64),
        "no frames": np.zeros((0, 4, 4, 3), np.uint8),
        "no rows": np.zeros((2, 0, 4, 3), np.uint8),
        "no channels": np.zeros((4, 4, 0), np.uint8),
        "no values": np.zeros(0),
        "no samples": np.zeros((2, 0), np.float32),
        "nothing": np.array(3),
        "many axes": np.zeros((1,) * 20),
        "boundless": np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (1 << 20, 1 << 10, 1 << 10, 3)),
        "long": np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (2, 2_000_000, 3)),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.zeros(3, 4, 4, device="meta"),
    }
    found |= {f"array of {name}": value for name, value in arrays.items()}
    found |= {f"list of an array of {name}": [value] for name, value in arrays.items()}
    rates = [0, -1, float("nan"), float("inf"), HUGE, True, None, "8000", object(), 1 + 0j, np.complex64(8000), 8000.5]
    found |= {f"rate {number}": {"array": WAVE, "sampling_rate": rate} for number, rate in enumerate(rates)}
    found |= {f"pair {number}": (rate, WAVE) for number, rate in enumerate(rates)}
    samples = [object(), [object()], [HUGE, 1.5], [[1], [1, 2]], "a.wav", None, [], {}, masked, structured]
    found |= {f"samples {number}": {"array": value, "sampling_rate": 8000} for number, value in enumerate(samples)}
    waves = [[0.0], WAVE[0], WAVE.astype(float), WAVE[:, :0], WAVE * np.nan, None, object()]
    found |= {f"Audio {number}": _audio(wave, 8000) for number, wave in enumerate(waves)}
    found |= {f"Audio at {number}": _audio(WAVE, rate) for number, rate in enumerate(rates)}
    keys = [{object(): 1}, {f"{PLACE}/a": 1}, {"bytes": object()}, {"path": 3}, {"bytes": "x"}, {}, {1: 2}]
    keys += [{"bytes": b"x", "path": 3}, {"bytes": None, "path": f"{PLACE}/absent"}, {str(n): n for n in range(10**5)}]
    found |= {f"mapping {number}": value for number, value in enumerate(keys)}
    found |= {"closed image": closed, "empty image": Image.new("RGB", (0, 4))}
    texts = [f"https://127.0.0.1{PLACE}", "file://169.254.169.254/a", "http://10.0.0.1:80/a", "file://[", "file:", ""]
    texts += ["file:///a%00b", f"data:video/mp4;base64,{PLACE}/\u00e9", f"data:{PLACE}", "data:,\ud800", "\ud800", "\0"]
    texts += [f"data:video/jpeg;base64,{'AAAA,' * 9}", "rtsp://" + "x" * 9999, "HTTP://[::1]/", "http:\\\\127.0.0.1\\a"]
    texts += [os.devnull, "/dev/zero", Path("a\0b"), Path("\ud800"), " ", "a" * 9999]
    found |= {f"text {number}": value for number, value in enumerate(texts)}
    return found | {"endless file": Endless()}


def _audio(wave: Any, rate: Any) -> Audio:
    """One that was changed after it was made."""
    audio = Audio(waveform=WAVE, sample_rate=8000)
    object.__setattr__(audio, "waveform", wave)
    object.__setattr__(audio, "sample_rate", rate)
    return audio


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()


def told() -> dict[str, dict[str, tuple[str, str]]]:
    """By name and door: the type of the error and what it says."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for name, value in odd().items():
        doors = [open_image, open_video, open_audio, probe]
        # Silence of the right form is a sound, and a square of values a picture, for the doors that are not named here.
        doors = [open_audio] if name.startswith(("rate", "pair", "samples", "Audio", "array of no ")) else doors
        found[name] = {}
        for door in doors:
            try:
                door(value)
                found[name][door.__name__] = ("nothing", "")
            except Exception as error:
                found[name][door.__name__] = (type(error).__name__, str(error))
    return found


if __name__ == "__main__":
    json.dump(told(), sys.stdout)
