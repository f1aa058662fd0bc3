import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from avllm.data import Context, WebDataset
from avllm.data.webdataset import shards
from avllm.errors import DataError, MediaError


def _png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            data = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


SAID = [{"from": "human", "value": "<image>\n<image>\nWhich?"}, {"from": "gpt", "value": "The first."}]


def _open(path, **options):
    return WebDataset.Config(shards=str(path), **options).build(Context())


def test_members_of_one_name_are_a_sample(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {"x/1.png": _png(7), "x/1.txt": "A cat.", "x/2.JSON": {"id": 5, "caption": "A dog."}, "x/2.mp4": b"clip"},
    )
    pair = {"3.10.png": _png(2), "3.9.png": _png(1), "3.json": {"image": "old name", "conversations": SAID}}
    write_tar(tmp_path / "b.tar", {**pair, "4.cls": "no text of ours", "4.png": _png(0)})
    source = _open(tmp_path)

    records = [source.record(index, 0) for index in range(3)]

    assert len(source) == 4
    assert source.notes == ["members .cls are not read (1)"]
    with pytest.raises(MediaError, match=r"b\.tar:4: 4\.png: no \.json, \.txt or \.caption of the same name beside it"):
        source.record(3, 0)
    assert [record.id for record in records] == [
        f"{tmp_path}/a.tar:x/1",
        f"{tmp_path}/a.tar:x/2",
        f"{tmp_path}/b.tar:3",
    ]
    assert [record.turns[1].text for record in records] == ["A cat.", "A dog.", "The first."]
    assert records[0].turns[0].media[0].opened() == _png(7)
    assert (records[1].turns[0].media[0].kind, records[1].turns[0].media[0].opened()) == ("video", b"clip")
    assert [medium.opened() for medium in records[2].turns[0].media] == [_png(1), _png(2)]
    assert records[2].turns[0].text == "Which?"


def _entries(path):
    source = WebDataset(WebDataset.Config(shards=str(path)))
    found = {}
    for index in range(len(source)):
        try:
            record = source.record(index, 0)
            found[record.id.rpartition(":")[2]] = [medium.opened() for turn in record.turns for medium in turn.media]
        except (MediaError, DataError) as error:
            found[str(error).partition(": ")[0].rpartition(":")[2]] = str(error)
    return found


def test_names_with_dots_go_with_the_text_of_the_same_name(tmp_path):
    keys = ("clip_1", "yt_10.0-20.5", "yt_20.5-31.0", "d.ir/v1.2_final", "v1.3")
    members = {f"{key}.mp4": key.encode() for key in keys} | {f"{key}.json": {"caption": key} for key in keys}

    assert _entries(write_tar(tmp_path / "a.tar", members)) == {key: [key.encode()] for key in keys}


def test_what_falls_apart_is_named_and_counted_as_unreadable(tmp_path):
    members = {
        "yt_1.0-2.0.mp4": b"x",  # no text
        "yt_1.json": {"caption": "torn from its clip"},
        "v1.mp4": b"x",
        "v1.2_final.mp4": b"y",  # of another sample?
        "v1.txt": "A car.",
        "alone.txt": "No clip.",
        "named.json": {"video": "named.mp4", "conversations": SAID[1:]},
        "talk.json": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        "._talk.json": b"left behind by a tool",
        "good.0.png": _png(1),
        "good.1.png": _png(2),
        "good.json": {"conversations": SAID},
        "good.meta.json": {"any": "thing"},
    }

    found = _entries(write_tar(tmp_path / "a.tar", members))

    assert found["talk"] == []
    assert found["good"] == [_png(1), _png(2)]
    assert "would be one more video beside v1.mp4" in found["v1"]
    assert "a caption without a medium" in found["alone"]
    assert "names a video, and the tar has none" in found["named"]
    assert found["yt_1"] == [b"x"]  # WebDataset's own rule: 0-2.0.mp4 is a video of yt_1
    assert set(found) == {"yt_1", "v1", "alone", "named", "talk", "good"}


def test_a_tar_without_samples_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.tar: no samples of media and a text; it is empty"):
        _open(write_tar(tmp_path / "a.tar", {}))
    with pytest.raises(DataError, match="no samples of media and a text; .*no .json"):
        _open(write_tar(tmp_path / "a.tar", {"a.mp4": b"x", "b.mp4": b"y"}))


def test_facts_about_a_file_stand_beside_its_caption(tmp_path):
    facts = {"key": "0", "url": "https://x", "status": "success", "width": 8, "sha256": "ab", "exif": "{}"}
    tar = write_tar(tmp_path / "a.tar", {"0.png": _png(1), "0.txt": "A cat.", "0.json": facts})

    record = _open(tar).record(0, 0)

    assert record.turns[1].text == "A cat."
    assert "key sha256 is not used" in record.remarks


def test_parts_of_messages_take_the_members_in_order(tmp_path):
    content = [{"type": "text", "text": "Which"}, {"type": "image", "image": "old/1.png"}, {"type": "text", "text": "?"}]
    talk = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "This."}]}

    turn = _open(write_tar(tmp_path / "a.tar", {"0.png": _png(1), "0.json": talk})).record(0, 0).turns[0]

    assert (turn.text, turn.places, turn.media[0].opened()) == ("Which?", (5,), _png(1))


def test_a_tar_that_was_cut_short_is_an_unreadable_medium(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.txt": "A cat.", "1.png": _png(7)})
    medium = _open(path).record(0, 0).turns[0].media[0]
    path.write_bytes(path.read_bytes()[: medium.source.start + 5])

    with pytest.raises(MediaError, match="cut short"):
        medium.opened()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.json": "{", "1.png": b""}, r"a\.tar:1\.json: expected JSON"),
        ({"1.json": {"conversations": SAID}, "1.png": b"x"}, r"a\.tar:1: 2 places <image> in the text and 1 media"),
        ({"1.json": [1], "1.png": b"x"}, r"1\.json: expected keys and values, got \[1\]"),
    ],
)
def test_a_wrong_sample_is_named(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        _open(write_tar(tmp_path / "a.tar", members))


def test_compressed_tars_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass

    with pytest.raises(DataError, match="read in place"):
        _open(tmp_path / "a.tar")


def test_shards_by_folder_pattern_and_range(tmp_path):
    paths = [write_tar(tmp_path / f"c-{number:03d}.tar", {}) for number in (8, 9, 10)]

    assert shards(str(tmp_path)) == paths
    assert shards(f"{tmp_path}/c-0*.tar") == paths
    assert shards(f"{tmp_path}/c-{{008..010}}.tar") == paths
    with pytest.raises(DataError, match=r"c-011\.tar: no such tar file"):
        shards(f"{tmp_path}/c-{{008..011}}.tar")
