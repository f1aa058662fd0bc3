"""Starts the demo: loads the model, answers an example in the terminal, serves the page."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from avllm.config import find_file, load
from avllm.demo.config import DemoConfig, MediaConfig
from avllm.demo.conversation import Conversations
from avllm.demo.examples import Example, load_examples
from avllm.demo.leftovers import remove_leftovers
from avllm.demo.model import DemoModel
from avllm.demo.terminal import answer_example
from avllm.demo.uploads import Quota, Uploads
from avllm.demo.votes import Votes
from avllm.errors import ConfigError
from avllm.extras import require

log = logging.getLogger(__name__)
FIRST_PORT = 7860
_NUM_PORTS = 100
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    cfg_path: str | Path,
    *,
    model: str | None = None,
    host: str | None = None,
    port: int | None = None,
    allowed_hosts: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> int:
    """Answers an example clip in the terminal, then serves the page until Ctrl-C.

    Args:
        cfg_path: a YAML of eval_configs/, by path or by name.
        model, host, port: in place of what the YAML says.
        allowed_hosts: more names under which the page may be called, besides those of the YAML.
        overrides: `a.b=c` over the YAML.

    Returns:
        The exit code.

    Raises:
        MissingPackage: of the extra `demo`.
        ConfigError: the YAML, an override or the port is wrong.
        CheckpointError: the model cannot be loaded.
    """
    require("demo", purpose="the page of the demo")
    config = load(DemoConfig, find_file("eval_configs", cfg_path), overrides)
    given = {"model": model, "host": host, "port": port}
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    config = replace(config, allowed_hosts=(*config.allowed_hosts, *allowed_hosts))
    port = free_port(config.host, config.port)
    if config.host not in _LOOPBACK:
        log.warning("listening on %s: everyone who reaches this machine can use the demo", config.host)
    console = Console(highlight=False, markup=False)

    models = DemoModel.load_all(config)
    with models[config.model] as first:
        examples = load_examples(config.page.examples)
        if examples:
            answer_example(first, examples[0], console)
        serve_page(models, config, port, examples, console)
    return 0


def serve_page(
    models: Mapping[str, DemoModel], config: DemoConfig, port: int, examples: tuple[Example, ...], console: Console
) -> None:
    """Serves the page until Ctrl-C or SIGTERM; then every visitor's file is gone."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    votes = Votes(config.page.votes) if config.page.votes is not None else None
    remove_leftovers()
    uploads = Uploads(quota_of(config.media))
    conversations = Conversations(models, config, uploads, votes)
    # Gradio reads these when it is imported. It stores uploads where we remove them, and reports to nobody.
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.root)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    page = None
    try:
        from avllm.demo.page import Page
        from avllm.demo.web import PageServer, guarded

        posters = tuple(
            replace(example, poster=conversations.model.inspect(example.path, "").poster) for example in examples
        )
        page = PageServer(guarded(Page(conversations, posters).build(), conversations), config, port)
        page.start()
        conversations.visitors.start_sweeping()
        console.print(f"avllm demo: http://{_shown_host(config.host)}:{port}  (Ctrl-C ends it)")
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("avllm demo: ended")
    finally:
        conversations.visitors.close()
        uploads.remove()  # first, as the next line takes seconds in which a second Ctrl-C may come
        if page is not None:
            page.stop()


def quota_of(media: MediaConfig) -> Quota:
    """How much visitors may leave here."""
    return Quota(
        file_bytes=media.max_upload_mb * 2**20,
        sent_bytes=media.max_sent_mb * 2**20,
        sent_files=media.max_sent_files,
        all_bytes=media.max_all_mb * 2**20,
        all_files=media.max_all_files,
        keep_seconds=media.keep_sent_seconds,
    )


def _stop(*_: object) -> None:
    raise KeyboardInterrupt  # as Ctrl-C: the files of the visitors are removed on the way out


def free_port(host: str, port: int | None) -> int:
    """The port that was asked for, or the first free one from 7860 on.

    Raises:
        ConfigError: it is taken, or the host is not an address of this machine.
    """
    candidates = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + _NUM_PORTS)
    for candidate in candidates:
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, candidate))
        except socket.gaierror as error:
            raise ConfigError(f"host: {host!r} is not an address of this machine; use 127.0.0.1") from error
        except OSError:
            continue
        return candidate
    taken = f"port {port} is" if port is not None else f"ports {FIRST_PORT} to {FIRST_PORT + _NUM_PORTS - 1} are"
    raise ConfigError(f"{taken} taken or not allowed on {host}; name another with --port")


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
