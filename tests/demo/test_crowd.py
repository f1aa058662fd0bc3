"""Many at once: nothing mixed up, nothing lost, nothing kept.

`AVLLM_CROWD=N` makes the crowd N sessions and the cancels 2 N; without it they are few.
"""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from avllm.demo.conversation import Conversations
from avllm.demo.settings import Settings
from avllm.demo.told import NO_MEMORY
from avllm.demo.uploads import Quota, Uploads
from avllm.media import write_video
from tests.demo.fake import FakeModel, sent
from tests.demo.live import Visit, chat_of, quick, served

CROWD = int(os.environ.get("AVLLM_CROWD", "8"))
NUM_CANCELS = 2 * CROWD


class Marked(FakeModel):
    """Answers with the colour of the file and counts the answers that are being written."""

    def __init__(self, config, **options) -> None:
        super().__init__(config, **options)
        self.writing = 0
        self.most = 0
        self.fault: Exception | None = None
        self._lock = threading.Lock()

    def stream(self, session, question, settings, media, stop=None):
        with self._lock:
            self.writing += 1
            self.most = max(self.most, self.writing)
        try:
            if self.fault is not None:
                raise self.fault
            yield from super().stream(session, question, settings, media, stop)
        finally:
            with self._lock:
                self.writing -= 1


@pytest.fixture(scope="module")
def crowd():
    from avllm.config import find_file, load
    from avllm.demo.config import DemoConfig

    config = load(DemoConfig, find_file("eval_configs", "nano_withaudio"), ["page.examples=null"])
    page = {"max_waiting": 4 * CROWD + 64, "max_visitors": 4 * CROWD + 64, "max_concurrent": 3}
    config = quick(config, media={"max_sent_files": 8 * CROWD + 64, "max_all_files": 16 * CROWD + 128}, **page)
    model = Marked(config, pause_s=0.002)
    with served(config, model) as live:
        live.model = model
        yield live


def in_threads(function: Callable, arguments: Sequence) -> list:
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(function, arguments))


def accounts(live) -> tuple:
    """What must be as at the start when nobody is there."""
    queue = live.blocks._queue
    concurrent = {name: one.current_concurrency for name, one in queue.event_queue_per_concurrency_id.items()}
    return live.model.writing, live.conversations.free_turns._value, len(queue), max(concurrent.values(), default=0)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_s26_sessions_side_by_side_do_not_mix(crowd, tmp_path):
    def clip(number: int) -> bytes:
        path = tmp_path / f"{number}.mp4"
        write_video(path, [np.full((16, 16, 3), number % 256, np.uint8)] * 4, 4.0)
        return path.read_bytes()

    clips = [clip(number) for number in range(CROWD)]

    def go(number: int) -> tuple[str, str, bytes]:
        visit = Visit(crowd.url)
        shown = visit.load(clips[number], f"mark{number}.mp4")
        (address,) = [part for part in shown[0].split('"') if part.startswith("gradio_api/file=")]
        served = visit.http.get(address).content
        answers = [visit.ask(f"I am {number}, turn {turn}?") for turn in (1, 2)]
        page = json.dumps([shown, answers])
        visit.close()
        return page, answers[1], served

    seen = in_threads(go, range(CROWD))
    for number, (page, answer, file) in enumerate(seen):
        assert answer.startswith(f"mark{number}.mp4, question 2: I am {number}, turn 2?")
        assert file == clips[number]
        assert {name for name in (f"mark{other}.mp4" for other in range(CROWD)) if name in page} == {
            f"mark{number}.mp4"
        }
    assert crowd.model.most <= 3
    wait_for(lambda: accounts(crowd) == (0, 3, 0, 0))


def test_s18_whoever_leaves_at_any_moment_leaves_no_answer_under_way(crowd, files):
    data, draw = files["clip"].read_bytes(), random.Random(7)
    delays = [draw.uniform(0.0, 0.15) for _ in range(NUM_CANCELS)]

    def leave(number: int) -> None:
        visit = Visit(crowd.url)
        visit.load(data)
        visit.run("av-question submit", ["say it slowly, in many many many many many words"])
        visit.send("queue/join", visit.body(visit.answers[0]))
        way = number % 3
        if way == 0:  # the connection over which the answer comes is cut
            try:
                with visit.http.stream(
                    "GET", "/gradio_api/queue/data", params={"session_hash": visit.session}
                ) as reply:
                    end = time.monotonic() + delays[number]
                    for _ in reply.iter_raw():
                        if time.monotonic() > end:
                            break
            finally:
                visit.run("av-clear click")
        else:
            time.sleep(delays[number])
            visit.run("av-question stop" if way == 1 else "av-clear click")
            assert visit.follow()
        visit.close()

    for start in range(0, NUM_CANCELS, 16):
        in_threads(leave, range(start, min(start + 16, NUM_CANCELS)))
    wait_for(lambda: accounts(crowd) == (0, 3, 0, 0))

    crowd.model.most = 0
    answers = in_threads(lambda number: finish(crowd, data, number), range(6))  # full concurrency again
    assert all(answer.startswith("clip.mp4, question 1: slowly") for answer in answers)
    assert crowd.model.most == 3
    wait_for(lambda: accounts(crowd) == (0, 3, 0, 0))


def finish(live, data: bytes, number: int) -> str:
    visit = Visit(live.url)
    visit.load(data)
    answer = visit.ask(f"slowly {number} " + "word " * 20)
    visit.close()
    return answer


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory: 0x7f0012345678"), MemoryError()])
def test_s20_out_of_memory_is_told_with_advice_and_the_next_is_served(crowd, files, error, monkeypatch):
    freed = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    visit = Visit(crowd.url)
    visit.load(files["clip"].read_bytes())
    monkeypatch.setattr(crowd.model, "fault", error)
    assert visit.ask("What?") == f"⚠ {NO_MEMORY}"
    assert freed == [True]

    monkeypatch.setattr(crowd.model, "fault", None)
    assert visit.ask("And now?").startswith("clip.mp4, question 1: And now?")
    assert accounts(crowd)[:2] == (0, 3)
    visit.close()


def test_s20_memory_of_a_failed_answer_is_not_held(config, files):
    """What filled the memory hangs on the frames of the exception; it is gone when the visitor is told."""
    import weakref

    uploads = Uploads(Quota(file_bytes=2**20))
    model = FakeModel(config)
    conversations = Conversations({config.model: model}, config, uploads)
    held = []

    def fill(*given):
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("no memory")
        yield tensor

    model.stream = fill
    visitor = conversations.visitor("one")
    conversations.load_upload(visitor, sent(uploads, files["clip"].read_bytes()), "clip.mp4")
    conversations.accept(visitor, "What?")
    list(conversations.answer(visitor, Settings.default(config)))
    uploads.remove()

    assert visitor.messages[-1]["content"] == f"⚠ {NO_MEMORY}"
    assert held[0]() is None


def test_s27_after_a_session_nothing_is_left_of_it_and_nothing_is_in_the_log(crowd, files, caplog, capfd):
    caplog.set_level(0)
    private = ["a very private question", "private name.mp4", "a private system text"]
    root = crowd.conversations.uploads.root
    visit = Visit(crowd.url)
    visit.http.get("/")
    with visit.http.stream("GET", f"/gradio_api/heartbeat/{visit.session}") as heartbeat:
        alive = heartbeat.iter_raw()  # named, as it closes the connection when it is forgotten
        next(alive)
        visit.load(files["clip"].read_bytes(), private[1])
        visit.upload(b"never taken", private[1])
        visit.run("av-question submit", [private[0]])
        given = [visit.values[part] for part in visit.inputs[visit.answers[0]]]
        visit.queue(visit.answers[0], [*given[:-1], private[2]])
        crowd.model.fault = RuntimeError(f"a library repeats: {private[0]!r}, {private[2]} and {private[1]}")
        visit.run("av-question submit", [private[0] + " again"])
        said = visit.queue(visit.answers[0], [*given[:-1], private[2]])
        crowd.model.fault = None
        assert "Something went wrong inside" in chat_of(said)[-1]["content"]
        folder = crowd.conversations.visitor(visit.session).folder
        assert list(folder.iterdir())
    visit.close()

    wait_for(lambda: not folder.exists())
    assert [path for path in folder.parent.rglob("*") if folder.name in path.parts] == []
    assert list((root / "sent").iterdir()) == []
    logged = caplog.text + "".join(capfd.readouterr())
    assert "an answer failed" in logged
    assert "RuntimeError" in logged
    for words in private:
        assert words not in logged
    assert visit.session not in crowd.conversations.visitors._visitors
