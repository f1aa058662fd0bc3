"""Media are opened by `avllm.media` alone, each format by one function there; sockets by few files, by name."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.media.make import clip, numbered

ROOT = Path(__file__).parents[2] / "avllm"
# What opens media, or the network, and which files may call it, each with a reason.
ALLOWED: dict[str, dict[str, str]] = {
    "av.open": {
        "media/container.py": "the one way into a container",
        "media/write.py": "for writing alone",
    },
    "av.CodecContext.create": {"media/heif.py": "pictures of a HEIF file have no container that FFmpeg knows"},
    "PIL.Image.open": {},  # it asks plugins that anybody registered, and Pillow's own limit
    "socket": {
        "demo/server.py": "looks for a free port on this machine",
        "demo/hosts.py": "asks for this machine's own name",
        "confinement/start.py": "the pair of ends between a process and its child",
        "media/isolated/channel.py": "the same",
        "media/isolated/child.py": "the same",
        "media/isolated/process.py": "the same",
    },
    "httpx": {
        "evaluation/endpoint.py": "a judge that the user names",
        "evaluation/run.py": "asks whether it is installed",
    },
    "urllib.request": {},
    "urllib3": {},
    "requests": {},
    "aiohttp": {},
    "http.client": {},
    "ftplib": {},
    "wave": {},
    "soundfile": {},
    "librosa": {},
    "torchaudio": {},
    "torchvision.io": {},
    "scipy.io": {},
    "imageio": {},
    "cv2": {},
    "decord": {},
    "torchcodec": {},
    "moviepy": {},
    "pillow_heif": {},
}


@cache
def used(path: Path) -> set[str]:
    """Names of modules that a file imports, and of the functions that it calls in them, with their full names."""
    tree = ast.parse(path.read_text())
    known: dict[str, str] = {}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            for alias in node.names:
                first = alias.name.split(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            dotted = ast.unparse(node.func)
            head, _, rest = dotted.partition(".")
            if head in known:
                names.add(f"{known[head]}.{rest}" if rest else known[head])
            if dotted in ("__import__", "importlib.import_module", "require"):
                names |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return names


def openers(name: str) -> set[str]:
    """Files of the package that use a module or a function."""
    found = set()
    for path in ROOT.rglob("*.py"):
        if any(use == name or use.startswith(name + ".") for use in used(path)):
            found.add(path.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("name", ALLOWED)
def test_s02_only_the_files_that_are_named_open_media_or_the_network(name):
    assert openers(name) <= {*ALLOWED[name]}, f"{name}: go through avllm.media, or name the file and the reason here"


def test_s02_the_readers_of_pillow_are_named_in_one_file():
    """They are imported by name, where no import tells."""
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if "ImagePlugin" in path.read_text()}
    assert found == {"media/pillow.py"}


def test_s02_no_program_is_started_with_a_medium():
    """A user's name never reaches an argv: nothing but the package itself is run as a program."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert '"ffmpeg"' not in text
        assert '"ffprobe"' not in text


def test_s02_the_lint_sees_what_it_looks_for(tmp_path):
    path = tmp_path / "sly.py"
    path.write_text(
        "from PIL import Image as I\nimport urllib.request as u\nimport av\nI.open('x')\nav.open('y')\nu.urlopen('z')\n"
    )
    assert {"PIL.Image.open", "av.open", "urllib.request"} <= used(path)


_WATCHED = """
import json, os, sys, traceback
folder, seen = os.path.realpath(sys.argv[1]), []
def hook(event, args):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "urllib.")):
        seen.append((event, ""))
    elif event == "open" and isinstance(args[0], str) and os.path.realpath(args[0]).startswith(folder):
        frames = [frame.filename for frame in traceback.extract_stack() if "/avllm/" in frame.filename]
        seen.append(("open", "/".join(frames[-1].split("/")[-2:]) if frames else "?"))
from avllm import media
from avllm.errors import MediaError
from avllm.media import container, heif, pictures
sys.addaudithook(hook)
for name in sorted(os.listdir(folder)):
    path = os.path.join(folder, name)
    for read in (media.probe, media.open_video, media.open_audio, media.open_image):
        for source in (path, "file://" + path, open(path, "rb").read() if os.path.isfile(path) else path):
            before = len(seen)
            try:
                read(source)
            except MediaError:
                pass
    media.content_key(path, {})
print(json.dumps(seen))
"""


def test_s02_only_the_media_layer_opens_a_users_file_and_nothing_opens_a_socket(tmp_path):
    """Python itself reports every file and socket that it opens to a hook."""
    clip(tmp_path / "a.mp4", 12), clip(tmp_path / "a.webm", 12)
    folder = tmp_path / "frames"
    folder.mkdir()
    from PIL import Image

    for number, frame in enumerate(numbered(2)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    Image.fromarray(numbered(1)[0]).save(tmp_path / "a.jpg")
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n")
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert {event for event, _ in seen} == {"open"}
    # The call in the script itself is the one that hands over bytes.
    assert {where for _, where in seen} - {"?"} <= {
        "media/files.py",
        "media/container.py",
    }
    assert len(seen) > 20
