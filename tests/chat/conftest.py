"""A tiny assistant whose media are drawn from their names."""

import pytest
import torch

from avllm.chat import Assistant
from avllm.errors import NoAudioStream
from avllm.model import Loaded
from tests.model.tiny import frames, segments, tiny_model, tiny_processor


@pytest.fixture
def assistant(monkeypatch):
    model = tiny_model()
    processor = tiny_processor(model)
    opened: list[tuple[str, str]] = []

    def read(source, kind, *, num_frames=None, **options):
        if kind == "audio" and "mute" in str(source):
            raise NoAudioStream(f"{source}: no audio track")
        opened.append((str(source), kind))
        torch.manual_seed(len(str(source)))
        if kind == "audio":
            return Loaded(kind=kind, branch="audio", values=segments(3), times_s=())
        count = 1 if kind == "image" else num_frames or 4
        times = tuple(float(time) for time in range(count))
        return Loaded(kind=kind, branch="video", values=frames(count), times_s=times)

    monkeypatch.setattr(processor, "read", read)
    assistant = Assistant(model, processor, name="tiny")
    assistant.opened = opened  # type: ignore[attr-defined]
    return assistant
