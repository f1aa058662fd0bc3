"""How often one question opens its medium: once to tell what it is, once for its pictures, once for its sound."""

from collections import Counter

import av
import pytest

from avllm.chat import load
from avllm.chat.ask import ask
from avllm.media import digests, resolve
from avllm.nano.sample import sample


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    sample(folder, num_clips=1, seed=3)
    return folder / "clip_0000.mp4"


@pytest.fixture
def nano():
    """Anew for each test: what it has looked at is kept."""
    return load("nano")


@pytest.fixture
def counted(monkeypatch):
    """Counts what is opened by PyAV and what is hashed."""
    counts, opened, hashed = Counter(), av.open, digests.of_file

    def count_open(*args, **options):
        counts["opened"] += 1
        return opened(*args, **options)

    def count_hash(file):
        counts["hashed"] += 1
        return hashed(file)

    monkeypatch.setattr(av, "open", count_open)
    monkeypatch.setattr(digests, "of_file", count_hash)
    return counts


def test_a_question_probes_hashes_and_decodes_its_clip_once(clip, counted):
    replies = list(ask(clip, ["What moves?", "What do you hear?"]))

    assert replies[0].streams_used == ("video", "audio")
    assert counted == {"opened": 3, "hashed": 1}


def test_a_chat_opens_each_stream_of_its_clip_once(clip, counted, nano):
    chat = nano.chat()
    chat.ask("What moves?", video=clip)
    chat.ask("What do you hear?")

    assert counted == {"opened": 2, "hashed": 1}


def test_a_medium_that_is_known_is_not_opened_again(clip, counted, nano):
    medium = resolve(clip)
    for _ in range(2):
        nano.chat().ask("What moves?", video=medium)

    assert counted["opened"] <= 2
    assert counted["hashed"] == 1
