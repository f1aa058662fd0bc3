"""The page served in this process, and what a program says to it over HTTP."""

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx

from avllm.demo.config import DemoConfig
from avllm.demo.conversation import Conversations
from avllm.demo.server import free_port, quota_of
from avllm.demo.uploads import Uploads
from avllm.demo.votes import Votes
from tests.demo.fake import FakeModel

for name in ("httpx", "httpcore", "asyncio"):
    logging.getLogger(name).setLevel(logging.WARNING)  # what the tests themselves say is no log of the demo


@contextlib.contextmanager
def served(config: DemoConfig, model: Any = None) -> Iterator[SimpleNamespace]:
    """A page over `model`, by default over one that needs no weights: its address, application and conversations."""
    from avllm.demo.page import Page
    from avllm.demo.web import PageServer, guarded

    os.environ["GRADIO_HEARTBEAT_INTERVAL"] = "0.3"  # a tab that is closed is missed soon
    uploads = Uploads(quota_of(config.media))
    models = {config.model: model or FakeModel(config)}
    votes = Votes(config.page.votes) if config.page.votes is not None else None
    conversations = Conversations(models, config, uploads, votes)
    blocks = Page(conversations, ()).build()
    guard = guarded(blocks, conversations)
    port = free_port(config.host, None)
    server = PageServer(guard, config, port)
    server.start()
    conversations.visitors.start_sweeping()
    try:
        yield SimpleNamespace(
            url=f"http://127.0.0.1:{port}", port=port, guard=guard, blocks=blocks, conversations=conversations
        )
    finally:
        conversations.visitors.close()
        uploads.remove()
        server.stop()


def quick(config: DemoConfig, *, media: dict[str, Any] | None = None, **page: Any) -> DemoConfig:
    """A configuration whose clocks are short."""
    page = {"keep_closed_seconds": 0.2, "max_concurrent": 2, **page}
    return replace(config, media=replace(config.media, **(media or {})), page=replace(config.page, **page))


class Visit:
    """One visitor without a browser: a session, a cookie jar, and the numbers of the page's events."""

    def __init__(self, url: str, session: str | None = None) -> None:
        self.session = session or secrets.token_hex(6)
        self.http = httpx.Client(base_url=url, timeout=60.0)
        page = self.http.get("/config").json()
        ids = {part["id"]: part["props"].get("elem_id") for part in page["components"]}
        self.events: dict[str, tuple[int, int | None, int]] = {}
        for event in page["dependencies"]:
            for part, name in event["targets"]:
                self.events[f"{ids.get(part)} {name}"] = (event["id"], part, len(event["inputs"]))
        self.inputs = {event["id"]: event["inputs"] for event in page["dependencies"]}
        self.queued = {event["id"]: event["queue"] is not False for event in page["dependencies"]}
        self.values = {part["id"]: part["props"].get("value") for part in page["components"]}
        self.answers = [event["id"] for event in page["dependencies"] if event["targets"][0][1] == "then"]

    def upload(self, data: bytes, name: str = "clip.mp4") -> httpx.Response:
        return self.http.post("/gradio_api/upload", files={"files": (name, data)})

    def body(self, event: str | int, data: list[Any] | None = None, event_data: Any = None) -> dict[str, Any]:
        number, part, _ = self.events[event] if isinstance(event, str) else (event, None, 0)
        given = [self.values[part] for part in self.inputs[number]] if data is None else data
        return {
            "data": given,
            "event_data": event_data,
            "fn_index": number,
            "session_hash": self.session,
            "trigger_id": part,
        }

    def send(self, route: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self.http.post(f"/gradio_api/{route}", content=json.dumps(body), headers=headers)

    def run(self, event: str, data: list[Any] | None = None, event_data: Any = None) -> httpx.Response:
        """An event that does not wait."""
        return self.send("run/predict", self.body(event, data, event_data))

    def queue(self, event: str | int, data: list[Any] | None = None, event_data: Any = None) -> dict[str, Any]:
        """An event that waits for its turn, and the last thing that is said of it."""
        joined = self.send("queue/join", self.body(event, data, event_data))
        if joined.status_code != 200:
            return {"refused": joined.status_code, **joined.json()}
        return self.follow()[-1]

    def follow(self) -> list[dict[str, Any]]:
        """What is said of the events that wait, until all are done."""
        done = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as lines:
            for line in lines.iter_lines():
                said = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if said.get("msg") in ("process_completed", "process_generating", "unexpected_error"):
                    done.append(said)
                if said.get("msg") in ("close_stream", "unexpected_error"):
                    break
        return done

    def load(self, data: bytes, name: str = "clip.mp4", adds: str = "reset") -> list[Any]:
        """Sends a file and brings it into the chat; what the page then shows."""
        sent = self.upload(data, name)
        assert sent.status_code == 200, sent.text
        return self.queue("av-file uploaded", [adds], {"path": sent.json()[0], "name": name})["output"]["data"]

    def ask(self, question: str) -> str:
        """Asks and returns the answer as it is shown."""
        accepted = self.run("av-question submit", [question])
        assert accepted.status_code == 200, accepted.text
        said = self.queue(self.answers[0])
        return chat_of(said)[-1]["content"] if "output" in said else str(said)

    def close(self) -> None:
        self.http.close()


def chat_of(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The chat in what is said of an event, as plain texts."""
    messages = next(value for value in said["output"]["data"] if isinstance(value, list))
    return [{"role": message["role"], "content": _text(message["content"])} for message in messages]


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else [content]
    texts = [part["text"] if isinstance(part, dict) else str(part) for part in parts]
    return "".join(texts).replace("\u2060", "")
