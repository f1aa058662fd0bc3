"""Takes a file that a visitor sends, and gives visitors their own files back."""

import asyncio
import contextlib
import json
import time

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive

from avllm.demo.uploads import PLAYABLE, OverQuota, Uploads

_MAX_PARTS, _MAX_HEADER_BYTES, _MAX_FORM_BYTES = 4, 4096, 8192
_CHUNK_SECONDS, _TOTAL_SECONDS, _LINGER_SECONDS = 20.0, 900.0, 2.0
NO_FORM = "expected one file in a form; add it on the page"
SLOW_FILE = "the file came too slowly; check the connection and send it again"
CUT_OFF = "the file did not arrive whole; send it again"
SLOW_REQUEST = "the request came too slowly; check the connection and try again"
LARGE_REQUEST = "the request is larger than the page would send; shorten the text"
NOT_STORED = "the demo cannot store files right now; try again later"


class RefusedBody(Exception):
    """A body that is not taken: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Receiver:
    """Answers the addresses of files.

    Args:
        uploads: where files go.
    """

    def __init__(self, uploads: Uploads) -> None:
        self.uploads = uploads

    async def upload(self, request: Request) -> Response:
        """Takes one file out of a form and answers with the list of the one name under which it is known.

        Raises:
            RefusedBody: it is not taken; the chat of its sender is told why.
        """
        sender = sender_of(request)
        try:
            token = await self._receive(request, sender)
        except RefusedBody as refused:
            self.uploads.note_refusal(sender, refused.reason)
            raise
        return Response(json.dumps([token]), media_type="application/json")

    async def _receive(self, request: Request, sender: str) -> str:
        form, end = _OneFile(request.headers), time.monotonic() + _TOTAL_SECONDS
        token = None
        try:
            # Refused before a byte is read, where it says its size.
            token = self.uploads.begin(sender, max(0, _declared(request.headers) - _MAX_FORM_BYTES))
            is_more = True
            while is_more:
                chunk, is_more = await _chunk(request.receive, min(_CHUNK_SECONDS, end - time.monotonic()), SLOW_FILE)
                for data in form.feed(chunk):
                    await run_in_threadpool(self.uploads.write, token, data)
            if not form.is_whole:
                raise RefusedBody(400, NO_FORM)
            self.uploads.finish(token, form.name)
            return token
        except BaseException as error:
            if token is not None:
                self.uploads.abandon(token)
            if isinstance(error, OverQuota):
                raise RefusedBody(413, str(error)) from error
            if isinstance(error, OSError | ValueError):  # a full disk
                raise RefusedBody(503, NOT_STORED) from error
            raise

    async def file(self, request: Request) -> Response:
        """A file of a chat; who knows its address was given it by the page."""
        path = self.uploads.find(request.path_params["address"])
        if path is None:
            return Response(status_code=404)
        is_shown = path.suffix in PLAYABLE
        return FileResponse(
            path,
            media_type=None if is_shown else "application/octet-stream",
            filename=path.name,
            content_disposition_type="inline" if is_shown else "attachment",
            headers={"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-store"},
        )


def sender_of(request: Request) -> str:
    """Whose quota a request counts for, as the guard has found out."""
    return request.scope.get("avllm.sender", "")


async def read_body(receive: Receive, headers: Headers, max_bytes: int, seconds: float) -> bytes:
    """A small body.

    Raises:
        RefusedBody: it is larger, or does not come.
    """
    body, end = bytearray(), time.monotonic() + seconds
    is_more = _declared(headers) <= max_bytes
    while is_more:
        chunk, is_more = await _chunk(receive, end - time.monotonic(), SLOW_REQUEST)
        body += chunk
        if len(body) > max_bytes:
            break
    else:
        if len(body) <= max_bytes >= _declared(headers):
            return bytes(body)
    raise RefusedBody(413, LARGE_REQUEST)


async def linger(receive: Receive) -> None:
    """Reads on for a moment, as many a sender hears the answer only when all is sent."""
    end = time.monotonic() + _LINGER_SECONDS
    with contextlib.suppress(RefusedBody):
        while (await _chunk(receive, end - time.monotonic(), SLOW_FILE))[1]:
            pass


async def _chunk(receive: Receive, seconds: float, told: str) -> tuple[bytes, bool]:
    """The next piece of a body, and whether more follow."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            message = await receive()
    except TimeoutError as error:
        raise RefusedBody(408, told) from error
    if message["type"] == "http.disconnect":
        raise RefusedBody(400, CUT_OFF)
    return message.get("body", b""), message.get("more_body", False)


def _declared(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


class _OneFile:
    """Finds the bytes of the one file of a form, in whatever pieces the form comes."""

    def __init__(self, headers: Headers) -> None:
        kind, options = parse_options_header(headers.get("content-type", ""))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
            raise RefusedBody(400, NO_FORM)
        self.name, self.is_whole = "", False
        self._found: list[bytes] = []
        self._header, self._value, self._disposition = b"", b"", b""
        self._num_parts = self._num_header_bytes = self._num_form_bytes = 0
        self._is_file = self._has_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> list[bytes]:
        """Bytes of the file that a piece of the form holds."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise RefusedBody(400, NO_FORM) from error
        found, self._found = self._found, []
        return found

    def _on_part(self) -> None:
        self._num_parts += 1
        self._num_header_bytes, self._disposition = 0, b""
        if self._num_parts > _MAX_PARTS:
            raise RefusedBody(400, NO_FORM)

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += self._counted(data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._counted(data[start:end])

    def _counted(self, data: bytes) -> bytes:
        self._num_header_bytes += len(data)
        if self._num_header_bytes > _MAX_HEADER_BYTES:
            raise RefusedBody(400, NO_FORM)
        return data

    def _on_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._is_file = b"filename" in options
        if self._is_file:
            if self._has_file:
                raise RefusedBody(400, NO_FORM)
            self._has_file = True
            self.name = options[b"filename"].decode("utf-8", "replace")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._found.append(data[start:end])
            return
        self._num_form_bytes += end - start
        if self._num_form_bytes > _MAX_FORM_BYTES:
            raise RefusedBody(400, NO_FORM)

    def _on_end(self) -> None:
        self.is_whole = self._has_file
