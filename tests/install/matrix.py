"""Installs the wheel as users do, with the newest and the lowest releases it allows, and does fourteen things with it.

    python tests/install/matrix.py                     every arm that this machine can run
    python tests/install/matrix.py newest lowest       these, of newest, lowest, 3.12, 3.13

Everything lies in a temporary folder outside the repository and is removed afterwards, the cache of downloads too
unless UV_CACHE_DIR names one. PyPI's torch for Linux brings CUDA, some gigabytes for each arm; where pip is told of a
folder with a build for the CPU (PIP_FIND_LINKS), AVLLM_MATRIX_TORCH=2.13.0 makes every arm take that release.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from steps import NEEDED, STEPS, Failed, Installation

ROOT = Path(__file__).parents[2]
EXTRAS = ("train", "demo", "eval")
NAMED = ("torch", "transformers", "av", "numpy", "pillow", "gradio", "accelerate", "peft")
ARMS = {"newest": None, "lowest": None, "3.12": "3.12", "3.13": "3.13"}
OLDEST = (3, 11)
INSTALL_S = 1800


@dataclass
class Outcome:
    """What became of one arm.

    Args:
        python: release.
        versions: of the packages that matter.
        steps: what each step gave, or None where it could not be run.
        failed: why those that failed did.
        skipped: why the arm could not be run at all.
    """

    arm: str
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: str = ""
    install_s: float = 0.0
    steps_s: float = 0.0


class Uv:
    """The installer, fetched by pip where it is not at hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environment.setdefault("UV_CACHE_DIR", str(folder / "cache"))
        self.environment.setdefault("UV_HTTP_TIMEOUT", "600")
        if os.environ.get("PIP_FIND_LINKS"):
            self.environment.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
        self.program = shutil.which("uv") or self._fetch()

    def _fetch(self) -> str:
        bin = _create(self.folder / "uv")
        _call([str(bin / "python"), "-m", "pip", "install", "--quiet", "uv"], os.environ.copy())
        return str(bin / "uv")

    def __call__(self, *arguments: str | Path) -> str:
        return _call([self.program, *map(str, arguments)], self.environment)

    def find_python(self, version: str) -> str | None:
        """An interpreter that is on this machine already, also one of pyenv."""
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
        known = sorted(pyenv.glob(f"{version}.*/bin/python"))
        if known:
            return str(known[-1])
        try:
            return self("python", "find", "--no-python-downloads", "--no-project", version).strip()
        except Failed:
            return None


def main() -> int:
    """Runs the arms side by side, prints one table, and says in the last line how many steps passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)} (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="arms at the same time (default: 2)")
    parser.add_argument("--keep", action="store_true", help="leave the folder, to look at what failed")
    args = parser.parse_args()
    unknown = sorted(set(args.arms) - set(ARMS))
    if unknown:
        parser.error(f"unknown arms: {', '.join(unknown)}")
    with _folder(keep=args.keep) as folder:
        uv = Uv(folder)
        wheel = _build(uv, folder)
        with ThreadPoolExecutor(args.jobs) as pool:
            outcomes = list(pool.map(lambda arm: _arm(uv, wheel, folder / arm, arm), args.arms or list(ARMS)))
        print(f"downloads: {_size(folder / 'cache')}; they are removed now, as the environments were")
    _print_table(outcomes)
    passed = sum(len([name for name in one.steps if name not in one.failed]) for one in outcomes)
    failed = sum(len(one.failed) for one in outcomes)
    skipped = sum(bool(one.skipped) for one in outcomes)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


def _arm(uv: Uv, wheel: Path, folder: Path, arm: str) -> Outcome:
    outcome = Outcome(arm=arm)
    wanted = ARMS[arm]
    python = sys.executable if wanted is None else uv.find_python(wanted)
    if python is None:
        outcome.skipped = f"no Python {wanted} on this machine"
        print(f"{arm}: SKIPPED, {outcome.skipped}", flush=True)
        return outcome
    started = time.monotonic()
    try:
        at = _install(uv, wheel, folder, arm, python)
        outcome.python = at.python("import platform; print(platform.python_version())").strip()
        outcome.versions = _versions(uv, at)
    except Failed as error:
        outcome.failed["install"] = str(error)
        print(f"{arm}: install FAILED: {error}", flush=True)
        return outcome
    outcome.install_s = time.monotonic() - started
    print(f"{arm}: {_size(folder)} installed in {outcome.install_s:.0f} s: {_line(outcome.versions)}", flush=True)
    started = time.monotonic()
    for name, step in STEPS.items():
        begun, lacking = time.monotonic(), [one for one in NEEDED if one in outcome.failed]
        try:
            if lacking:
                raise Failed(f"needs {', '.join(lacking)}")
            outcome.steps[name] = step(at)
            shown = outcome.steps[name]
        except Exception as error:  # also what a changed form of output makes a check raise: that is a failure, too
            outcome.steps[name] = None
            outcome.failed[name] = shown = f"FAILED: {type(error).__name__}: {error}"
        print(f"{arm}: {name}, {time.monotonic() - begun:.0f} s: {shown}", flush=True)
    outcome.steps_s = time.monotonic() - started
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _install(uv: Uv, wheel: Path, folder: Path, arm: str, python: str) -> Installation:
    uv("venv", "--quiet", "--python", python, folder / "venv")
    bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = ["pip", "install", "--quiet", "--python", bin / "python"]
    torch = os.environ.get("AVLLM_MATRIX_TORCH")
    pinned = [f"torch=={torch}"] if torch else []
    if arm == "lowest":
        # Of the wheel itself the direct requirement would be avllm alone; its own ones are meant.
        extras = [word for extra in EXTRAS for word in ("--extra", extra)]
        uv(*install, "--resolution", "lowest-direct", "-r", ROOT / "pyproject.toml", *extras, *pinned)
        uv(*install, "--no-deps", wheel)
    else:
        uv(*install, f"{wheel}[{','.join(EXTRAS)}]", *pinned)
    uv("pip", "check", "--quiet", "--python", bin / "python")
    (folder / "work").mkdir()
    at = Installation(bin=bin, folder=folder / "work")
    place = Path(at.python("import avllm; print(avllm.__file__)").strip())
    if not place.is_relative_to(folder.resolve()) and not place.is_relative_to(folder):
        raise Failed(f"avllm comes from {place}, not from the wheel")
    if not (place.parent / "py.typed").is_file():
        raise Failed("the wheel has no py.typed")
    return at


def _versions(uv: Uv, at: Installation) -> dict[str, str]:
    names = ", ".join(map(repr, NAMED))
    found = at.python(f"from importlib.metadata import version; print(*map(version, ({names})))").split()
    return dict(zip(NAMED, found, strict=True))


def _build(uv: Uv, folder: Path) -> Path:
    uv("build", "--quiet", "--wheel", "--out-dir", folder / "dist", ROOT)
    return next((folder / "dist").glob("avllm-*.whl"))


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    if sys.version_info < OLDEST:
        raise SystemExit(f"avllm needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    folder = Path(tempfile.mkdtemp(prefix="avllm-matrix-")).resolve()
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _create(folder: Path) -> Path:
    _call([sys.executable, "-m", "venv", str(folder)], os.environ.copy())
    return folder / ("Scripts" if os.name == "nt" else "bin")


def _call(command: list[str], environment: dict[str, str]) -> str:
    elsewhere = tempfile.gettempdir()
    done = subprocess.run(command, env=environment, cwd=elsewhere, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        raise Failed(f"{' '.join(command[:3])} ...: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _size(folder: Path) -> str:
    seen, total = set(), 0
    for path in folder.rglob("*"):
        status = path.lstat()
        if status.st_ino not in seen:  # environments hard-link what lies in the cache
            seen.add(status.st_ino)
            total += status.st_size
    return f"{total / 2**30:.1f} GiB"


def _line(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _print_table(outcomes: list[Outcome]) -> None:
    rows = [["", *(one.arm for one in outcomes)], ["Python", *(one.python or "-" for one in outcomes)]]
    rows += [[name, *(one.versions.get(name, "-") for one in outcomes)] for name in NAMED]
    rows += [["install", *(_shown(one, "install", f"{one.install_s:.0f} s") for one in outcomes)]]
    rows += [[name, *(_shown(one, name, "ok" if name in one.steps else "-") for one in outcomes)] for name in STEPS]
    rows += [["all steps", *(f"{one.steps_s:.0f} s" for one in outcomes)]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print("\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows))
    for one in outcomes:
        for name, why in one.failed.items():
            print(f"{one.arm}, {name}: {re.sub(r'(?m)^', '    ', why).strip()}")


def _shown(outcome: Outcome, name: str, well: str) -> str:
    return "skipped" if outcome.skipped else "FAILED" if name in outcome.failed else well


if __name__ == "__main__":
    sys.exit(main())
