"""Bodies of requests: of bounded size and time, of the page's own form, counted while they come."""

import asyncio
import contextlib
import json
import socket
import time
from types import SimpleNamespace

import httpx
import pytest

from avllm.demo import guard, receiving, web
from avllm.demo.requests import MAX_BYTES, NO_SESSION, NOT_JSON, NOT_OF_THE_PAGE, BadRequest, checked
from tests.demo.live import Visit, chat_of, quick, served
from tests.demo.test_guard import TELLS

MB = 2**20
EVENT = {"session_hash": "one", "fn_index": 3, "data": ["reset"], "event_data": None, "trigger_id": 4}


@pytest.fixture(autouse=True)
def _nothing_left(request):
    """Who comes without a cookie is one sender to the demo, from test to test."""
    yield
    if "live" in request.fixturenames:
        request.getfixturevalue("live").conversations.uploads.leave("address 127.0.0.1")


def event(**changes) -> bytes:
    return json.dumps({**EVENT, **changes}).encode()


def test_an_event_of_the_page_passes_with_nothing_beside_it():
    body = event(event_data={"path": "x", "name": "y"}, simple_format=True, batched=True, oauth_token="x", request={})

    assert json.loads(checked(body, {3: 1})) == {**EVENT, "event_data": {"sent": "x", "name": "y"}}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b'"x"', b"NaN", b"\0"],
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(BadRequest, match=f"^{NOT_JSON}$"):
        checked(body, {3: 1})


@pytest.mark.parametrize("session", [None, "", 5, True, ["one"], {"a": 1}, "x" * 65, "a b", "a/b", "ä", "a\n", "../x"])
def test_an_event_names_its_session(session):
    with pytest.raises(BadRequest, match=f"^{NO_SESSION}$"):
        checked(event(session_hash=session), {3: 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"fn_index": None},
        {"fn_index": 99},
        {"fn_index": -1},
        {"fn_index": 3.0},
        {"fn_index": True},
        {"fn_index": "3"},
        {"fn_index": 2**70},
        {"data": None},
        {"data": []},
        {"data": ["reset", "reset"]},
        {"data": {"0": "reset"}},
        {"data": [{"path": "/etc/passwd"}]},
        {"data": [["reset"]]},
        {"data": [2**60]},
        {"trigger_id": "4"},
        {"trigger_id": 2**40},
        {"trigger_id": [4]},
        {"event_data": [[[[[[[[[["deep"]]]]]]]]]]},
        {"event_data": {"bytes": -(2**53)}},
    ],
)
def test_an_event_has_the_form_that_the_page_gives_it(changes):
    with pytest.raises(BadRequest, match=f"^{NOT_OF_THE_PAGE}$"):
        checked(event(**changes), {3: 1, 4: 0})


def test_numbers_are_numbers_and_texts_can_be_written_down():
    for text in ("NaN", "Infinity", "-Infinity", "1e999"):
        with pytest.raises(BadRequest):
            checked(event(data=["HERE"]).replace(b'"HERE"', text.encode()), {3: 1})
    kept = json.loads(checked(event(data=["\ud83d half"]), {3: 1}))
    assert kept["data"] == ["? half"]


def raw(live, head: str, body: bytes = b"", then=None) -> bytes:
    """What comes back over a connection of our own."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() + body)
        if then is not None:
            then(connection)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def test_a_body_just_under_the_limit_passes_and_just_over_is_refused(live, visit):
    def sent(length: int, **options) -> httpx.Response:
        body = json.dumps(visit.body("av-question submit", ["?"]))
        data = body + " " * (length - len(body))
        content = data.encode() if options.get("declared", True) else iter([data.encode()])
        headers = {"content-type": "application/json"}
        return visit.http.post("/gradio_api/run/predict", content=content, headers=headers)

    for declared in (True, False):
        assert sent(MAX_BYTES, declared=declared).status_code == 200
        over = sent(MAX_BYTES + 1, declared=declared)
        assert (over.status_code, over.json()["error"]) == (413, receiving.LARGE_REQUEST)


def test_a_huge_body_is_refused_before_it_is_read(live, monkeypatch):
    monkeypatch.setattr(receiving, "_LINGER_SECONDS", 0.1)
    kinds = {"upload": "multipart/form-data; boundary=b", "queue/join": "application/json"}
    for path, kind in kinds.items():
        head = f"POST /gradio_api/{path} HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {5 * 2**30}"
        began = time.monotonic()
        answer = raw(live, head, b"x" * 100)
        assert answer.startswith(b"HTTP/1.1 413"), answer
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("path", ["upload", "queue/join", "run/predict"])
def test_a_body_that_comes_too_slowly_is_given_up(live, monkeypatch, path):
    monkeypatch.setattr(receiving, "_CHUNK_SECONDS", 0.1)
    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.1)
    monkeypatch.setattr(receiving, "_LINGER_SECONDS", 0.1)
    before = live.conversations.uploads.used()

    answer = raw(
        live, f"POST /gradio_api/{path} HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 99"
    )

    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"too slowly" in answer
    assert live.conversations.uploads.used() == before


def part(name: str = "files", filename: str | None = "x.mp4", data: bytes = b"x", more: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'.encode() + data + b"\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        b"--b\r\n",
        b"--b--\r\n",
        part() + part() + b"--b--\r\n",
        part(filename=None) + b"--b--\r\n",
        part(filename=None, data=b"x" * 10_000) + part() + b"--b--\r\n",
        part(filename=None) * 5 + part() + b"--b--\r\n",
        part(),  # no end
        part(more=f"X: {'y' * 5000}\r\n") + b"--b--\r\n",
        part(more="X: y\r\n" * 3000) + b"--b--\r\n",
    ],
)
def test_a_form_holds_one_file_and_little_else(live, visit, body):
    before = live.conversations.uploads.used()
    headers = {"content-type": "multipart/form-data; boundary=b"}

    reply = visit.http.post("/gradio_api/upload", content=body, headers=headers)

    assert (reply.status_code, reply.json()["error"]) == (400, receiving.NO_FORM)
    assert live.conversations.uploads.used() == before


def test_a_million_parts_are_not_read(live, visit):
    def parts():
        for _ in range(1000):
            yield part(filename=None, data=b"") * 1000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(httpx.TransportError):  # the connection is closed while the rest is still sent
        assert visit.http.post("/gradio_api/upload", content=parts(), headers=headers).status_code == 400
    assert visit.http.get("/config").status_code == 200


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"]
)
def test_an_upload_is_a_form(visit, kind):
    reply = visit.http.post("/gradio_api/upload", content=part() + b"--b--\r\n", headers={"content-type": kind})
    assert (reply.status_code, reply.json()["error"]) == (400, receiving.NO_FORM)


def test_an_upload_that_breaks_off_leaves_nothing(live):
    before = live.conversations.uploads.used()
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n"
        connection.sendall(
            f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + part(data=b"x" * 9000)
        )
        wait_for(lambda: live.conversations.uploads.used()[1] > before[1])
    wait_for(lambda: live.conversations.uploads.used() == before)


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_quota_is_told_in_one_line_and_free_again_when_files_are_taken(live, visit):
    clip = b"\0" * MB
    visit.http.get("/")
    sent = [visit.upload(clip) for _ in range(4)]
    assert [reply.status_code for reply in sent] == [200] * 4
    over = visit.upload(b"x")

    assert over.status_code == 413
    told = over.json()["error"]
    assert told.startswith("you have sent 4 files that are in no chat yet (4.0 MB), at most 6 and 4.0 MB are kept; use")
    said = visit.queue("av-file refused", [], {"reason": "failed", "bytes": 1})
    assert chat_of(said)[-1]["content"] == f"⚠ {told}"
    another = Visit(live.url)
    another.http.get("/")  # has a cookie of its own, so it is another visitor
    assert another.upload(b"x").status_code == 200

    visit.queue("av-file uploaded", ["reset"], {"path": sent[0].json()[0], "name": "x.mp4"})
    assert visit.upload(b"x").status_code == 200
    another.close()


def test_a_file_of_just_the_limit_passes_and_one_byte_more_does_not(live, visit):
    assert visit.upload(b"\0" * MB).status_code == 200
    over = visit.upload(b"\0" * (MB + 1))
    assert (over.status_code, over.json()["error"]) == (
        413,
        "the file has 1.0 MB, at most 1 MB are taken; cut or compress it",
    )
    assert not TELLS.search(over.content)


def test_a_full_disk_is_told_and_leaves_nothing(live, visit, monkeypatch):
    def full(token, data):
        raise OSError(28, "No space left on device", "/tmp/avllm-demo-x/sent/y")

    before = live.conversations.uploads.used()
    with monkeypatch.context() as patch:
        patch.setattr(live.conversations.uploads, "write", full)
        reply = visit.upload(b"x")
    assert (reply.status_code, reply.json()["error"]) == (503, receiving.NOT_STORED)
    assert live.conversations.uploads.used() == before


def test_one_visitor_too_many_is_told_to_come_later(config, files):
    with served(quick(config, max_visitors=2)) as live:
        visits = [Visit(live.url) for _ in range(3)]
        for visit in visits[:2]:
            assert visit.run("av-question submit", ["Hello?"]).status_code == 200
        refused = visits[2].run("av-question submit", ["Hello?"])
        waited = visits[2].queue("av-file refused", [], {})

        told = "the demo has as many visitors as it takes; try again in a few minutes"
        assert (waited["refused"], waited["error"]) == (503, told)
        assert (refused.status_code, refused.json()["error"]) == (503, told)
        assert visits[0].run("av-question submit", ["Still?"]).status_code == 200
        for visit in visits:
            visit.close()


def test_answers_that_nobody_reads_are_bounded_and_forgotten(config, monkeypatch):
    monkeypatch.setattr(web, "_MAX_UNREAD", 9)
    with served(quick(config, keep_closed_seconds=0.0)) as live:
        visit = Visit(live.url)
        unread = live.blocks._queue.pending_messages_per_session
        for _ in range(20):
            reply = visit.send("queue/join", visit.body("av-file refused", [], {}))
            wait_for(lambda: len(live.blocks._queue) == 0)
            if reply.status_code == 429:
                break
        assert reply.status_code == 429
        assert unread[visit.session].qsize() < 20

        live.conversations.visitors.leave(visit.session)
        wait_for(lambda: visit.session not in unread)
        visit.close()


def test_what_waits_for_a_visitor_who_is_not_known_yet_is_not_forgotten(live, visit):
    tabs, queue = live.guard.tabs, live.blocks._queue
    queue.pending_messages_per_session["new"] = asyncio.Queue()
    queue.event_ids_to_events["event"] = SimpleNamespace(session_hash="new")
    for _ in range(3):
        tabs._forget(frozenset())
    assert tabs.is_awaited("new")

    del queue.event_ids_to_events["event"]
    tabs._forget(frozenset())
    assert tabs.is_awaited("new")  # its answer is read in a moment
    tabs._forget(frozenset())
    assert not tabs.is_awaited("new")


def test_a_visitor_has_only_so_many_events_waiting(live, visit, monkeypatch):
    monkeypatch.setattr(live.guard.tabs, "is_busy", lambda tab: tab == visit.session)
    body = visit.body("av-file refused", [], {})

    assert visit.http.post("/gradio_api/queue/join", json=body).status_code == 429
    another = Visit(live.url)
    assert another.queue("av-file refused", [], {})["success"]
    another.close()
