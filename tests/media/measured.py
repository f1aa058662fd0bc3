"""What a call costs: run in a child process, its peak of memory above what the process had before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

linux_only = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


def measured(calls: list[tuple]) -> list[tuple[float, str]]:
    """Runs calls of `avllm.media` one after the other, each `(name, path, options)`; their MB and what came out."""
    plain = json.dumps([(name, str(path), options) for name, path, options in calls])
    done = subprocess.run(
        [sys.executable, "-m", "tests.media.measured", plain], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(line) for line in json.loads(done.stdout.splitlines()[-1])]


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _outcome(name: str, path: str, options: dict) -> str:
    from avllm import media
    from avllm.errors import MediaError

    options = options | {"limits": media.Limits(**options.get("limits", {}))}
    sampling = [media.Sampling(**options.pop("sampling"))] if "sampling" in options else []
    try:
        result = getattr(media, name)(path, *sampling, **options)
    except MediaError as error:
        return f"refused: {error}"
    waveform = getattr(result, "waveform", None)
    return f"read: {len(result) if waveform is None and hasattr(result, 'frames') else getattr(waveform, 'shape', '')}"


def _main() -> None:
    import avllm.media.video  # noqa: F401  (what an import takes is no part of a call)

    done = []
    for name, path, options in json.loads(sys.argv[1]):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _peak_mb()
        outcome = _outcome(name, path, options)
        done.append((_peak_mb() - before, outcome))
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    _main()
