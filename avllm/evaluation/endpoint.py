"""One question to an OpenAI-compatible chat endpoint, asked until there is an answer."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from avllm.errors import ConfigError

if TYPE_CHECKING:
    import httpx

LONGEST_WAIT_S = 120.0


class Refused(Exception):
    """The endpoint does not take this question."""


class Unreachable(Exception):
    """No answer, however often it was asked."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A reply.

    Args:
        text: what it says.
        model: who says that it answered.
        tokens: of the prompt and of the reply.
    """

    text: str
    model: str
    tokens: tuple[int, int]


class Endpoint:
    """A connection, for several threads.

    Args:
        url: of the API, without /chat/completions.
        key: sent as bearer token; never part of an error.
        tries: for each question.
        wait_s: before the second try; doubles with each.
        timeout_s: longest wait for a reply.
    """

    def __init__(self, *, url: str, key: str, tries: int, wait_s: float, timeout_s: float) -> None:
        self._url, self._key = url.rstrip("/") + "/chat/completions", key
        self._tries, self._wait_s = tries, wait_s
        import httpx  # of the extra avllm[eval]; without a judge nobody needs it

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=timeout_s, headers=headers)
        self._lost = httpx.TransportError

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def complete(self, body: Mapping[str, Any]) -> Completion:
        """Asks until there is a reply: again after 408, 409, 429, 5xx, a lost connection, or what is no reply.

        Raises:
            ConfigError: the key, the address or the model is wrong; every question would fail.
            Refused: another error of this question.
            Unreachable: no reply after all tries.
        """
        problem = ""
        for number in range(self._tries):
            asked_for: str | None = None
            try:
                response = self._client.post(self._url, json=body)
            except self._lost as error:
                problem = f"{type(error).__name__} {error}".strip()
            else:
                problem = self._says(response)
                if response.is_success and (found := _completion(response)) is not None:
                    return found
                if response.status_code in (301, 302, 307, 308, 401, 403, 404):
                    raise ConfigError(f"judge at {self._url}: {problem}; check judge.url, judge.model, judge.key_env")
                if 400 <= response.status_code < 500 and response.status_code not in (408, 409, 429):
                    raise Refused(problem)
                asked_for = response.headers.get("Retry-After")
            if number + 1 < self._tries:
                time.sleep(self._pause(number, asked_for))
        raise Unreachable(f"{problem}, {self._tries} times")

    def _says(self, response: "httpx.Response") -> str:
        text = " ".join(response.text.split())[:300]
        text = text.replace(self._key, "***") if self._key else text
        return f"HTTP {response.status_code} {text}".strip()

    def _pause(self, number: int, asked_for: str | None) -> float:
        """Seconds to wait: as long as the server wants, else longer each time and not all threads at once."""
        named = _seconds(asked_for)
        wait_s = self._wait_s * 2**number * random.uniform(0.5, 1.0) if named is None else named
        return min(wait_s, LONGEST_WAIT_S)


def _completion(response: "httpx.Response") -> Completion | None:
    """The reply; None if this is no chat completion."""
    try:
        data = response.json()
        text, usage = data["choices"][0]["message"]["content"], data.get("usage") or {}
        tokens = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Completion(text=text, model=str(data.get("model", "")), tokens=tokens) if isinstance(text, str) else None


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, in seconds; both of its forms are in use."""
    if not retry_after:
        return None
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
