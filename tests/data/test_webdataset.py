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

    records = [source.record(index, 0) for index in range(len(source))]

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
        ({"1.json": [1], "1.png": b"x"}, "1.json: expected keys and values, got list"),
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
