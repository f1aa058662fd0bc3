"""What this installation is made of, for a report of a fault: releases, devices, codecs, and what is broken in it."""

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from avllm import confinement
from avllm.errors import ABSENT, own_message, version
from avllm.extras import EXTRAS

# Where a package is imported under another name than it is installed by.
IMPORTED_AS = {"pillow": "PIL", "protobuf": "google.protobuf", "pyyaml": "yaml"}
CORE = (
    *("torch", "transformers", "av", "numpy", "pillow", "safetensors", "tokenizers", "huggingface_hub"),
    *("sentencepiece", "protobuf", "jinja2", "einops", "jaxtyping", "pyyaml", "tqdm", "rich"),
)
# avllm needs none of them, but transformers imports what is installed, and fails with what does not fit torch.
NEIGHBOURS = ("torchvision", "torchaudio", "torchcodec")
DECODERS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "prores", "theora", "mjpeg"),
    *("aac", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "wmav2", "amrnb", "pcm_s16le"),
)


@dataclass(kw_only=True)
class Environment:
    """One installation.

    Args:
        system: avllm, Python, the operating system, where avllm lies, and what decoder processes are kept from.
        packages: releases of what avllm needs, or `absent`; what cannot be imported says so.
        extras: the same for the packages of each extra.
        neighbours: the same for packages that are not needed and can break transformers.
        devices: what torch can compute on.
        codecs: FFmpeg inside PyAV, and which common decoders it has.
        problems: what is wrong and what to do about it, in one line each.
    """

    system: dict[str, str]
    packages: dict[str, str] = field(default_factory=dict)
    extras: dict[str, dict[str, str]] = field(default_factory=dict)
    neighbours: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    codecs: dict[str, str | list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Lines to paste into a report."""
        parts = {"system": self.system, "packages": self.packages}
        parts |= {f"extra {name}": found for name, found in self.extras.items()}
        parts |= {"neighbours": self.neighbours, "devices": self.devices, "codecs": self.codecs}
        lines = []
        for head, part in parts.items():
            width = max(map(len, part), default=0)
            lines.append(f"{head}:" if part else f"{head}: none")
            for name, value in part.items():
                shown = ", ".join(value) or "none" if isinstance(value, list) else value
                lines.append(f"  {name.ljust(width)}  {shown}")
        lines += ["problems:", *(f"  {line}" for line in self.problems or ["none found"])]
        return "\n".join(lines)


def read_environment() -> Environment:
    """Looks at everything; a package that is missing or broken is a line of what it returns, never an error."""
    found = Environment(system=_system())
    found.packages = {name: _state(name, found.problems) for name in CORE}
    found.neighbours = {name: state for name in NEIGHBOURS if (state := _state(name, [])) != ABSENT}
    for name, state in found.neighbours.items():
        if "cannot be imported" in state:
            found.problems.append(
                f"{name} {state}: transformers finds it and fails; avllm does not need it: pip uninstall {name}"
            )
    found.extras = {
        extra: {name: _state(name, found.problems) for name in packages} for extra, packages in EXTRAS.items()
    }
    found.devices = _guarded(_devices, found.problems)
    found.codecs = _guarded(_codecs, found.problems)
    _guarded(_parts_of_avllm, found.problems)
    return found


def _system() -> dict[str, str]:
    return {
        "avllm": version("avllm"),
        "from": str(Path(__file__).parent),
        "Python": f"{platform.python_version()} ({sys.executable})",
        "on": platform.platform(),
        "CPU": f"{_cpu_name()}, {os.cpu_count()} cores",
        "decoder processes": confinement.describe(),
    }


def _state(package: str, problems: list[str]) -> str:
    release, name = version(package), IMPORTED_AS.get(package, package)
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.split(".")[0] == error.name.split(".")[0]:
            if package in CORE:
                problems.append(f"{package} is not installed, and avllm needs it: pip install avllm")
            return ABSENT
        fault: Exception = error
    except Exception as error:  # whatever a broken library makes its import raise
        fault = error
    else:
        return release if release != ABSENT else "of unknown release"
    problems.append(f"{package} {release} cannot be imported ({_root(fault)})")
    return f"{release}, cannot be imported"


def _guarded(look: Callable[[], dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    try:
        return look()
    except Exception as error:  # of a package that is missing or broken; the rest is shown all the same
        problems.append(f"{look.__name__.strip('_').replace('_', ' ')}: {_root(error)}")
        return {}


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {own_message(error)}"


def _devices() -> dict[str, str]:
    torch = import_module("torch")
    half = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if name in _cpu_flags()]
    found = {
        "CPU": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"bf16 in hardware: {', '.join(half) or 'no'}",
        "CUDA": "none" if torch.version.cuda is None else f"build for {torch.version.cuda}, no device",
        "MPS": "yes" if torch.backends.mps.is_available() else "none",
    }
    if torch.cuda.is_available():
        del found["CUDA"]
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            found[f"CUDA {index}"] = (
                f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, "
                f"bf16: {'yes' if torch.cuda.is_bf16_supported() else 'no'}"
            )
    return found


def _codecs() -> dict[str, str | list[str]]:
    av = import_module("av")

    def reads(name: str) -> bool:
        try:
            return av.Codec(name, "r") is not None
        except ValueError:
            return False

    releases = {name: ".".join(map(str, parts)) for name, parts in av.library_versions.items()}
    return {
        "FFmpeg": getattr(av, "ffmpeg_version_info", "?"),
        "libavcodec": releases.get("libavcodec", "?"),
        "read": [name for name in DECODERS if reads(name)],
        "not read": [name for name in DECODERS if not reads(name)],
    }


def _parts_of_avllm() -> dict[str, str]:
    # What fails where all packages can be imported alone: releases that do not fit each other.
    for name in ("avllm.media", "avllm.chat"):
        import_module(name)
    return {}


def _cpu_name() -> str:
    lines = _cpu_lines()
    return lines.get("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    lines = _cpu_lines()
    return set((lines.get("flags") or lines.get("Features") or "").split())


def _cpu_lines() -> dict[str, str]:
    """The first core of /proc/cpuinfo; nothing where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
