"""A real HTTP server that speaks the chat-completions protocol and misbehaves on request."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str, dict[str, str]]


@dataclass
class Judged:
    """What came in, and what goes out.

    Args:
        behave: number of the request, its body -> status, body, headers; nothing for the usual reply.
        seconds: that each reply takes.
    """

    behave: Callable[[int, dict[str, Any]], Answer | None] = lambda number, body: None
    seconds: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


def completion(text: str, model: str = "judge-2026-01-01") -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps({"id": "x", "model": model, "choices": [{"index": 0, "message": message}], "usage": usage})


def fair(body: dict[str, Any]) -> str:
    """Yes and 5 where the answer to grade is the right one, else no and 1."""
    lines = dict(line.split(": ", 1) for line in body["messages"][1]["content"].splitlines() if ": " in line)
    is_right = lines["Correct Answer"] == lines["Predicted Answer"]
    return json.dumps({"pred": "yes" if is_right else "no", "score": 5 if is_right else 1})


@contextmanager
def serve(**options: Any) -> Iterator[Judged]:
    """Serves until the block ends."""
    judged = Judged(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with judged.lock:
                judged.requests.append({"path": self.path, **body})
                judged.headers.append(dict(self.headers))
                judged.times.append(time.monotonic())
                number = len(judged.requests) - 1
                judged.at_once += 1
                judged.most_at_once = max(judged.most_at_once, judged.at_once)
            time.sleep(judged.seconds)
            status, text, headers = judged.behave(number, body) or (200, completion(fair(body)), {})
            with judged.lock:
                judged.at_once -= 1
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):  # the client was killed
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    judged.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield judged
    finally:
        server.shutdown()
        server.server_close()
