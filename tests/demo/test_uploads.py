"""Files that visitors send: where they lie, how much may lie there, when they go."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from avllm.demo.leftovers import LOCK, claim, remove_leftovers
from avllm.demo.uploads import OverQuota, Quota, Uploads, address, shown_name
from avllm.errors import MediaError
from tests.demo.browser import ROOT
from tests.demo.fake import sent

QUOTA = Quota(file_bytes=1000, sent_bytes=2000, sent_files=3, all_bytes=3000, all_files=5, keep_seconds=60.0)


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uploads = Uploads(QUOTA)
    yield uploads
    uploads.remove()


def files(uploads) -> list[Path]:
    return [path for path in uploads.root.rglob("*") if path.is_file() and path.name != LOCK]


def test_takes_a_file_under_a_name_of_its_own(uploads):
    folder = uploads.folder()

    taken = uploads.take(sent(uploads, b"x" * 10, '"><img src=x>.MP4'), folder, number=3)

    assert taken == folder / "3.mp4"
    assert taken.read_bytes() == b"x" * 10
    assert files(uploads) == [taken]


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "drawing.svgz", "x.mp4.js", "none", "", "x.\x00mp4"])
def test_unknown_suffixes_are_not_kept(uploads, name):
    assert uploads.take(sent(uploads, b"x", name), uploads.folder(), number=1).name == "1.bin"


def test_takes_nothing_but_uploads(uploads, tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder, other = uploads.folder(), uploads.folder()
    taken = uploads.take(sent(uploads, b"of another visitor"), other, number=9)
    begun = uploads.begin("me")
    link = uploads.root / "sent" / "link"
    link.symlink_to(tmp_path / "secret")
    for token in ("/etc/passwd", str(tmp_path / "secret"), str(taken), address(taken), "link", begun, "..", "", "None"):
        with pytest.raises(MediaError, match="did not arrive"):
            uploads.take(token, folder, number=1)
    assert list(folder.iterdir()) == []


def test_an_upload_is_taken_once(uploads):
    token = sent(uploads, b"x")
    uploads.take(token, uploads.folder(), number=1)

    with pytest.raises(MediaError, match="did not arrive"):
        uploads.take(token, uploads.folder(), number=1)


def test_the_limit_of_a_file_passes_just_under_and_refuses_just_over_without_a_trace(uploads):
    uploads.take(sent(uploads, b"x" * 1000), uploads.folder(), number=1)
    token = uploads.begin("")
    uploads.write(token, b"x" * 1000)
    with pytest.raises(OverQuota, match=r"the file has 0\.0 MB, at most 0 MB are taken; cut or compress it"):
        uploads.write(token, b"x")
    with pytest.raises(OverQuota, match="at most 0 MB are taken"):
        uploads.begin("", 1001)
    uploads.abandon(uploads.begin("", 1000))

    assert uploads.used() == (1000, 1)
    assert len(files(uploads)) == 1


def test_the_bytes_of_a_sender_are_bounded_and_free_again_when_taken(uploads):
    first = sent(uploads, b"x" * 1000, sender="me")
    sent(uploads, b"x" * 999, sender="me")
    token = uploads.begin("me", 1)
    uploads.write(token, b"x")
    with pytest.raises(OverQuota, match=r"you have sent 2 files that are in no chat yet .* use them, or wait 60 s"):
        uploads.write(token, b"x")

    sent(uploads, b"x", sender="another")  # others go on
    uploads.take(first, uploads.folder(), number=1)
    sent(uploads, b"x" * 1000, sender="me")


def test_the_number_of_files_of_a_sender_is_bounded(uploads):
    for _ in range(3):
        uploads.begin("me")
    with pytest.raises(OverQuota, match="at most 3 and"):
        uploads.begin("me")
    uploads.begin("another")
    uploads.leave("me")
    uploads.begin("me")


def test_all_files_together_are_bounded_also_those_in_chats(uploads):
    folder = uploads.folder()
    taken = [uploads.take(sent(uploads, b"x" * 1000), folder, number=number) for number in range(3)]
    with pytest.raises(OverQuota, match="as many files as it may; try again in a few minutes"):
        uploads.begin("me", 1)
    token = uploads.begin("me")
    with pytest.raises(OverQuota, match="as many files as it may"):
        uploads.write(token, b"x")

    uploads.forget(taken[0])
    uploads.take(sent(uploads, b"x" * 1000), folder, number=4)
    uploads.remove_folder(folder)
    assert uploads.used() == (0, 0)

    for number in range(5):
        uploads.begin(f"sender {number}")
    with pytest.raises(OverQuota, match="as many files as it may"):
        uploads.begin("a sixth")


def test_what_no_chat_took_in_time_is_removed_and_what_is_on_its_way_is_not(uploads):
    whole, begun = sent(uploads, b"x" * 10, sender="me"), uploads.begin("me")
    uploads.write(begun, b"x")
    uploads.sweep()
    assert uploads.used() == (11, 2)

    uploads._sent[whole].began -= 61.0
    uploads._sent[begun].began -= 61.0
    uploads.sweep()

    assert uploads.used() == (1, 1)
    assert [path.name for path in files(uploads)] == [begun]


def test_only_files_of_chats_are_found_by_their_addresses(uploads, tmp_path):
    folder = uploads.folder()
    taken = uploads.take(sent(uploads, b"x"), folder, number=1)
    (folder / "2.mp4").symlink_to("/etc/passwd")
    waiting = sent(uploads, b"x")

    assert uploads.find(address(taken)) == taken
    for wrong in (
        f"{folder.name}/2.mp4",
        f"{folder.name}/3.mp4",
        f"{folder.name}/../{folder.name}/1.mp4",
        f"{folder.name}//1.mp4",
        f"{folder.name}/1.mp4/",
        f"{folder.name}/1.mp4\n",
        str(taken),
        waiting,
        f"sent/{waiting}",
        f"{'.' * 22}/1.mp4",
        "",
    ):
        assert uploads.find(wrong) is None, wrong


def test_a_refusal_is_told_once(uploads):
    uploads.note_refusal("me", "too large")

    assert uploads.last_refusal("another") is None
    assert uploads.last_refusal("me") == "too large"
    assert uploads.last_refusal("me") is None


def test_remove_leaves_nothing(uploads):
    sent(uploads, b"x")
    uploads.begin("me")
    uploads.remove()
    assert not uploads.root.exists()


def test_files_of_a_killed_demo_go_at_the_next_start_and_no_others(uploads, tmp_path):
    code = (
        "import sys, time; from avllm.demo.leftovers import claim; a = claim(); print(a[0], flush=True); time.sleep(60)"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    killed, alive = (Path(process.stdout.readline().strip()) for process in running)
    for root in (killed, alive):
        (root / "visitors").mkdir()
        (root / "visitors" / "1.mp4").write_bytes(b"of a visitor")
    running[0].send_signal(signal.SIGKILL)
    running[0].wait()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    (tmp_path / "avllm-demo-link").symlink_to(elsewhere)
    (tmp_path / "avllm-demo-file").write_text("somebody's")
    (tmp_path / "avllm-demo-notes").mkdir()  # has no lock of a demo
    linked = tmp_path / "avllm-demo-linked"
    linked.mkdir()
    (linked / LOCK).symlink_to(elsewhere / LOCK)

    assert remove_leftovers() == 1

    running[1].kill()
    running[1].wait()
    kept = {path.name for path in tmp_path.iterdir()}
    names = {"elsewhere", "avllm-demo-link", "avllm-demo-file", "avllm-demo-notes", "avllm-demo-linked"}
    assert kept == {*names, alive.name, uploads.root.name}
    assert remove_leftovers() == 1


def test_a_folder_of_another_user_stays(uploads, tmp_path, monkeypatch):
    root, held = claim()
    held.close()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert remove_leftovers() == 0
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert remove_leftovers() == 1
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\clip.mp4", "clip.mp4"),
        ("a\nb\x00c.mp4", "abc.mp4"),
        ("a\u202e4pm.exe", "a4pm.exe"),
        ("", "file"),
        ("x" * 100 + "_the_end.mp4", "x" * 44 + "…" + "xxx_the_end.mp4"),
    ],
)
def test_names_are_shown_short_and_clean(name, shown):
    assert shown_name(name) == shown
