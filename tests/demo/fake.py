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
from avllm.demo.evidence import Evidence, Shown, Sound, mel_pictures
from avllm.demo.examples import load_examples
from avllm.demo.reading import Medium, fit, loudness, to_jpeg
from avllm.demo.server import serve_page
from avllm.demo.uploads import Uploads
from avllm.errors import MediaError

_NAMED = ("num_beams", "top_p", "frames", "max_new_tokens", "system")


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

    name = "fake"

    def new_session(self) -> "FakeSession":
        return FakeSession()

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

    def read_ahead(self, settings, media) -> None:
        pass

    def stream(self, session, question, settings, media, stop=None) -> Generator[str, None, None]:
        given = [*session.seen(), *(medium.name for medium in media)]
        number = len(session.exchanges) + 1
        session.settings, session.system = settings, settings.system
        words = f"{' and '.join(given)}, question {number}: {question} <b>bold</b> **stars**".split(" ")
        if settings.temperature > 0 and settings.seed is not None:
            words += [f"seed {settings.seed}"]
        words += [f"{name} {getattr(settings, name)}" for name in _NAMED if "settings" in question]
        try:
            for word in words:
                time.sleep(self.pause_s * (6 if "slowly" in question else 1))
                yield word + " "
        finally:
            session.exchanges = [*session.exchanges, SimpleNamespace(media=[medium.name for medium in media])]

    def evidence(self, session, media, settings) -> Evidence:
        timings = [("decode", 0.02), ("encode", 0.04), ("first token", 0.1), ("generate", 0.3), ("total", 0.5)]
        return Evidence(
            media=[self._shown(medium, settings) for medium in media], timings=timings, model=settings.model
        )

    def _shown(self, medium, settings) -> Shown:
        frames = []
        if medium.kind != "audio" and settings.streams != "only":
            with av.open(str(medium.path)) as container:
                decoded = list(container.decode(video=0))
            for index in np.linspace(0, len(decoded) - 1, 8).astype(int) if len(decoded) > 1 else [0]:
                frame = decoded[index]
                height, width = fit(frame.width, frame.height, 240)
                frames.append(
                    (float(frame.time or 0), to_jpeg(frame.to_ndarray(format="rgb24", width=width, height=height)))
                )
        noise, sound = np.random.default_rng(0), None
        if medium.has_audio and settings.streams != "off":
            peaks = loudness(np.abs(noise.normal(size=(1, 16000)).astype(np.float32)), 150)
            mels = [to_jpeg(picture) for picture in mel_pictures(noise.normal(size=(2, 1, 32, 48)))]
            sound = Sound(peaks=peaks, seconds=medium.duration_s, segments=[(0.0, 1.0), (1.0, 2.0)], mels=mels)
        streams = [
            ("video", bool(frames), f"{len(frames)} frames" if frames else "switched off"),
            ("audio", sound is not None, "2 segments of 1 s" if sound else "switched off"),
        ]
        return Shown(name=medium.name, streams=streams, frames=frames, sound=sound)


class FakeSession:
    """Remembers which files came with which question."""

    def __init__(self) -> None:
        self.exchanges: list[SimpleNamespace] = []
        self.system: str | None = None

    def seen(self) -> list[str]:
        return [name for exchange in self.exchanges for name in exchange.media]

    def undo(self) -> None:
        self.exchanges.pop()


def sent(uploads: Uploads, data: bytes, name: str = "clip.mp4", sender: str = "") -> str:
    """A file as it lies there when the page has sent it."""
    token = uploads.begin(sender)
    uploads.write(token, data)
    uploads.finish(token, name)
    return token


def main() -> None:
    """`python -m tests.demo.fake PORT EXAMPLES [A.B=C ...]` serves the page over a `FakeModel`."""
    port, examples, *overrides = sys.argv[1:]
    config = load(DemoConfig, find_file("eval_configs", "nano_withaudio"), [f"page.examples={examples}", *overrides])
    models = {name: FakeModel(config, pause_s=0.05) for name in (config.model, *config.models)}
    serve_page(models, config, int(port), load_examples(examples), Console())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
