"""Names of media below their folder, and text files as other programs write them."""

import json

import numpy as np
import pytest

from avllm.data.annotations import read_entries, read_json
from avllm.data.feature_shards import files_of, stamp_of
from avllm.data.records import media_path
from avllm.errors import DataError


def test_links_in_the_folder_may_point_anywhere(tmp_path):
    blob = tmp_path / "blobs" / "0f3a"
    blob.parent.mkdir()
    blob.write_bytes(b"clip")
    root = tmp_path / "snapshots" / "r1"
    (root / "videos").mkdir(parents=True)
    (root / "videos" / "a.mp4").symlink_to("../../../blobs/0f3a")
    (root / "linked").symlink_to(blob.parent)

    assert media_path(root, "videos/a.mp4", "x").read_bytes() == b"clip"
    assert media_path(root, "linked/0f3a", "x").read_bytes() == b"clip"
    assert media_path(root, str(root / "videos/a.mp4"), "x").read_bytes() == b"clip"
    assert media_path(root, "linked/../videos/a.mp4", "x") == root / "videos/a.mp4"


@pytest.mark.parametrize("name", ["../a.mp4", "a/../../b.mp4", "..", "/etc/passwd"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"x\.video: .* leads out of .*; expected a name below it"):
        media_path(tmp_path, name, "x.video")


def test_an_absolute_name_is_taken_where_its_folder_is_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "media").symlink_to(tmp_path / "disk")

    assert media_path(tmp_path / "media", str(tmp_path / "disk/a.mp4"), "x") == tmp_path / "disk/a.mp4"


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".JSONL", ".ndjson"])
def test_marks_and_separators_are_read_as_they_are_meant(tmp_path, suffix):
    rows = [{"caption": "one\u2028line\u0085of text"}, {"caption": "b"}]
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = f"[{','.join(texts)}]" if suffix == ".json" else "\r\n\r\n".join(texts)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert [entry for entry, _ in read_entries(path)] == rows


def test_what_is_no_json_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"caption": "a"}\n{"caption": "b"}\n')
    with pytest.raises(DataError, match=r"a\.json:2: no valid JSON: Extra data; .* is named \.jsonl"):
        read_json(path)
    path.write_text('[{"video": "a.mp4", "video": "b.mp4"}]')
    with pytest.raises(DataError, match=r"a\.json: no JSON that can be read: key 'video' is written twice"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="no JSON that can be read"):
        read_json(path)
    path.write_bytes("[]".encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.json: expected UTF-8, got UTF-16"):
        read_json(path)


def test_frames_in_files_are_known_by_the_files(tmp_path):
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for number, file in enumerate(files, start=1):
        file.write_bytes(b"x" * number)

    assert files_of(files) == files
    assert files_of(files[0]) == files[:1]
    assert files_of([np.zeros(3), files[0]]) == []
    size, changed = stamp_of(files)
    assert (size, changed) == (3, max(file.stat().st_mtime_ns for file in files))
    files[1].write_bytes(b"xyz")
    assert stamp_of(files)[0] == 4
    files[1].unlink()
    assert stamp_of(files) == (0, 0)
