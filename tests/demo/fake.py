"""A model that needs no weights: it answers with what it was given, word by word."""

import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
from rich.console import Console

from avllm.config import find_file, load
from avllm.demo.config import DemoConfig
from avllm.demo.evidence import Evidence
from avllm.demo.examples import load_examples
from avllm.demo.reading import Medium, fit, loudness, to_jpeg
from avllm.demo.server import serve_page
from avllm.errors import MediaError


class FakeModel:
    """Stands in for `DemoModel`.

    Args:
        pause_s: seconds between two words of an answer; six times as long when asked to answer slowly.
    """

    def __init__(self, config: DemoConfig, *, pause_s: float = 0.0) -> None:
        self.config, self.pause_s = config, pause_s

    def __enter__(self) -> "FakeModel":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def new_session(self) -> SimpleNamespace:
        return SimpleNamespace(seen=[], num=0)

    def num_frames(self, asked: int | None) -> int:
        return asked or 8

    def inspect(self, path: Path, name: str) -> Medium:
        try:
            with av.open(str(path)) as container:
                seconds = (container.duration or 0) / 1e6
                has_audio = bool(container.streams.audio)
                if not container.streams.video:
                    return Medium(path=path, kind="audio", name=name, duration_s=seconds, has_audio=True)
                frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        except (av.error.FFmpegError, StopIteration) as error:
            raise MediaError("not a video, sound or picture that can be read; the file is damaged") from error
        height, width = frame.shape[:2]
        kind = "image" if path.suffix in (".png", ".jpg") else "video"
        return Medium(
            path=path,
            kind=kind,
            name=name,
            duration_s=seconds,
            size=(width, height),
            has_audio=has_audio,
            poster=to_jpeg(frame),
        )

    def stream(self, session, question, settings, medium) -> Generator[str, None, None]:
        if medium is not None:
            session.seen, session.num = [medium.name], 0
        session.num += 1
        session.settings = settings
        for word in f"{session.seen[0]}, question {session.num}: {question} <b>bold</b> **stars**".split(" "):
            time.sleep(self.pause_s * (6 if "slowly" in question else 1))
            yield word + " "

    def evidence(self, session, medium, settings) -> Evidence:
        frames = []
        if medium.kind != "audio":
            with av.open(str(medium.path)) as container:
                decoded = list(container.decode(video=0))
            for index in np.linspace(0, len(decoded) - 1, 8).astype(int) if len(decoded) > 1 else [0]:
                frame = decoded[index]
                height, width = fit(frame.width, frame.height, 240)
                frames.append(
                    (float(frame.time or 0), to_jpeg(frame.to_ndarray(format="rgb24", width=width, height=height)))
                )
        heard = medium.has_audio and settings.audio != "off"
        peaks = loudness(np.abs(np.random.default_rng(0).normal(size=(1, 16000)).astype(np.float32)), 150)
        return Evidence(
            streams=[
                ("video", bool(frames), f"{len(frames)} frames"),
                ("audio", heard, "4 segments of 2 s" if heard else "switched off"),
            ],
            frames=frames,
            peaks=peaks if heard else None,
            sound_seconds=medium.duration_s,
            segments=[(0.0, 1.0), (2.0, 3.0)],
            timings=[("decode", 0.02), ("encode", 0.04), ("first token", 0.1), ("generate", 0.3), ("total", 0.5)],
            model="fake",
        )


def main() -> None:
    """`python -m tests.demo.fake PORT EXAMPLES [A.B=C ...]` serves the page over a `FakeModel`."""
    port, examples, *overrides = sys.argv[1:]
    config = load(DemoConfig, find_file("eval_configs", "nano_withaudio"), [f"page.examples={examples}", *overrides])
    model = FakeModel(config, pause_s=0.05)
    serve_page(model, config, int(port), load_examples(examples), Console())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
