"""Under which names the page may be called, and by which other pages: against DNS rebinding and cross-site requests."""

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.datastructures import Headers

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://([^/?#@\\]+)")
_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|[0-9a-fA-F:]+")
WRONG_HOST = (
    "the demo does not answer to this name; open the address that it printed when it started, "
    "or start it with --allow-host and the name"
)
WRONG_ORIGIN = "another page may not use the demo; open the demo's own address"


class Hosts:
    """Tells requests for this server from those that another site makes a browser send.

    A name that an attacker owns can be made to point to this machine, so the Host of every request must be known:
    loopback names, the address that is listened on, and what was allowed. With 0.0.0.0 or :: every literal address and
    the machine's own name are known too, as nobody can point a number elsewhere.

    Args:
        bound: the address that is listened on.
        allowed: further names; `*.example.org` stands for every name below example.org.
    """

    def __init__(self, bound: str, allowed: Sequence[str] = ()) -> None:
        self._takes_literals = bound in _ANY_ADDRESS
        own = {socket.gethostname().lower()} if self._takes_literals else {bound.lower()}
        self._known = LOOPBACK | own
        self._allowed = tuple(name.lower() for name in allowed)

    def refusal(self, method: str, path: str, headers: "Headers") -> str | None:
        """Why a request is refused; None for one that may pass."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return WRONG_HOST
        if len(origins) > 1 or (origins and not self._is_own(origins[0], hosts[0])):
            return WRONG_ORIGIN
        is_visit = method in ("GET", "HEAD") and path == "/" and headers.get("sec-fetch-mode", "navigate") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_visit:
            return None if origins and self._is_allowed(_origin_name(origins[0])) else WRONG_ORIGIN
        return None

    def is_allowed(self, host: str) -> bool:
        """Whether `name[:port]` was allowed on purpose, as that of a proxy before the page is."""
        return self._is_allowed(host_name(host))

    def _is_known(self, host: str) -> bool:
        name = host_name(host)
        if name is None:
            return False
        return name in self._known or self._is_allowed(name) or (self._takes_literals and _is_address(name))

    def _is_own(self, origin: str, host: str) -> bool:
        match = _ORIGIN.fullmatch(origin)
        return match is not None and (match[1].lower() == host.lower() or self._is_allowed(_origin_name(origin)))

    def _is_allowed(self, name: str | None) -> bool:
        return name is not None and any(
            name.endswith(allowed[1:]) if allowed.startswith("*.") else name == allowed for allowed in self._allowed
        )


def host_name(host: str) -> str | None:
    """The name in `name[:port]`, in lower case; None where it is no such thing."""
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower() if match else None


def is_host_pattern(text: str) -> bool:
    """Whether it can stand in a list of allowed hosts: a name, an address, or `*.` and a name."""
    return _NAME.fullmatch(text) is not None


def _origin_name(origin: str) -> str | None:
    match = _ORIGIN.fullmatch(origin)
    return host_name(match[1]) if match else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
