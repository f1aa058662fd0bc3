"""Nothing is fetched: every URL is refused, whatever its host and spelling, and no socket is opened for it."""

import http.server
import json
import threading

import pytest

from avllm import cli, media
from avllm.errors import MediaError

HOSTS = (
    *("127.0.0.1", "localhost", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "0177.0.0.1"),
    *("169.254.169.254", "user@127.0.0.1", "127.0.0.1#@example.org", "127.1", "example.org", "①②⑦.0.0.1"),
)
SPELLINGS = (
    "http://{}/a.mp4",
    "HTTP://{}/a.mp4",
    "https://{}/a.mp4",
    "ftp://{}/a.mp4",
    "rtsp://{}/a",
    "tcp://{}",
    "gopher://{}/_a",
)
SPELLINGS += ("  http://{}/a.mp4", "http:{}/a.mp4", "//{}/a.mp4", "file://{}/a.mp4", "data:http://{}/a.mp4")
OPENING = (media.resolve, media.probe, media.open_video, media.open_image, media.open_audio)


@pytest.fixture(scope="module")
def canary():
    """A server on this machine, and what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("host", HOSTS)
def test_s01_a_url_is_refused_and_not_fetched(host, spelling, canary):
    port, asked = canary
    url = spelling.format(f"{host}:{port}")
    for open_it in OPENING:
        with pytest.raises(MediaError) as told:
            open_it(url)
        assert len(str(told.value).splitlines()) == 1

    assert asked == []


def test_s01_a_url_in_a_row_in_a_list_and_in_a_mapping_is_refused(canary, tmp_path):
    port, asked = canary
    url = f"http://127.0.0.1:{port}/a.png"
    (tmp_path / "in.jsonl").write_text(json.dumps({"video": url, "question": "What?"}))
    assert cli.main(["run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 0
    assert "URLs are off" in json.loads((tmp_path / "out.jsonl").read_text())["error"]
    for source in ([url], {"path": url, "bytes": None}):
        with pytest.raises(MediaError, match="URLs are off"):
            media.open_video(source)

    assert asked == []
