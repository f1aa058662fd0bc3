"""`avllm data check` and `preview` on real files, with the shipped system's processor."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from avllm.cli import main
from avllm.media import write_audio, write_video
from tests.data.test_webdataset import write_tar
from tests.training.media_system import write_layouts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    pixels = np.zeros((8, 32, 48, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    write_video(root / "a.mp4", iter(pixels), 10.0)
    Image.fromarray(pixels[0]).save(root / "b.png")
    write_audio(root / "c.wav", np.sin(np.arange(16000) / 9).astype(np.float32)[None], 16000)
    (root / "broken.mp4").write_bytes(b"no video")
    return root


def _entry(question, answer="a <red> bird", **media):
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {**media, "conversations": said}


GOOD = [_entry("<video>\nwhat?", video="a.mp4"), _entry("<image>what?", image="b.png"), _entry("hear?", audio="c.wav")]


def _write(root, entries, name="my.json"):
    (root / name).write_text(json.dumps(entries))
    return str(root / name)


def test_a_good_file_passes_with_its_counts(root, capsys, tmp_path):
    picture = tmp_path / "lengths.png"

    code = main(["data", "check", _write(root, GOOD), "--json", "--histogram", str(picture)])

    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (report["ok"], report["entries"], report["good"]) == (True, 3, 3)
    assert report["media"] == {"video": 1, "image": 1, "audio": 1}
    assert report["lengths"]["max"] > report["lengths"]["min"] > 0
    assert Image.open(picture).size[0] > 100


def test_every_fault_is_listed_and_the_rest_is_read_on(root, capsys):
    entries = [
        *GOOD,
        _entry("<video> <video>", video="a.mp4"),
        _entry("what?", video="broken.mp4"),
        _entry("what?", video="missing.mp4"),
        GOOD[0],
    ]

    code = main(["data", "check", _write(root, entries), "--media-root", str(root), "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 1
    assert report["count"] == {"entry": 1, "media": 2, "labels": 0, "duplicate": 1}
    assert [re.search(r"\[(\d)\]", fault["message"]).group(1) for fault in report["faults"]] == ["3", "4", "5", "6"]
    assert "missing.mp4" in report["faults"][2]["message"]
    assert report["good"] == 4


def test_unreadable_media_are_allowed_up_to_a_share(root, capsys):
    file = _write(root, [*GOOD, _entry("what?", video="missing.mp4")])

    assert main(["data", "check", file, "--max-unreadable", "0.25"]) == 0
    assert main(["data", "check", file, "--max-unreadable", "0.24"]) == 1
    assert "unreadable in 1 entries, allowed 24.0%" in capsys.readouterr().out


def test_a_mute_video_is_read_without_sound_unless_it_is_required(root, capsys):
    file = _write(root, GOOD[:1])

    assert main(["data", "check", file, "--sound", "auto"]) == 0
    assert main(["data", "check", file, "--sound", "require"]) == 1
    assert "no audio track" in capsys.readouterr().out


def test_an_answer_that_is_cut_off_has_nothing_to_learn(root, capsys):
    assert main(["data", "check", _write(root, GOOD), "--max-text-tokens", "2"]) == 1
    assert "nothing to learn 3" in capsys.readouterr().out


def test_a_missing_file_is_one_line(root, capsys):
    assert main(["data", "check", str(root / "none.json")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("avllm data: ")
    assert "none.json: cannot be read" in error


def test_the_page_shows_frames_prompt_and_what_is_learned(root, tmp_path, capsys):
    page = tmp_path / "page.html"

    assert main(["data", "preview", _write(root, GOOD), "--out", str(page)]) == 0

    text = page.read_text()
    assert text.count("<section>") == 3
    assert text.count("<img ") == 8 + 1
    assert 'class="slot">video ×' in text
    assert 'class="slot">audio ×' in text
    assert "<red>" not in text  # texts of the file stay texts
    learned = re.findall(r'<span class="learned">(.*?)</span>', text)
    assert len(learned) == 3
    assert all("bird" in said for said in learned)


def test_an_unreadable_medium_is_told_on_the_page(root, tmp_path, capsys):
    page = tmp_path / "page.html"

    assert main(["data", "preview", _write(root, [_entry("what?", video="missing.mp4")]), "--out", str(page)]) == 0

    assert "missing.mp4: cannot be opened" in page.read_text()


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The published layouts as they are published, with media of this machine."""
    root = tmp_path_factory.mktemp("layouts")
    data = write_layouts(root)
    clip = (root / "videos/p/1.mp4").read_bytes()
    write_tar(
        root / "clips.tar", {"000.mp4": clip, "000.txt": "A dog.", "001.mp4": clip, "001.json": {"caption": "Sea."}}
    )
    said = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    valley = {"id": "1_p", "v_id": "1", "source": "webvid", "conversations": said, "video": "videos/p/1.mp4"}
    sharegpt = {
        "messages": [{"role": "user", "content": "<video><image>What?"}, {"role": "assistant", "content": "A dog."}],
        "videos": ["videos/p/1.mp4"],
        "images": ["image/a.jpg"],
    }
    for name, entries in {"valley": [valley], "sharegpt": [sharegpt]}.items():
        (root / f"{name}.json").write_text(json.dumps(entries))
    stage = {
        "init": "nano", "output": "out", "trainable": ["branches"], "schedule": {"steps_per_epoch": 1, "lr": 0.1},
        "data": list(data.values()), "max_text_tokens": 64,
        "held_out": {"data": [{"kind": "webdataset", "shards": str(root / "clips.tar")}]},
    }  # fmt: skip
    (root / "stage.yaml").write_text(yaml.safe_dump(stage))
    return root


@pytest.mark.parametrize(
    ("file", "options", "media"),
    [
        ("webvid", ("--media-root", "videos"), {"video": 2}),
        (".", (), {"image": 2}),
        ("clips.tar", (), {"video": 2}),
        ("valley.json", (), {"video": 1}),
        ("sharegpt.json", (), {"video": 1, "image": 1}),
        ("videochat.json", ("--media-root", "videos"), {"video": 2}),
    ],
    ids=["webvid", "cc_sbu_align", "webdataset", "valley", "sharegpt", "videochat"],
)
def test_each_published_layout_is_told_by_what_it_is(layouts, capsys, monkeypatch, file, options, media):
    monkeypatch.chdir(layouts)

    code = main(["data", "check", file, *options, "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    assert report["media"] == media
    assert report["good"] == report["entries"] > 0


def test_all_data_of_a_stage_are_read(layouts, capsys, tmp_path):
    stage, page = str(layouts / "stage.yaml"), tmp_path / "page.html"

    assert main(["data", "check", stage, "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["good"] for report in reports] == [2, 2, 2, 2, 2]
    assert main(["data", "preview", stage, "--out", str(page), "--samples", "1"]) == 0
    assert page.read_text().count("<section>") == 5
    assert main(["data", "check", stage, "data.1.root=nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
