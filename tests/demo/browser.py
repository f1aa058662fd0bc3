"""A served demo and a headless Chromium, for the tests and for the picture in the documentation."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a test picture and beeps in place of camera and microphone
    "--use-fake-ui-for-media-stream",
)


class Server:
    """A running demo.

    Args:
        command: what starts it, without the port.
        temp: where its temporary files go.
    """

    def __init__(self, command: list[str], temp: Path) -> None:
        self.temp = temp
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = temp / "log.txt"
        # Short heartbeats: that a tab was closed is noticed within a second.
        env = {**os.environ, "TMPDIR": str(temp), "GRADIO_HEARTBEAT_INTERVAL": "0.3", "OMP_NUM_THREADS": "1"}
        filled = [part.replace("PORT", str(self.port)) for part in command]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(filled, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)

    def wait(self, seconds: float = 240.0) -> None:
        """Waits until the page is served."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the demo ended with {self.process.returncode}:\n{self.log.read_text()}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url, timeout=5.0).status_code == 200 and "http://" in self.log.read_text():
                    return
            time.sleep(0.2)
        raise AssertionError(f"no page at {self.url} after {seconds:g} s:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Ends it as `kill` does."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def files(self) -> list[Path]:
        """Temporary files of its visitors and uploads."""
        return [path for path in self.temp.rglob("avllm-demo-*/**/*") if path.is_file()]


@contextlib.contextmanager
def serving(command: list[str], temp: Path) -> Iterator[Server]:
    """Starts a demo and ends it."""
    server = Server(command, temp)
    try:
        server.wait()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def python(*args: str) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *args]


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless browser without a network but this machine's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of the demo, and what a visitor does on it."""

    def __init__(
        self, browser, server: Server, *, width: int = 1280, height: int = 860, dark: bool = False, script: str = ""
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        self.context.add_init_script(script)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.route("**/*", self._only_here)
        self.page.goto(server.url)
        self.page.wait_for_selector("#av-question textarea", timeout=60_000)

    def _only_here(self, route) -> None:
        if route.request.url.startswith(("http://127.0.0.1", "data:", "blob:")):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def upload(self, path: Path) -> None:
        """Chooses a file."""
        self.page.set_input_files("#av-file input[type=file]", str(path))

    def ask(self, question: str) -> None:
        """Types a question and sends it."""
        self.page.fill("#av-question textarea", question)
        self.page.press("#av-question textarea", "Enter")

    def texts(self, who: str = "bot") -> list[str]:
        """The messages of `bot` or `user`, as they are read on the page."""
        return [
            e.inner_text().replace("\u2060", "").strip() for e in self.page.query_selector_all(f"[data-testid={who}]")
        ]

    def wait_idle(self, answers: int, seconds: float = 120.0) -> str:
        """Waits until so many messages of the model stand there and the last is whole."""
        self.page.wait_for_function(
            "n => document.querySelectorAll('[data-testid=bot]').length >= n"
            " && !document.querySelector('#av-question .stop-button')",
            arg=answers,
            timeout=seconds * 1000,
        )
        return self.texts()[-1]

    def close(self) -> None:
        """Closes it like a browser tab."""
        self.context.close()
