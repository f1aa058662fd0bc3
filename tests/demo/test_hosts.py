"""Names under which the page may be called, and pages that may call it."""

import socket

import pytest
from starlette.datastructures import Headers

from avllm.config import find_file, load
from avllm.demo.config import DemoConfig
from avllm.demo.hosts import WRONG_HOST, WRONG_ORIGIN, Hosts
from avllm.errors import ConfigError

LOOPBACK, ANYWHERE = Hosts("127.0.0.1"), Hosts("0.0.0.0")
BEHIND = Hosts("127.0.0.1", ["demo.example.org", "*.proxy.example.com"])


def refusal(hosts: Hosts, host: str, method: str = "POST", path: str = "/gradio_api/upload", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return hosts.refusal(method, path, Headers({"host": host, **named}))


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "localhost:9000"])
def test_loopback_names_are_known(host):
    assert refusal(LOOPBACK, host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.org",
        "evil.example.org:7860",
        "127.0.0.1.evil.example.org",
        "localhost.evil.example.org",
        "localhost.",
        "0x7f.1",
        "2130706433",
        "192.168.1.5:7860",
        "[::ffff:127.0.0.1]",
        "user@localhost",
        "localhost:80:80",
        "localhost/evil",
        "local host",
        "[::1",
        "",
    ],
)
def test_a_name_that_another_could_point_here_is_refused(host):
    assert refusal(LOOPBACK, host) == WRONG_HOST
    assert refusal(LOOPBACK, host, "GET", "/") == WRONG_HOST


def test_a_request_names_one_host():
    none, two = Headers({}), Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example.org")])
    assert LOOPBACK.refusal("GET", "/", none) == WRONG_HOST
    assert LOOPBACK.refusal("GET", "/", two) == WRONG_HOST


def test_the_bound_address_is_known_and_everywhere_means_any_number_but_no_name():
    assert refusal(Hosts("192.168.1.5"), "192.168.1.5:7860") is None
    assert refusal(Hosts("192.168.1.5"), "192.168.1.6:7860") == WRONG_HOST
    for host in ("192.168.1.6:7860", "[fe80::1]:7860", "127.0.0.1", f"{socket.gethostname()}:7860"):
        assert refusal(ANYWHERE, host) is None
    assert refusal(ANYWHERE, "evil.example.org") == WRONG_HOST


def test_a_proxy_is_allowed_by_its_name():
    for host in ("demo.example.org", "Demo.Example.Org:443", "x1.proxy.example.com"):
        assert refusal(BEHIND, host) is None
    for host in ("example.org", "evil.demo.example.org", "proxy.example.com", "evilproxy.example.com"):
        assert refusal(BEHIND, host) == WRONG_HOST
    assert refusal(BEHIND, "127.0.0.1:7860", origin="https://demo.example.org", sec_fetch_site="cross-site") is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example.org",
        "http://localhost:3000",
        "https://127.0.0.1.evil.example.org",
        "null",
        "",
        "file://",
        "http://localhost:7860@evil.example.org",
        "http://evil.example.org/http://localhost:7860",
        "http://localhost:7860/",
        "localhost:7860",
    ],
)
def test_requests_that_another_page_makes_are_refused(origin):
    assert refusal(LOOPBACK, "localhost:7860", origin=origin) == WRONG_ORIGIN
    assert refusal(LOOPBACK, "localhost:7860", "GET", "/", origin=origin) == WRONG_ORIGIN


def test_the_page_itself_may_ask_and_what_names_no_origin_too():
    assert refusal(LOOPBACK, "localhost:7860", origin="http://localhost:7860") is None
    assert refusal(LOOPBACK, "localhost:7860", origin="http://LOCALHOST:7860", sec_fetch_site="same-origin") is None
    assert refusal(LOOPBACK, "localhost:7860") is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_another_site_may_lead_to_the_page_and_no_further(site):
    assert refusal(LOOPBACK, "localhost", "GET", "/", sec_fetch_site=site, sec_fetch_mode="navigate") is None
    assert refusal(LOOPBACK, "localhost", "GET", "/", sec_fetch_site=site, sec_fetch_mode="no-cors") == WRONG_ORIGIN
    assert refusal(LOOPBACK, "localhost", "GET", "/config", sec_fetch_site=site) == WRONG_ORIGIN
    assert refusal(LOOPBACK, "localhost", "POST", "/", sec_fetch_site=site) == WRONG_ORIGIN


def test_allowed_hosts_are_names():
    path = find_file("eval_configs", "nano_withaudio")
    config = load(DemoConfig, path, ["allowed_hosts=[demo.example.org,'*.example.com']"])
    assert config.allowed_hosts == ("demo.example.org", "*.example.com")
    for wrong in ("https://demo.example.org", "demo.example.org:443", "*", "a/b"):
        with pytest.raises(ConfigError, match=r"allowed_hosts: got .*, expected a name such as demo\.example\.org"):
            load(DemoConfig, path, [f"allowed_hosts=['{wrong}']"])
