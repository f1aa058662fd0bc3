"""Text files of users: marks, separators, what is not UTF-8."""

import pytest

from avllm.errors import DataError
from avllm.textfile import json_lines, read_text


def test_a_byte_order_mark_is_no_text(tmp_path):
    for data in (b"\xef\xbb\xbfa,b\r\n1\n", b"a,b\r\n1\n"):
        (tmp_path / "t").write_bytes(data)
        assert read_text(tmp_path / "t") == "a,b\r\n1\n"
        assert list(json_lines(tmp_path / "t")) == [(1, "a,b\r\n"), (2, "1\n")]


def test_only_a_line_feed_ends_a_line_and_blank_lines_keep_the_count(tmp_path):
    text = '"a\u2028b\u2029c\u0085d\x1ce\x0bf"'
    (tmp_path / "t").write_bytes(f"\n{text}\n  \r\n{text}".encode())
    assert list(json_lines(tmp_path / "t")) == [(2, text + "\n"), (4, text)]


def test_what_is_not_utf_8_is_named_with_its_byte(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfab\nc\xe9d\n")
    with pytest.raises(DataError, match=r"t: expected UTF-8, byte 7 is 0xe9"):
        read_text(tmp_path / "t")
    with pytest.raises(DataError, match=r"t, line 2: expected UTF-8, byte 1 is 0xe9"):
        list(json_lines(tmp_path / "t"))
    (tmp_path / "t").write_bytes("a".encode("utf-16"))
    for read in (read_text, lambda path: list(json_lines(path))):
        with pytest.raises(DataError, match="got UTF-16"):
            read(tmp_path / "t")
        with pytest.raises(DataError, match=r"none: cannot be read \(No such file"):
            read(tmp_path / "none")
