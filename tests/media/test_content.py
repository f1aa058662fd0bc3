"""Equal contents have equal keys, however they are handed over; anything that changes what is read changes the key."""

import io

import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import content_key


def test_the_key_is_of_the_content_and_not_of_the_name(tmp_path):
    first, second = tmp_path / "a.mp4", tmp_path / "b c.mp4"
    first.write_bytes(b"content")
    second.write_bytes(b"content")
    key = content_key(first, {})
    assert content_key(str(second), {}) == key
    assert content_key(second.as_uri(), {}) == key
    first.write_bytes(b"other")
    assert content_key(first, {}) != key


def test_the_key_tells_how_it_is_read(tmp_path):
    keys = {content_key(b"x", options) for options in ({}, {"kind": "video"}, {"kind": "audio"}, {"num_frames": 4})}
    assert len(keys) == 4
    assert content_key(b"x", {"a": 1, "b": 2}) == content_key(b"x", {"b": 2, "a": 1})


def test_arrays_of_equal_bytes_and_other_shape_differ():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert content_key(frames, {}) == content_key(frames.copy(), {})
    assert content_key(frames, {}) != content_key(frames.reshape(2, 2, 8, 3), {})
    assert content_key([frames[0], frames[1]], {}) == content_key(list(frames), {})


def test_a_folder_is_read_again_when_a_file_changes(tmp_path):
    (tmp_path / "0.png").write_bytes(b"a")
    key = content_key(tmp_path, {})
    (tmp_path / "1.png").write_bytes(b"b")
    assert content_key(tmp_path, {}) != key


def test_a_text_that_names_no_file_is_no_fault():
    texts = ("x" * 10_000, "nul\0", "data:video/mp4", "absent.mp4", "https://example.org/a.mp4")
    assert len({content_key(text, {}) for text in texts}) == len(texts)
    assert content_key("data:video/mp4;base64,eA==", {}) == content_key(b"x", {})
    with pytest.raises(MediaError, match="gives text"):
        content_key(io.StringIO("x"), {})
