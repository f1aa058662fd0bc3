"""Example clips: the files of a folder, and what is true about them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avllm.config import PACKAGE
from avllm.errors import ConfigError

TRUTH = "truth.json"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip with questions whose answers are known.

    Args:
        path: the file.
        title: a few words, shown on its card.
        questions: to be clicked on.
        answers: the truth, one per question.
        poster: JPEG of one frame.
    """

    path: Path
    title: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    poster: bytes | None = None


def load_examples(folder: str | None) -> tuple[Example, ...]:
    """Reads the truth.json of a folder: `[{"file", "title", "questions": [{"question", "answer"}]}]`.

    Args:
        folder: a path, or relative to the package; None for no examples.

    Raises:
        ConfigError: there is no such folder, or its truth.json does not say what is expected.
    """
    if folder is None:
        return ()
    base = next((path for path in (Path(folder), PACKAGE / folder) if (path / TRUTH).is_file()), None)
    if base is None:
        raise ConfigError(f"page.examples: no {TRUTH} in {folder}; name a folder with clips, or write examples: null")
    try:
        clips = json.loads((base / TRUTH).read_text(encoding="utf-8"))
        return tuple(_example(base, clip) for clip in (clips["clips"] if isinstance(clips, dict) else clips))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{base / TRUTH}: expected a list of file, title, questions with question and answer; got {error!r}"
        ) from error


def _example(base: Path, clip: dict[str, Any]) -> Example:
    path = base / Path(clip["file"]).name
    if not path.is_file():
        raise ConfigError(f"{base / TRUTH}: names {clip['file']}, which is not beside it")
    asked = clip["questions"]
    return Example(
        path=path,
        title=clip.get("title") or path.stem.replace("_", " "),
        questions=tuple(item["question"] for item in asked),
        answers=tuple(item["answer"] for item in asked),
    )
