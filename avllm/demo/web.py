"""The server of the page: Gradio behind the guard, with bounds on what connections may hold."""

import threading
import time
from typing import Any

import gradio as gr
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from avllm.demo.config import DemoConfig
from avllm.demo.conversation import Conversations
from avllm.demo.guard import MAX_HEADER_BYTES, Guard, tell_refusal
from avllm.demo.hosts import Hosts
from avllm.demo.look import page_options
from avllm.demo.receiving import Receiver, RefusedBody
from avllm.demo.visitors import Visitors
from avllm.errors import ConfigError

_SILENT_SECONDS, _CHECK_TICKS = 15.0, 10
_MAX_EVENTS, _MAX_UNREAD = 4, 1000
_START_SECONDS, _END_SECONDS = 30.0, 5.0


def guarded(blocks: gr.Blocks, conversations: Conversations) -> Guard:
    """The whole server of the page as one ASGI application; the routes are those of its `app`."""
    config, receiver = conversations.config, Receiver(conversations.uploads)
    outer = Starlette(
        routes=[
            Route("/gradio_api/upload", receiver.upload, methods=["POST"]),
            Route("/gradio_api/file={address:path}", receiver.file, methods=["GET"]),
        ],
        exception_handlers={RefusedBody: tell_refusal},
    )
    blocks.state_session_capacity = 4 * config.page.max_visitors
    gr.mount_gradio_app(outer, blocks, path="/", **page_options())  # type: ignore[arg-type]
    num_inputs = {number: len(function.inputs) for number, function in blocks.fns.items()}
    hosts = Hosts(config.host, config.allowed_hosts)
    return Guard(outer, hosts=hosts, num_inputs=num_inputs, tabs=_Tabs(blocks, conversations.visitors))


class _Tabs:
    """Who is on the page, and what waits for them in Gradio's queue."""

    def __init__(self, blocks: gr.Blocks, visitors: Visitors) -> None:
        self._blocks, self._visitors = blocks, visitors
        self._unknown: set[str] = set()
        visitors.on_sweep.append(self._forget)

    def refusal(self, tab: str) -> str | None:
        """Why a tab that is new is not let in."""
        return self._visitors.refusal(tab)

    def is_busy(self, tab: str) -> bool:
        """Whether as much waits for a tab as may: events that it has sent, or answers that it does not read."""
        queue = self._blocks._queue
        waiting = [event for one in [*queue.event_queue_per_concurrency_id.values()] for event in [*one.queue]]
        unread = queue.pending_messages_per_session.get(tab)
        num_unread = unread.qsize() if unread is not None else 0
        return sum(event.session_hash == tab for event in waiting) >= _MAX_EVENTS or num_unread > _MAX_UNREAD

    def is_awaited(self, tab: str) -> bool:
        """Whether a tab has asked for something that it is still told of."""
        return tab in self._blocks._queue.pending_messages_per_session

    def _forget(self, known: frozenset[str]) -> None:
        """Forgets answers that nobody has read and whose tab is gone, which Gradio keeps for ever."""
        queue = self._blocks._queue
        at_work = {event.session_hash for event in [*queue.event_ids_to_events.values()]}
        unknown = {*queue.pending_messages_per_session} - known - at_work
        for tab in unknown & self._unknown:  # not one that came a moment ago
            queue.pending_messages_per_session.pop(tab, None)
            queue.pending_event_ids_session.pop(tab, None)
        self._unknown = unknown


class PageServer:
    """Serves the page in a thread.

    Args:
        app: of `guarded`.
        config: of the demo.
        port: to listen on.
    """

    def __init__(self, app: Guard, config: DemoConfig, port: int) -> None:
        is_proxied = bool(config.allowed_hosts)
        settings = uvicorn.Config(
            app,
            host=config.host,
            port=port,
            http="h11",  # the one that bounds the head of a request
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=is_proxied,
            forwarded_allow_ips="127.0.0.1",
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            limit_concurrency=max(256, 8 * config.page.max_visitors),
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(settings)
        self._thread = threading.Thread(target=self._server.run, name="avllm-demo-server", daemon=True)

    def start(self) -> None:
        """Returns when the page is served.

        Raises:
            ConfigError: the port was taken meanwhile.
        """
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ConfigError("the page could not be served; is the port free? name another with --port")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it, also connections that are open."""
        self._server.should_exit = True
        self._thread.join(_END_SECONDS)


class _Server(uvicorn.Server):
    """Closes connections over which no request comes; uvicorn waits for the first one for ever."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._silent_since: dict[Any, float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Is called by uvicorn ten times a second."""
        if counter % _CHECK_TICKS == 0:
            self.close_silent(time.monotonic())
        return await super().on_tick(counter)

    def close_silent(self, now: float) -> None:
        """Closes the connections that have been waiting for the head of a request for too long."""
        connections: set[Any] = set(self.server_state.connections)
        silent = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        self._silent_since = {one: self._silent_since.get(one, now) for one in silent}
        for connection, since in self._silent_since.items():
            if now - since > _SILENT_SECONDS and connection.transport is not None:
                connection.transport.abort()
