"""Requests and system texts of our own are those that the published code was recorded with.

The runner of the reference cases takes such texts from the case, so that other ones hold too; this holds ours.
"""

import json
import re
from typing import Any

import pytest

from avllm.model import CAPTION_REQUESTS, PROMPTS
from avllm.model.prompts.videochat import IMAGE_REQUESTS, VIDEO_REQUESTS
from tests.parity.test_parity import COPIES, GOLDEN


def recorded(system: str) -> Any:
    for root in (COPIES, GOLDEN):
        path = root / system / "prompts" / "prompts.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    pytest.skip(f"the recorded prompts of {system} are not here; AVLLM_GOLDEN names the folder of the recorded cases")


def test_requests_of_video_llama_and_what_its_demo_tells():
    data = recorded("video_llama")
    lines = [f"<Image><ImageHere></Image> {request}" for request in CAPTION_REQUESTS]
    assert lines == data["captions"]["prompt_file_lines_alignment_image"]
    for row, name in (("vicuna", "vicuna"), ("llama2", "llama_v2")):
        assert PROMPTS[row].chat.system == data["chat"][f"{name}/demo_video/video"]["system"]
        assert PROMPTS[row].chat.system_with_audio == data["chat"][f"{name}/demo_audiovideo/audiovideo"]["system"]


def test_requests_of_videochat():
    data = recorded("videochat")["train_stage1"]
    for kind, requests in (("video", VIDEO_REQUESTS), ("image", IMAGE_REQUESTS)):
        assert [re.sub(r".*</\w+> ", "", text.split(" ###")[0]) for text in data[kind]] == list(requests)


def test_what_video_llava_tells():
    data = recorded("video_llava")["templates"]
    for form, name in ((PROMPTS["video_llava"].chat, "llava_v1"), (PROMPTS["video_llava"].train, "vicuna_v1")):
        assert data[name]["one"].startswith(f"{form.system} USER: ")
    assert f"<<SYS>>\n{PROMPTS['video_llava_llama2'].chat.system}\n<</SYS>>" in data["llava_llama_2"]["one"]


def test_what_videollama2_tells_at_inference():
    rows = recorded("videollama2")["tokenizers"]["mistral"]["cases"]
    told = {row["messages"][0]["content"] for row in rows if "messages" in row}
    assert told == {PROMPTS["videollama2_mistral"].chat.system}
