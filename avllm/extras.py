"""Packages that not everybody needs: which extra of avllm brings them, and asking for them before any work is done."""

from importlib.util import find_spec

from avllm.errors import AvllmError, in_one_line

# Names as they are imported. Those that another one of its extra brings along need not be asked for.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("accelerate", "peft", "matplotlib"),
    "demo": ("gradio", "starlette", "uvicorn", "python_multipart"),
    "eval": ("httpx", "openpyxl", "pyarrow", "sacrebleu"),
    "quant": ("bitsandbytes",),
    "ray": ("ray",),
}


class MissingPackage(AvllmError):
    """A package of an extra is needed and not installed."""


def require(extra: str, *packages: str, purpose: str) -> None:
    """Asks for packages of an extra.

    Args:
        extra: a key of `EXTRAS`.
        packages: some of its packages; all of them by default.
        purpose: what needs them, the first words of the message.

    Raises:
        MissingPackage: one is not installed.
    """
    absent = [name for name in packages or EXTRAS[extra] if find_spec(name) is None]
    if absent:
        raise MissingPackage(f"{purpose} needs {' and '.join(absent)}; install with: pip install 'avllm[{extra}]'")


def missing(error: ModuleNotFoundError) -> str:
    """One line about an import that failed, and what to install."""
    name = (error.name or "").partition(".")[0]
    if not name or find_spec(name) is not None:  # it is there, and broken inside or of another release
        return in_one_line(error)
    extra = next((extra for extra, packages in EXTRAS.items() if name in packages), None)
    advice = f"install it with: pip install 'avllm[{extra}]'" if extra else "pip check says what else is missing"
    return f"the package {name!r} is not installed; {advice}"
