"""What the served page answers on every route, and that no refusal tells of the machine behind it."""

import re
import socket
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import quote

import httpx
import pytest

from avllm.demo.told import NO_MEMORY, line_for_visitor, without_secrets
from avllm.errors import CheckpointError, InternalError, MediaError
from tests.demo.live import Visit

# What an error must never hold: addresses of memory, folders of the server, addresses of its network, code.
TELLS = re.compile(
    rb"0x[0-9a-f]{6,}|/tmp|/root|/home|/usr|/work|/proc|/etc|site-packages|avllm-demo-|\\Users|[\"' ]/[a-z]+/[a-z]"
    rb"|\b10\.\d+\.\d+\.\d+|\b127\.\d|\b192\.168\.|\b172\.(1[6-9]|2\d|3[01])\.|::1\b|Traceback|File \"|\.py\b",
    re.IGNORECASE,
)
SESSION = "routes"
LONG_HEAD = b"HTTP/1.1 431 Request Header Fields Too Large"
# All that is offered: every other route of the router is refused. A row is (method, path): status without a session.
ROWS = {
    ("GET", "/"): 200,
    ("GET", "/config"): 200,
    ("GET", "/theme.css"): 200,
    ("GET", "/gradio_api/theme.css"): 200,
    ("GET", "/favicon.ico"): 200,
    ("GET", "/robots.txt"): 200,
    ("GET", "/manifest.json"): 200,
    ("GET", "/assets/{path:path}"): 404,
    ("GET", "/static/{path:path}"): 404,
    ("GET", "/svelte/{path:path}"): 404,
    ("GET", "/gradio_api/startup-events"): 200,
    ("GET", "/gradio_api/app_id"): 200,
    ("GET", "/gradio_api/info"): 200,
    ("GET", "/gradio_api/queue/data"): 404,
    ("GET", "/gradio_api/heartbeat/{session_hash}"): 200,
    ("GET", "/gradio_api/file={address:path}"): 404,
    ("POST", "/gradio_api/upload"): 400,
    ("POST", "/gradio_api/queue/join"): 400,
    ("POST", "/gradio_api/run/{api_name}"): 400,
}
_FILLED = {"{session_hash}": SESSION, "{address:path}": "A" * 22 + "/1.mp4", "{path:path}": "nothing.js"}


def routes(router) -> set[tuple[str, str]]:
    """Every method and path that a router answers to, also those of what is mounted on it."""
    found = set()
    for route in router.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if not hasattr(route, "methods") and hasattr(inner, "routes"):
            found |= routes(inner)
        else:
            found |= {(method, route.path) for method in getattr(route, "methods", None) or ("GET",)}
    return found


def filled(path: str) -> str:
    for part, value in _FILLED.items():
        path = path.replace(part, value)
    return re.sub(r"\{[^}]*\}", "x1", path)


@pytest.fixture(scope="module")
def http(live):
    """Asks without a cookie, as each request of a stranger comes."""
    with httpx.Client(base_url=live.url, timeout=20.0) as client:
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        yield client


def ask(http, method: str, path: str) -> tuple[int, bytes]:
    with http.stream(method, path) as reply:
        is_endless = reply.status_code == 200 and "event-stream" in reply.headers.get("content-type", "")
        return reply.status_code, b"" if is_endless else reply.read()


def test_s03_no_refusal_of_any_route_tells_of_the_machine(live, http):
    known = routes(live.guard.app)
    assert {("POST", "/gradio_api/upload"), ("GET", "/gradio_api/proxy={url_path:path}")} <= known  # it sees them all
    missing = [row for row in ROWS if row not in known and row[1] != "/svelte/{path:path}"]
    assert not missing
    for method, path in sorted(known):
        status, body = ask(http, method, filled(path))
        expected = ROWS.get(("GET" if method == "HEAD" else method, path))
        if expected is None:
            # A new route of Gradio is refused; to be offered it needs a row here.
            assert status in (404, 405), (method, path, status)
        else:
            assert status in (expected, 405 if method == "HEAD" else expected), (method, path, status)
        if status >= 400:
            assert not TELLS.search(body), (method, path, body)
            assert len(body.splitlines()) <= 1


@pytest.mark.parametrize("session", ["unknown", "../x", "a b", "\0", "x" * 500, "<script>"])
def test_s03_a_session_that_is_none_is_told_nothing(http, session, caplog, capfd):
    for path in ("/gradio_api/queue/data", f"/gradio_api/heartbeat/{quote(session)}/x", "/gradio_api/call/x/unknown"):
        with http.stream("GET", path, params={"session_hash": session}) as reply:
            said = b"".join(reply.iter_raw())
        assert not TELLS.search(said)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECTX"])
def test_s03_other_methods_are_refused_without_a_word_of_the_machine(http, method):
    for path in ("/", "/config", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/file=x"):
        headers = {"origin": "http://evil.example.org", "access-control-request-method": "POST"}
        for given in ({}, headers):
            reply = http.request(method, path, headers=given)
            assert reply.status_code in (403, 404, 405)
            assert not TELLS.search(reply.content)
            assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        (None, {}, 200),
        ("localhost", {}, 200),
        ("evil.example.org", {}, 403),
        (None, {"origin": "http://evil.example.org"}, 403),
        (None, {"origin": "null"}, 403),
        (None, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        (None, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_a_page_of_another_site_reaches_nothing(live, http, host, headers, status):
    named = {"host": f"{host}:{live.port}"} if host else {}
    assert http.get("/", headers={**named, **headers}).status_code == status
    if status == 403 or "sec-fetch-site" in headers:
        for path in ("/config", f"/gradio_api/heartbeat/{SESSION}", "/gradio_api/file=" + "A" * 22 + "/1.mp4"):
            assert http.get(path, headers={**named, **headers}).status_code == 403
        before = live.conversations.uploads.used()
        sent = http.post("/gradio_api/upload", files={"files": ("x.mp4", b"x")}, headers={**named, **headers})
        assert sent.status_code == 403
        assert live.conversations.uploads.used() == before


def test_nothing_that_a_request_says_of_a_proxy_is_believed(http):
    for name in ("x-forwarded-host", "x-gradio-server"):
        value = "evil.example.org" if name == "x-forwarded-host" else "http://evil.example.org"
        for path in ("/", "/config"):
            assert "evil.example.org" not in http.get(path, headers={name: value}).text


def test_answers_carry_headers_that_seal_the_page(http):
    page = http.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert re.search(r"HttpOnly; SameSite=Strict", page.headers["set-cookie"])
    refused = http.get("/nowhere")
    assert refused.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MediaError("/tmp/avllm-demo-q/visitors/abc/1.mp4: bad"), "1.mp4: bad"),
        (MediaError("<av.Codec object at 0x7f12ab34cd56> failed"), "… failed"),
        (MediaError("cannot reach 192.168.1.5:80,\n10.0.0.1 or ::1"), "cannot reach …, … or …"),
        (MediaError(r"C:\Users\me\clip.mp4: bad"), "clip.mp4: bad"),
        (MediaError("set frames to 1/2 and/or see docs/media.md"), "set frames to 1/2 and/or see docs/media.md"),
        (MemoryError(), NO_MEMORY),
        (InternalError("code 1 in /usr/lib/x.py"), None),
        (CheckpointError("/models/x: damaged"), None),
        (RuntimeError("/secret/path 0xdeadbeef"), None),
    ],
)
def test_s03_errors_are_told_without_what_is_no_business_of_the_visitor(error, told):
    assert line_for_visitor(error) == told
    assert told is None or not TELLS.search(told.encode())


def test_s03_words_stay_as_they_are():
    for text in ("12:30:05 at 1/2 speed", "see https://example.org/a/b", "a::b", "10.5.1 is a release"):
        assert without_secrets(text) == text


def test_a_fault_inside_is_one_line_for_the_visitor_and_one_in_the_log(live, http, monkeypatch, caplog):
    async def broken(scope, receive, send):
        raise RuntimeError("/secret/path 0xdeadbeef")

    monkeypatch.setattr(live.guard, "app", broken)
    reply = http.get("/config")

    assert reply.status_code == 500
    assert reply.json()["error"] == "something went wrong inside; the log of the demo says what"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        next(record.getMessage() for record in caplog.records if "RuntimeError: /secret/path" in record.getMessage())
    ]


def test_the_head_of_a_request_is_bounded(live, http):
    flood = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 100) for number in range(1000))
    for head in (flood, b"x: " + b"y" * 100_000 + b"\r\n", b"x-%d: 1\r\n" * 70):
        with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b""
        assert answer.split(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request", LONG_HEAD)
        assert not TELLS.search(answer.replace(b"127.0.0.1", b""))
    assert http.get("/config", params={"x": "y" * 2000}).status_code == 431
    assert http.get("/").status_code == 200


def test_a_connection_that_says_nothing_is_closed():
    import uvicorn

    from avllm.demo.web import _Server

    class Connection:
        def __init__(self, cycle):
            self.cycle, self.closed = cycle, 0
            self.transport = self

        def abort(self):
            self.closed += 1

    busy = Connection(type("Cycle", (), {"response_complete": False})())
    silent, idle = Connection(None), Connection(type("Cycle", (), {"response_complete": True})())
    server = _Server(uvicorn.Config(lambda: None))
    server.server_state.connections |= {busy, silent, idle}
    server.close_silent(0.0)
    server.close_silent(14.9)
    assert [one.closed for one in (busy, silent, idle)] == [0, 0, 0]
    server.close_silent(15.1)
    assert [one.closed for one in (busy, silent, idle)] == [0, 1, 1]


def test_a_visitor_is_told_by_name_what_the_demo_does_not_take(live, visit):
    assert isinstance(visit, Visit)
    reply = visit.http.get("/gradio_api/proxy=http://127.0.0.1:1/x")
    assert (reply.status_code, reply.json()["error"]) == (404, "not offered here")
