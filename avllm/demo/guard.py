"""Stands before the server of the page: what is not the page's own request goes no further, and no fault tells more."""

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avllm.demo import requests
from avllm.demo.hosts import Hosts
from avllm.demo.receiving import RefusedBody, linger, read_body
from avllm.errors import in_one_line

log = logging.getLogger(__name__)
COOKIE = "avllm_demo"
# Gradio's page runs scripts of its own inline. What this forbids is any other host, frames and plug-ins.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
_NAME = r"(?!\.)[A-Za-z0-9._@+-]+"
_READ, _SEND = ("GET", "HEAD"), ("POST",)
# All that the page asks for, and nothing else that Gradio or an extension of it may offer.
OFFERED = (
    (_READ, re.compile(r"/|/config|/theme\.css|/gradio_api/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json")),
    (_READ, re.compile(rf"/(?:assets|static|svelte)/{_NAME}(?:/{_NAME})*")),
    (_READ, re.compile(r"/gradio_api/(?:startup-events|app_id|info|queue/data|heartbeat/[A-Za-z0-9_-]{1,64})")),
    (_READ, re.compile(r"/gradio_api/file=[A-Za-z0-9_-]{22}/[0-9]{1,9}\.[a-z0-9]{1,5}")),
    (_SEND, re.compile(r"/gradio_api/(?:upload|queue/join|run/[A-Za-z0-9_]{1,64})")),
)
_UPLOAD, _STREAM = "/gradio_api/upload", "/gradio_api/queue/data"
_BODY_SECONDS = 10.0
MAX_HEADER_BYTES, _MAX_HEADERS, _MAX_QUERY_BYTES = 16 * 2**10, 64, 1024
# Gradio believes these about where the page is.
_OF_PROXIES = (b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server", b"forwarded")
_REASONS = {
    400: requests.NOT_OF_THE_PAGE,
    403: "not offered here",
    404: "not here, or no longer; reload the page",
    405: "not offered here",
    408: "the request came too slowly; check the connection and try again",
    413: "larger than the demo takes",
    416: "the file has no such part",
    422: requests.NOT_OF_THE_PAGE,
    429: "too many requests at once; try again in a minute",
    431: "the head of the request is larger than a browser would send",
    503: "the demo has too much to do; try again in a minute",
}
_FAULT = "something went wrong inside; the log of the demo says what"


class Tabs(Protocol):
    """Who is on the page, and what waits for them."""

    def refusal(self, tab: str) -> str | None:
        """Why a tab that is new is not let in."""
        ...

    def is_busy(self, tab: str) -> bool:
        """Whether as much waits for a tab as may."""
        ...

    def is_awaited(self, tab: str) -> bool:
        """Whether a tab has asked for something that it is still told of."""
        ...


class Guard:
    """Checks each request and rewrites each refusal.

    Args:
        app: what answers.
        hosts: under which names the page may be called.
        num_inputs: by the number of each event of the page, how many values come with it.
        tabs: who is on the page, and what waits for them.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, num_inputs: Mapping[int, int], tabs: Tabs) -> None:
        self.app, self.hosts, self.num_inputs, self.tabs = app, hosts, num_inputs, tabs
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        answer = scope["avllm.answer"] = _Answer(receive, send, is_head=scope["method"] == "HEAD")
        receive, headers = answer.receive, Headers(scope=scope)
        try:
            self._check(scope, headers)
            self._name_sender(scope, headers, answer)
            if scope["method"] == "POST" and scope["path"] != _UPLOAD:
                receive = _replayed(await self._event(receive, headers), receive)
            await self.app(_without_proxies(scope, self.hosts), receive, answer.send)
        except RefusedBody as refused:
            await answer.refuse(refused.status, refused.reason)
        except Exception as error:
            log.error("the server of the page failed at %s: %s", scope["path"].split("=")[0], in_one_line(error))
            log.debug("as follows", exc_info=error)
            await answer.refuse(500, _FAULT)

    def _check(self, scope: Scope, headers: Headers) -> None:
        method, path = scope["method"], scope["path"]
        num_bytes = sum(len(name) + len(value) for name, value in headers.raw)
        is_long = len(scope["query_string"]) > _MAX_QUERY_BYTES or len(path) > _MAX_QUERY_BYTES
        if is_long or len(headers.raw) > _MAX_HEADERS or num_bytes > MAX_HEADER_BYTES:
            raise RefusedBody(431, _REASONS[431])
        refusal = self.hosts.refusal(method, path, headers)
        if refusal is not None:
            raise RefusedBody(403, refusal)
        methods = [offered for offered, pattern in OFFERED if pattern.fullmatch(path)]
        if not methods:
            raise RefusedBody(404, _REASONS[403])
        if method not in methods[0]:
            raise RefusedBody(405, _REASONS[405])
        if path == _STREAM and not self.tabs.is_awaited(QueryParams(scope["query_string"]).get("session_hash", "")):
            raise RefusedBody(404, _REASONS[404])

    async def _event(self, receive: Receive, headers: Headers) -> bytes:
        body = await read_body(receive, headers, requests.MAX_BYTES, _BODY_SECONDS)
        try:
            event = requests.checked(body, self.num_inputs)
        except requests.BadRequest as error:
            raise RefusedBody(400, str(error)) from error
        tab = json.loads(event)["session_hash"]
        refusal = self.tabs.refusal(tab)
        if refusal is not None:
            raise RefusedBody(503, refusal)
        if self.tabs.is_busy(tab):
            raise RefusedBody(429, _REASONS[429])
        return event

    def _name_sender(self, scope: Scope, headers: Headers, answer: "_Answer") -> None:
        """Finds out whose quota a request counts for: by a cookie of this demo, without one by the network address."""
        name = _cookie(headers)
        is_ours = name is not None and hmac.compare_digest(self._cookie_for(name[:22]), name)
        client = scope.get("client") or ("",)
        scope["avllm.sender"] = f"cookie {name}" if is_ours else f"address {client[0]}"
        if not is_ours and scope["path"] == "/":
            value = f"{COOKIE}={self._cookie_for(secrets.token_urlsafe(16))}; Path=/; HttpOnly; SameSite=Strict"
            answer.more_headers.append((b"set-cookie", value.encode()))

    def _cookie_for(self, name: str) -> str:
        return name + hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()[:32]


class _Answer:
    """Passes an answer on, with safe headers; one that is no success keeps its status alone."""

    def __init__(self, receive: Receive, send: Send, *, is_head: bool) -> None:
        self._receive, self._send, self._is_head = receive, send, is_head
        self._is_read = self._is_begun = self._is_refused = self._is_ended = False
        self.more_headers: list[tuple[bytes, bytes]] = []
        self.reason = ""

    async def receive(self) -> Message:
        """Takes the place of the server's own `receive`."""
        message = await self._receive()
        self._is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Takes the place of the server's own `send`."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                status = 503 if self.reason and message["status"] == 500 else message["status"]
                await self.refuse(status, self.reason or _REASONS.get(status, _FAULT))
                return
            self._is_begun = True
            await self._send({**message, "headers": [*_kept(message.get("headers", [])), *self._headers(message)]})
        elif not self._is_refused:
            self._is_ended = not message.get("more_body", False)
            await self._send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        has_policy = any(name.lower() == b"content-security-policy" for name, _ in message.get("headers", []))
        return [
            *([] if has_policy else [(b"content-security-policy", _POLICY.encode())]),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
            *self.more_headers,
        ]

    async def refuse(self, status: int, reason: str) -> None:
        """Answers with a reason of our own, which the sender can read while it still sends; or ends what is begun."""
        if not self._is_begun:
            self._is_begun = self._is_refused = True
            body = json.dumps({"error": reason, "detail": reason}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            start: Message = {"type": "http.response.start", "status": status, "headers": headers}
            await self._send({**start, "headers": [*headers, *self._headers(start)]})
            await self._send({"type": "http.response.body", "body": b"" if self._is_head else body, "more_body": True})
            if not self._is_read:
                await linger(self._receive)
        if not self._is_ended:
            self._is_ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def tell_refusal(request: Request, error: Exception) -> Response:
    """The answer of an application behind the guard to a body that it does not take."""
    assert isinstance(error, RefusedBody)
    request.scope["avllm.answer"].reason = error.reason
    return Response(status_code=error.status)


def _kept(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # That others may read answers with the visitor's cookie is never true here.
    return [(name, value) for name, value in headers if not name.lower().startswith(b"access-control-")]


def _without_proxies(scope: Scope, hosts: Hosts) -> Scope:
    """A request without what a proxy says of it, unless the name of the proxy was allowed."""
    headers = Headers(scope=scope)
    if hosts.is_allowed(headers.get("x-forwarded-host", headers.get("host", ""))):
        return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"x-gradio-server"]}
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in _OF_PROXIES]}


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found is not None and found.value.isascii() else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
