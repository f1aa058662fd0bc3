"""HTTP: raw requests to every route of the demo's page, which a model without weights stands behind."""

import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from tests.fuzz.case import Case, Good, Said, good_file

EVENTS = ("av-file", "av-examples", "av-question", "av-questions", "av-regenerate", "av-undo", "av-clear", "av-chat")
REPLY_SECONDS, SILENT_SECONDS, READ_BYTES = 20.0, 0.2, 1 << 20
PRIVATE = re.compile(rb"\b0x[0-9a-fA-F]{6,}|/site-packages/|Traceback \(most recent|File \"/")
DATA: tuple[dict, ...] = (
    {"path": "/tmp/x", "name": "a.mp4"},
    {"index": 0, "value": "What?", "liked": True, "question": "What?", "bytes": 3, "reason": "large"},
)


def corpus(folder: Path) -> list[Good]:
    """Requests as a browser sends them, and one to each route that Gradio has."""
    made: dict[str, bytes] = {}
    for name, path in (
        ("page", "/"), ("config", "/config"), ("info", "/gradio_api/info"), ("theme", "/theme.css"),
        ("file", "/gradio_api/file=/tmp/x.mp4"), ("stream", "/gradio_api/stream/a/b/c"), ("queue",
        "/gradio_api/queue/status"),
        ("events", "/gradio_api/queue/data?session_hash=none"), ("startup", "/gradio_api/startup-events"),
        ("heartbeat", "/gradio_api/heartbeat/a"), ("upload_progress", "/gradio_api/upload_progress?upload_id=a"),
        ("static", "/static/img/logo.svg"), ("asset", "/assets/index.js"), ("custom", "/custom_component/a/b/c/d"),
        ("login", "/login_check"), ("token", "/gradio_api/token"), ("dev", "/gradio_api/dev/reload"), ("robots",
        "/robots.txt"),
        ("monitoring", "/monitoring"), ("vibe", "/gradio_api/vibe-code"), ("deep_link", "/gradio_api/deep_link"),
    ):  # fmt: skip
        made[name] = _request("GET", path)
    for number in range(24):
        body = {
            "data": [DATA[number % 2].get("question", "What?")] * (1 + number % 3),
            "event_data": DATA[number % 2],
            "fn_index": number,
            "session_hash": f"s{number % 4}",
            "trigger_id": number,
        }
        made[f"join{number}"] = _request("POST", "/gradio_api/queue/join", json.dumps(body).encode())
        made[f"run{number}"] = _request("POST", f"/gradio_api/run/{number}", json.dumps(body).encode())
    cancel = {"session_hash": "s0", "fn_index": 3, "event_id": "x"}
    for route in ("cancel", "reset", "call/answer", "component_server", "login", "run/predict"):
        made[route.replace("/", "_")] = _request("POST", f"/gradio_api/{route}", json.dumps(cancel).encode())
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        + b"\0abc" * 50
        + b"\r\n--x--\r\n"
    )
    made["upload"] = _request("POST", "/gradio_api/upload?upload_id=a", part, "multipart/form-data; boundary=x")
    return [good_file(folder, name, data, "request") for name, data in made.items()]


def _request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@cache
def _port() -> int:
    """Serves the page from a thread of this process; its log is that of the child."""
    from rich.console import Console

    from avllm.config import find_file, load
    from avllm.demo.config import DemoConfig
    from avllm.demo.server import free_port, serve_page
    from tests.demo.fake import FakeModel

    votes = Path(tempfile.mkdtemp(prefix="avllm-fuzz-votes-")) / "votes.jsonl"
    overrides = ["page.examples=null", "media.max_upload_mb=1", f"page.votes={votes}", "page.keep_closed_seconds=1"]
    config = load(DemoConfig, find_file("eval_configs", "nano_withaudio"), overrides)
    port = free_port("127.0.0.1", None)
    models = {config.model: FakeModel(config)}
    threading.Thread(target=serve_page, args=(models, config, port, (), Console()), daemon=True).start()
    for _ in range(600):
        try:
            _sent(port, _request("GET", "/"))
            return port
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the page is not served")


def calls(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Sends the request; what was begun in a queue is read to its end."""
    port, data = _port(), case.path.read_bytes()
    yield "request", partial(_answered, port, data)
    found = re.search(rb'"session_hash": *"(s\d)"', data)
    if b"/queue/join" in data[:200] and found and case.number % 4 == 0:
        address = f"/gradio_api/queue/data?session_hash={found[1].decode()}"
        yield "events", partial(_answered, port, _request("GET", address))


def _answered(port: int, data: bytes) -> Said:
    """The status; a reply must not tell of the server's inside. Gradio's own 500 are told in the log; see `child`."""
    reply = _sent(port, data)
    head, _, body = reply.partition(b"\r\n\r\n")
    status = head[9:12].decode("latin-1") if head.startswith(b"HTTP/1.") else "closed"
    is_page = b"text/html" in head or b"javascript" in head or b"text/css" in head
    private = None if is_page else PRIVATE.search(body)
    assert private is None, f"status {status} tells {private[0]!r}: {body[:300]!r}"
    return Said(status)


def _sent(port: int, data: bytes) -> bytes:
    """The reply; of a stream, which never ends by itself, what comes until it is silent for a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with suppress(OSError):  # closed already, in the midst of a body that is too large
            connection.sendall(data)
        reply = b""
        connection.settimeout(REPLY_SECONDS if _is_whole(data) else SILENT_SECONDS)
        while len(reply) < READ_BYTES and not _is_over(reply):
            try:
                part = connection.recv(65536)
            except TimeoutError:
                assert reply or not _is_whole(data), f"no reply within {REPLY_SECONDS:g} s"
                break
            except ConnectionError:
                break
            if not part:
                break
            reply += part
            connection.settimeout(SILENT_SECONDS)
        return reply


def _is_whole(data: bytes) -> bool:
    """Whether a server can know that nothing more comes."""
    head, end, body = data.partition(b"\r\n\r\n")
    lengths = re.findall(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)(?=\r\n|$)", head)
    first = re.fullmatch(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]", head.partition(b"\r\n")[0])
    return bool(end and first) and b"hunked" not in head and max([int(n) for n in lengths], default=0) <= len(body)


def _is_over(reply: bytes) -> bool:
    """Whether a reply is whole, or a stream has told what it had to tell."""
    head, end, body = reply.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    told = b"process_completed" in body or b"close_stream" in body
    return bool(end) and (told or (length is not None and len(body) >= int(length[1])))
