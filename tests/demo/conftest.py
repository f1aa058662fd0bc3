"""Clips and a configuration for the tests of the demo."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avllm.config import find_file, load
from avllm.demo.config import DemoConfig
from avllm.media import write_audio, write_video
from tests.demo.browser import Server, Tab, chromium, python, serving


@pytest.fixture
def config() -> DemoConfig:
    return load(DemoConfig, find_file("eval_configs", "nano_withaudio"), ["page.examples=null"])


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A video with sound, one without, a sound, an image, a broken video."""
    folder = tmp_path_factory.mktemp("files")
    frames = [np.full((48, 64, 3), (8 * i, 40, 90), np.uint8) for i in range(20)]
    tone = 0.3 * np.sin(np.arange(32000) / 16000 * 2 * np.pi * 440).astype(np.float32)[None]
    write_video(folder / "clip.mp4", frames, 10.0, waveform=tone)
    write_video(folder / "other.mp4", frames[::-1], 10.0, waveform=tone)
    write_video(folder / "silent.mp4", frames, 10.0)
    write_audio(folder / "tone.wav", tone, 16000)
    Image.fromarray(frames[5]).save(folder / "picture.png")
    (folder / "broken.mp4").write_bytes(b"this is not a video, whatever its name says" * 40)
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def example_folder(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    truth = []
    for name in ("clip", "other"):
        (folder / f"{name}.mp4").write_bytes(files[name].read_bytes())
        questions = [{"question": "What do you see?", "answer": "a colour"}, {"question": "Where?", "answer": "there"}]
        truth.append({"file": f"{name}.mp4", "title": f"the {name}", "questions": questions})
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture(scope="session")
def server(example_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page over models that need no weights."""
    temp = tmp_path_factory.mktemp("server")
    options = ["page.keep_closed_seconds=0.5", "media.max_upload_mb=1", "page.max_concurrent=2"]
    options += ["models=[other]", f"page.votes={temp}/votes.jsonl"]
    with serving(python("-m", "tests.demo.fake", "PORT", str(example_folder), *options), temp) as server:
        yield server


@pytest.fixture(scope="session")
def live(example_folder: Path) -> Iterator:
    """The page over a model that needs no weights, served in this process, with short clocks and small limits."""
    from tests.demo.live import quick, served

    config = load(DemoConfig, find_file("eval_configs", "nano_withaudio"), ["page.examples=null"])
    config = quick(config, media={"max_upload_mb": 1, "max_sent_mb": 4, "max_sent_files": 6}, max_visitors=200)
    with served(config) as live:
        yield live


@pytest.fixture
def visit(live) -> Iterator:
    """A visitor of it, without a browser."""
    from tests.demo.live import Visit

    visit = Visit(live.url)
    yield visit
    visit.close()


@pytest.fixture(scope="session")
def chrome() -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(chrome, server: Server) -> Iterator[Tab]:
    """A browser tab in which nothing may go wrong and which may call nobody else."""
    tab = Tab(chrome, server)
    yield tab
    tab.close()
    assert tab.faults == []
    assert tab.elsewhere == []
