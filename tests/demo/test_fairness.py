"""Slow and hanging files: they hold up nobody but who sent them."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from avllm.demo.conversation import Conversations
from avllm.demo.fairness import FairMedia
from avllm.demo.settings import Settings
from avllm.demo.uploads import Quota, Uploads
from avllm.errors import MediaError
from tests.demo.fake import FakeModel, sent

LONG = 30.0  # seconds that nobody waits unless something hangs


class Decoder:
    """Stands in for `IsolatedMedia`: reading a file whose name says so lasts until it is let go."""

    go_on = threading.Event()
    reading: list[str] = []

    def open_video(self, source, *args, **options):
        self.reading.append(str(source))
        if "slow" in Path(source).name:
            assert self.go_on.wait(LONG)
        return f"read {source}"

    probe = open_image = open_audio = open_video
    Sampling = SimpleNamespace

    def start(self):
        self.reading.append("started")

    def close(self):
        self.reading.append("closed")


@pytest.fixture
def media():
    Decoder.go_on, Decoder.reading = threading.Event(), []
    media = FairMedia(Decoder, num_decoders=3, wait_seconds=LONG)
    yield media
    Decoder.go_on.set()


@pytest.fixture
def started():
    threads = []

    def start(function, *args) -> threading.Thread:
        thread = threading.Thread(target=function, args=args, daemon=True)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    Decoder.go_on.set()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def wait_for(condition) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_slow_files_of_one_visitor_hold_one_decoder(media, started):
    for number in range(10):
        started(media.open_video, Path(f"/one/slow{number}.mp4"))
    wait_for(lambda: Decoder.reading)

    for visitor in range(5):  # the others go on, also in the files of a kind that was begun before
        assert media.probe(Path(f"/visitor {visitor}/1.mp4")).startswith("read")
        assert media.open_image(Path(f"/visitor {visitor}/1.png")).startswith("read")
    assert len([path for path in Decoder.reading if "slow" in path]) == 1


def test_who_waits_is_served_in_the_order_of_coming(media, started):
    for visitor in "abc":
        started(media.open_video, Path(f"/{visitor}/slow.mp4"))
    wait_for(lambda: len(Decoder.reading) == 3)
    for number, visitor in enumerate("defd"):
        started(media.open_video, Path(f"/{visitor}/{number}.mp4"))
        wait_for(lambda number=number: len(media._waiting) == number + 1)
    Decoder.go_on.set()

    wait_for(lambda: len(Decoder.reading) == 7)
    order = [path for path in Decoder.reading[3:] if not path.endswith("3.mp4")]
    assert set(order[:2]) <= {"/d/0.mp4", "/e/1.mp4", "/f/2.mp4"}


def test_a_decoder_is_free_again_after_any_error(media):
    class Broken(Decoder):
        def open_video(self, source, *args, **options):
            raise MediaError("broken")

    media = FairMedia(Broken, num_decoders=1)
    for _ in range(3):
        with pytest.raises(MediaError, match="broken"):
            media.open_video(Path("/one/1.mp4"))
    assert (media._busy, media._waiting, len(media._idle)) == ({}, [], 1)


def test_a_wait_has_an_end(media, started):
    media = FairMedia(Decoder, num_decoders=1, wait_seconds=0.05)
    started(media.open_video, Path("/one/slow.mp4"))
    wait_for(lambda: Decoder.reading)

    with pytest.raises(MediaError, match="too many files are being read at the moment; try again in a minute"):
        media.open_video(Path("/two/1.mp4"))
    assert media._waiting == []


def test_what_decodes_nothing_needs_no_decoder(media):
    assert media.Sampling is SimpleNamespace
    media.start()
    media.close()
    assert Decoder.reading == ["started", *["closed"] * 3]


class Reading(FakeModel):
    """Reads files through `FairMedia`."""

    def __init__(self, config, media) -> None:
        super().__init__(config)
        self.media = media

    def inspect(self, path, name):
        self.media.probe(path.with_name(f"{'slow' * name.startswith('slow')}{path.name}"))
        return super().inspect(path, name)

    def read_ahead(self, settings, media):
        for medium in media:
            self.media.open_video(medium.path.with_name(f"{'slow' * medium.name.startswith('later')}.mp4"))


@pytest.fixture
def conversations(config, media):
    uploads = Uploads(Quota(file_bytes=2**20))
    config = replace(config, page=replace(config.page, max_concurrent=1))
    yield Conversations({config.model: Reading(config, media)}, config, uploads)
    uploads.remove()


def load(conversations, visitor, path, name) -> None:
    conversations.load_upload(visitor, sent(conversations.uploads, path.read_bytes(), path.name), name)


def ask(conversations, visitor) -> str:
    assert conversations.accept(visitor, "What?")
    for _ in conversations.answer(visitor, Settings.default(conversations.config)):
        pass
    return visitor.messages[-1]["content"]


def test_a_hanging_file_blocks_its_own_visitor_alone(conversations, files, started):
    slow, quick = conversations.visitor("slow"), conversations.visitor("quick")
    started(load, conversations, slow, files["clip"], "slow.mp4")
    wait_for(lambda: Decoder.reading)

    load(conversations, quick, files["clip"], "quick.mp4")
    assert ask(conversations, quick).startswith("quick.mp4, question 1")
    load(conversations, slow, files["clip"], "another.mp4")
    assert slow.messages[-1]["content"] == (
        "⚠ another.mp4: another file of yours is still being read; wait for it, then add this one"
    )
    assert conversations.uploads.used()[1] == 2  # the one that is read, and the quick one


def test_a_file_that_hangs_when_it_is_asked_about_keeps_no_answer_from_others(conversations, files, started):
    slow, quick = conversations.visitor("slow"), conversations.visitor("quick")
    load(conversations, slow, files["clip"], "later.mp4")
    load(conversations, quick, files["clip"], "quick.mp4")
    started(ask, conversations, slow)
    wait_for(lambda: any("slow.mp4" in path for path in Decoder.reading))

    assert ask(conversations, quick).startswith("quick.mp4, question 1")
    Decoder.go_on.set()
    wait_for(lambda: slow.messages[-1]["content"].startswith("later.mp4, question 1"))
