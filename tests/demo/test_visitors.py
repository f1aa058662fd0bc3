import time

import pytest

from avllm.demo.config import PageConfig
from avllm.demo.uploads import Quota, Uploads
from avllm.demo.visitors import Asked, Refused, Visitors
from tests.demo.fake import sent


@pytest.fixture
def uploads():
    uploads = Uploads(Quota(file_bytes=1000))
    yield uploads
    uploads.remove()


def visitors(uploads, **changes) -> Visitors:
    return Visitors(uploads, PageConfig(**changes))


def test_each_tab_has_a_session_and_a_folder_of_its_own(uploads):
    tabs = visitors(uploads)

    one, two = tabs.get("one"), tabs.get("two")

    assert tabs.get("one") is one
    assert one is not two
    assert one.folder != two.folder


def test_files_of_a_closed_tab_are_removed_after_a_while(uploads):
    tabs = visitors(uploads, keep_closed_seconds=0.01)
    one, two = tabs.get("one"), tabs.get("two")
    (one.folder / "1.mp4").write_bytes(b"x")
    one.pending = Asked(question="?", first_message=0)

    tabs.leave("one")
    assert one.pending.stop.is_set()
    assert one.folder.exists()
    time.sleep(0.02)
    tabs.sweep()

    assert not one.folder.exists()
    assert two.folder.exists()


def test_a_tab_that_comes_back_is_kept(uploads):
    tabs = visitors(uploads, keep_closed_seconds=0.01)
    one = tabs.get("one")
    tabs.leave("one")
    assert tabs.get("one") is one
    time.sleep(0.02)
    tabs.sweep()

    assert one.folder.exists()


def test_idle_tabs_are_closed(uploads):
    tabs = visitors(uploads, idle_minutes=0.0001)
    one = tabs.get("one")
    time.sleep(0.02)
    tabs.sweep()

    assert len(tabs) == 0
    assert not one.folder.exists()


def test_above_the_limit_the_one_idle_longest_goes(uploads):
    tabs = visitors(uploads, max_visitors=2)
    one, two = tabs.get("one"), tabs.get("two")
    one.last_seen -= 100.0
    three = tabs.get("three")

    assert [visitor.folder.exists() for visitor in (one, two, three)] == [False, True, True]


def test_above_the_limit_nobody_who_is_at_it_is_driven_out(uploads):
    tabs = visitors(uploads, max_visitors=2)
    one, two = tabs.get("one"), tabs.get("two")
    two.last_seen -= 50.0

    with pytest.raises(Refused, match=r"as many visitors as it takes; try again in a few minutes"):
        tabs.get("three")
    assert tabs.get("one") is one
    assert tabs.get("two") is two

    tabs.leave("one")  # a tab that was closed goes first, however lately it was used
    tabs.get("three")
    assert [visitor.folder.exists() for visitor in (one, two)] == [False, True]


@pytest.mark.parametrize("key", [None, ""])
def test_a_request_without_a_session_is_no_visitor(uploads, key):
    tabs = visitors(uploads)

    with pytest.raises(Refused, match="names no session; reload the page"):
        tabs.get(key)
    assert len(tabs) == 0


def test_what_a_sender_left_in_no_chat_goes_with_its_last_tab(uploads):
    tabs = visitors(uploads)
    tabs.get("one", "me"), tabs.get("two", "me"), tabs.get("three", "another")
    sent(uploads, b"x", sender="me")
    sent(uploads, b"x", sender="another")

    tabs._drop("one")
    assert uploads.used() == (2, 2)
    tabs._drop("two")
    assert uploads.used() == (1, 1)


def test_closing_removes_all_files_and_stops_all_answers(uploads):
    tabs = visitors(uploads)
    one = tabs.get("one")
    one.pending = Asked(question="?", first_message=0)
    tabs.close()

    assert one.pending.stop.is_set()
    assert not one.folder.exists()
