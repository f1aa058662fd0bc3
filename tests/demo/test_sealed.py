"""What the served page refuses to anyone who speaks to it without a browser, and what it never makes of a name."""

import html
import http.server
import threading
from html.parser import HTMLParser
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest

from tests.demo.browser import ROOT
from tests.demo.live import Visit, chat_of
from tests.demo.test_guard import TELLS

NASTY = '"><img src=x onerror=alert(1)>.mp4'
HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    "<img src=http://canary.example.org/x.png>",
    "![x](http://canary.example.org/x.png)",
    "[click](javascript:alert(1))",
    "<style>body{display:none}</style>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "&lt;svg onload=alert(1)&gt;",
    "$$\\href{javascript:alert(1)}{x}$$",
    "</textarea></div><a href=data:text/html,x>",
    "file:///etc/passwd",
    "/etc/passwd",
)


@pytest.fixture
def canary():
    """A local server that counts who comes."""
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{httpd.server_port}/x.mp4", hits=hits)
    httpd.shutdown()


def test_s14_no_file_but_a_visitors_own_is_served(live, canary):
    secret = ROOT / "pyproject.toml"
    targets = [
        "/etc/passwd",
        "//etc/passwd",
        "/etc/../etc/passwd",
        "%2Fetc%2Fpasswd",
        "%252Fetc%252Fpasswd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%5c..%5cetc%5cpasswd",
        "%00/etc/passwd",
        "/etc/passwd%00.mp4",
        "file:///etc/passwd",
        "\\windows\\win.ini",
        "C:\\windows\\win.ini",
        "C:/windows/win.ini",
        "\\\\server\\share\\x",
        "//?/C:/windows/win.ini",
        f"{'A' * 22}/1.mp4",
        f"{'A' * 22}/../../../etc/passwd",
        f"{'A' * 22}/1.mp4/../../../etc/passwd",
        str(secret),
        secret.name,
        f"{live.conversations.uploads.root}/.in-use",
        f"{live.conversations.uploads.root}/sent/../.in-use",
        "/proc/self/environ",
        canary.url,
        canary.url.replace("http:", "HTTP:"),
        canary.url.replace("//", "/"),
        f"/{canary.url}",
        canary.url.replace("127.0.0.1", "0x7f.1"),
    ]
    prefixes = ("gradio_api/file=", "gradio_api/file/", "file=", "gradio_api/proxy=", "proxy=", "assets/", "static/")
    with httpx.Client(base_url=f"{live.url}/", follow_redirects=True) as client:
        for prefix in prefixes:
            for target in targets:
                reply = client.get(f"{prefix}{target}")
                assert reply.status_code in (400, 403, 404, 422), (prefix, target, reply.status_code)
                assert not TELLS.search(reply.content), (prefix, target, reply.content)
    assert canary.hits == []


def test_s14_a_file_is_served_to_who_knows_its_address_and_a_link_in_its_place_is_not(live, visit, files):
    shown = visit.load(files["clip"].read_bytes())
    (source,) = [part for part in shown[0].split('"') if part.startswith("gradio_api/file=")]
    reply = visit.http.get(source, headers={"range": "bytes=0-9"})
    assert (reply.status_code, reply.content) == (206, files["clip"].read_bytes()[:10])
    assert "sandbox" in reply.headers["content-security-policy"]
    for wrong in ("bytes=5", "bytes=9-1", "bytes=a-b", "bytes=1-2-3", "bytes=-", "bytes=0-0," * 500, "x" * 3000):
        reply = visit.http.get(source, headers={"range": wrong})
        assert reply.status_code in (200, 206, 400, 416)
        assert reply.status_code < 400 or not TELLS.search(reply.content)

    path = live.conversations.visitor(visit.session).medium.path
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert visit.http.get(source).status_code == 404


def test_s14_forged_events_read_nothing(live, canary, capfd):
    visit = Visit(live.url)
    forged = ["/etc/passwd", canary.url, str(ROOT / "pyproject.toml"), None, {"path": canary.url}, ["x"], 5, "\0", ""]
    for path in forged:
        for more in (
            {},
            {"url": canary.url, "meta": {"_type": "gradio.FileData"}, "orig_name": "x", "is_stream": True},
        ):
            said = visit.queue("av-file uploaded", ["reset"], {"path": path, "name": "x", **more})
            assert "the upload did not arrive; send the file again" in str(said), said
            assert "root:" not in str(said)
    for data in ([{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], [[canary.url]]):
        assert visit.queue("av-file uploaded", data, {"path": "x"})["refused"] == 400
    visit.close()
    assert canary.hits == []
    assert "Traceback" not in capfd.readouterr().err


def test_s14_a_visitors_file_cannot_be_taken_by_another(live, visit, files):
    token = visit.upload(files["clip"].read_bytes()).json()[0]
    visit.queue("av-file uploaded", ["reset"], {"path": token, "name": "mine.mp4"})
    other = Visit(live.url)
    mine = live.conversations.visitor(visit.session).medium.path
    for path in (token, str(mine), f"{mine.parent.name}/{mine.name}", f"../visitors/{mine.parent.name}/{mine.name}"):
        said = other.queue("av-file uploaded", ["reset"], {"path": path, "name": "x"})
        assert "did not arrive" in str(said)
    other.close()


@pytest.mark.parametrize(
    "name", ["uploaded", "refused", "picked", "edit", "click", "stop", "submit", "asked", "then", "like"]
)
def test_s14_odd_values_in_events_change_nothing_and_are_no_fault(live, visit, name, caplog, capfd):
    odd = [
        None,
        True,
        -1,
        3.5,
        1e15,
        "",
        "x",
        "\0",
        "\ud800",
        [],
        [[1]],
        {},
        {"index": {}},
        {"index": [1]},
        {"value": 5},
    ]
    odd += [{"index": "1", "value": None, "liked": []}, {"path": {}, "name": [], "bytes": "x", "reason": {}}]
    odd += [
        {"bytes": -1, "reason": None},
        {"index": 99},
        {"index": True},
        {"question": {"a": 1}},
        {"name": 5, "path": 7},
    ]
    for event, (number, _, num_inputs) in visit.events.items():
        if not event.endswith(name):
            continue
        is_queued = visit.queued[number]
        for value in odd:
            data = [value if not isinstance(value, list | dict) else None] * num_inputs
            if is_queued:
                said = visit.queue(event, data, value)
                assert said.get("success") or said.get("refused") == 400, (event, value, said)
            else:
                reply = visit.run(event, data, value)
                assert reply.status_code in (200, 400), (event, value, reply.text)
    assert "Traceback" not in capfd.readouterr().err
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    assert visit.http.get("/config").status_code == 200


def test_s14_settings_out_of_range_are_brought_back(live, visit, files):
    visit.load(files["clip"].read_bytes())
    for value in (None, -5, 2**52, 1e300, "many", True, ""):
        asked = visit.run("av-question submit", ["Which settings?"])
        assert asked.status_code == 200
        said = visit.queue(visit.answers[0], [value] * 9)
        if isinstance(value, float):
            assert said["refused"] == 400  # no number that a page can send
            visit.run("av-question stop", [])
            continue
        assert said["success"], said
        assert "⚠" not in chat_of(said)[-1]["content"]
    assert "max_new_tokens 96" in str(live.conversations.visitor(visit.session).messages)


def test_s14_nothing_of_gradio_that_reaches_out_is_used():
    source = "".join(path.read_text() for path in (ROOT / "avllm" / "demo").glob("*.py"))
    for name in ("gr.load", "gr.Interface", "share=True", "gr.File", "gr.Video", 'allowed_paths=["', "auth="):
        assert name not in source
    assert int(gr.__version__.split(".")[0]) >= 6


def test_s14_the_page_offers_no_interface_to_programs(live):
    config = httpx.get(f"{live.url}/config").json()
    assert httpx.get(f"{live.url}/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert {event["api_visibility"] for event in config["dependencies"]} <= {"private", "undocumented"}
    for route in ("call/_on_question", "call/v2/_on_question", "api/predict", "reset", "cancel", "component_server"):
        assert httpx.post(f"{live.url}/gradio_api/{route}", json={"data": ["x"]}).status_code == 404
    assert not any(str(ROOT) in str(part) for part in config["components"])


class Tags(HTMLParser):
    """Every tag and attribute of a piece of a page, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def assert_harmless(page: str, *, pictures: bool = True) -> None:
    for tag, attributes in Tags(page).tags:
        assert tag not in ("script", "iframe", "style", "object", "embed", "a", "link", "base", "form", "meta")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "poster", "href"):
            address = attributes.get(name) or "data:image/jpeg"
            assert address.startswith(("data:image/jpeg", "gradio_api/file=")), address


@pytest.mark.parametrize(
    "name", [NASTY, "<script>alert(1)</script>.mp4", "a'b\"c&lt;.mp4", "x\u202e4pm.svg", "../../x.html"]
)
def test_s15_names_of_files_never_become_html(visit, files, name):
    for adds in ("reset", "add", "reset"):
        shown = visit.load(files["clip"].read_bytes(), name, adds)
        for part in (value for value in shown if isinstance(value, str)):
            assert_harmless(part)
        visit.ask("What?")
    broken = visit.load(b"no video", name)
    (said,) = [value for value in broken if isinstance(value, list)]
    assert "⚠" in str(said)
    assert "<script" not in str(said)
    assert "<img" not in str(said)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_s15_words_of_the_model_and_of_visitors_are_shown_as_they_are(live, visit, files, text, monkeypatch):
    monkeypatch.setattr(live.conversations.model, "stream", lambda *given: iter_words(given[0], text))
    visit.load(files["clip"].read_bytes())
    visit.run("av-question submit", [text])
    said = visit.queue(visit.answers[0])

    shown = next(value for value in said["output"]["data"] if isinstance(value, list))
    assert [message["content"] for message in chat_of(said)] == [text, text]
    sent_to_the_page = str(shown)
    assert not [tag for tag, _ in Tags(html.unescape(sent_to_the_page)).tags]
    for message in shown:
        contents = message["content"] if isinstance(message["content"], list) else [message["content"]]
        assert all(isinstance(part, str) or part.get("type") == "text" for part in contents)


def iter_words(session, text):
    def words():
        yield text
        session.exchanges = [*session.exchanges, SimpleNamespace(media=[])]

    return words()


@pytest.mark.parametrize("name", ["drawing.svg", "page.html", "clip.mp4.svg", "x.xml", "x.xhtml", "x.js", "x.mht"])
def test_s15_what_a_browser_would_run_is_a_download_of_no_kind(live, visit, files, name):
    shown = visit.load(files["clip"].read_bytes(), name)
    (source,) = [part for part in shown[0].split('"') if part.startswith("gradio_api/file=")]
    reply = visit.http.get(source)

    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_s15_the_chat_takes_no_markup_and_the_page_calls_no_other_host(live):
    config = httpx.get(f"{live.url}/config").json()
    (chat,) = [part for part in config["components"] if part["props"].get("elem_id") == "av-chat"]
    assert (chat["props"]["render_markdown"], chat["props"]["sanitize_html"]) == (False, True)
    assert "share" not in (chat["props"].get("buttons") or [])
    policy = httpx.get(live.url).headers["content-security-policy"]
    assert "img-src 'self' data: blob:;" in policy
    assert "form-action 'self'" in policy
