from types import SimpleNamespace

import pytest

from avllm.demo.conversation import Conversations
from avllm.demo.page import Page
from avllm.demo.uploads import Quota, Uploads
from tests.demo.fake import FakeModel


@pytest.fixture
def page(config):
    uploads = Uploads(Quota(file_bytes=2**20))
    page = Page(Conversations({config.model: FakeModel(config)}, config, uploads), ())
    page.build()
    yield page
    uploads.remove()


def test_no_event_is_offered_to_programs(page):
    blocks = page.build()

    assert {function.api_visibility for function in blocks.fns.values()} <= {"private", "undocumented"}
    assert blocks.api_open is False


def test_a_page_that_lost_its_file_does_not_go_on_showing_it(page):
    request = SimpleNamespace(session_hash="idle for long")

    _, messages, file = page._on_question("Still there?", request)

    assert messages[-1]["content"] == "Pick an example or add a file first, then ask about it."
    assert "av-drop" in file


def test_forged_events_change_nothing(page):
    request = SimpleNamespace(session_hash="one")
    for data in (None, {}, {"index": -1}, {"index": 99}, {"index": "0"}, {"path": None, "name": None}, "text"):
        event = SimpleNamespace(_data=data)
        page._on_pick("reset", event, request)
        page._on_refusal(event, request)
        page._on_upload("reset", event, request)
        page._on_chip(event, request)
        page._on_edit(event, request)
        page._on_vote(event, request)

    assert page.conversations.visitor("one").medium is None


def test_without_an_audio_branch_the_sound_switch_is_gone(config):
    from dataclasses import replace

    config = replace(config, media=replace(config.media, branches=("video",), audio="off"))
    uploads = Uploads(Quota(file_bytes=2**20))
    page = Page(Conversations({config.model: FakeModel(config)}, config, uploads), ())
    page.build()
    uploads.remove()

    assert page.controls.streams.visible is False
    assert "sound" not in page._file_panel(None)
