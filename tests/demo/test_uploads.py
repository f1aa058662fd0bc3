import time
from pathlib import Path

import pytest

from avllm.demo import uploads as module
from avllm.demo.uploads import Uploads, shown_name
from avllm.errors import MediaError


@pytest.fixture
def uploads():
    uploads = Uploads(max_bytes=1000)
    yield uploads
    uploads.remove()


def sent(uploads: Uploads, name: str = "clip.mp4", size: int = 10) -> Path:
    path = uploads.root / ("a" * 64) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_takes_a_file_under_a_name_of_its_own(uploads):
    folder = uploads.folder("token")

    taken = uploads.take(str(sent(uploads, '"><img src=x>.MP4')), folder, number=3)

    assert taken == folder / "3.mp4"
    assert taken.read_bytes() == b"x" * 10


def test_unknown_suffixes_are_not_kept(uploads):
    assert uploads.take(str(sent(uploads, "page.html")), uploads.folder("token"), number=1).name == "1.bin"


def test_takes_nothing_but_uploads(uploads, tmp_path):
    folder = uploads.folder("token")
    (tmp_path / "secret").write_text("secret")
    mine = folder / "9.mp4"
    mine.write_bytes(b"of another visitor")
    link = uploads.root / ("b" * 64) / "link.mp4"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "secret")
    attempts = [
        "/etc/passwd",
        str(tmp_path / "secret"),
        str(link),
        str(mine),
        f"{uploads.root}/{'a' * 64}/../../{tmp_path}/secret",
        str(uploads.root),
        "",
        "None",
    ]
    for path in attempts:
        with pytest.raises(MediaError, match="did not arrive"):
            uploads.take(path, folder, number=1)


def test_limit_passes_just_under_and_refuses_just_over(uploads):
    folder = uploads.folder("token")

    uploads.take(str(sent(uploads, size=1000)), folder, number=1)
    with pytest.raises(MediaError, match="at most 0 MB are taken"):
        uploads.take(str(sent(uploads, size=1001)), folder, number=2)


def test_sweep_removes_the_copy_and_keeps_what_was_taken(uploads, monkeypatch):
    source = sent(uploads)
    taken = uploads.take(str(source), uploads.folder("token"), number=1)
    uploads.sweep()
    assert source.exists()

    monkeypatch.setattr(module, "_GRADIO_COPY_SECONDS", -1.0)
    time.sleep(0.01)
    uploads.sweep()

    assert not source.parent.exists()
    assert taken.exists()


def test_remove_leaves_nothing(uploads):
    sent(uploads)
    uploads.remove()
    assert not uploads.root.exists()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\clip.mp4", "clip.mp4"),
        ("a\nb\x00c.mp4", "abc.mp4"),
        ("", "file"),
        ("x" * 100 + "_the_end.mp4", "x" * 44 + "…" + "xxx_the_end.mp4"),
    ],
)
def test_names_are_shown_short_and_clean(name, shown):
    assert shown_name(name) == shown
