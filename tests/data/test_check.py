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
    assert report["count"] == {"entry": 1, "media": 2, "length": 0, "labels": 0, "duplicate": 1}
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


def test_what_the_decoder_or_the_branch_does_not_hold_is_named(root, capsys):
    entries = [*GOOD, _entry("<video>\nwhat? " + "who goes there " * 400, video="a.mp4")]

    assert main(["data", "check", _write(root, entries), "--json"]) == 1

    report = json.loads(capsys.readouterr().out)
    assert (report["count"]["length"], report["good"], report["ok"]) == (1, 3, False)
    assert re.search(r"my\.json\[3\]: \d+ ids with its media, the decoder holds 1024", report["faults"][0]["message"])
    row = {"question": "what?", "answer": "a bird", "video": "a.mp4"}
    assert main(["data", "check", _write(root, [row, {**row, "num_frames": 17}]), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [fault["what"] for fault in report["faults"]] == ["length"]
    assert "my.json[1]: 17 frames or segments of a medium, the video branch holds 16" in report["faults"][0]["message"]


def test_what_is_left_out_or_read_as_words_is_told(root, capsys):
    entries = [
        _entry("<video>\nwhat does <audio> mean?", video="a.mp4", id=7, width=48),
        _entry("<video>\nwhat?", video="a.mp4", id=8, system="Be terse."),
    ]

    assert main(["data", "check", _write(root, entries)]) == 0

    table = capsys.readouterr().out
    assert "key id is not used (2)" in table
    assert "<audio> is read as words (1)" in table
    assert "a text of the system is left out, the prompt form has no place for one (1)" in table


def test_parts_of_one_video_are_no_duplicates(root, capsys):
    entries = [_entry("what?", video="a.mp4", start=start, end=start + 0.3) for start in (0.0, 0.3, 0.3)]

    assert main(["data", "check", _write(root, entries), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["count"]["duplicate"] == 1


def test_nothing_is_not_good(root, capsys):
    file = _write(root, [_entry("what?", video="missing.mp4")])

    assert main(["data", "check", file, "--max-unreadable", "1"]) == 1
    assert "no entry can be trained on" in capsys.readouterr().out


def test_an_unknown_key_is_named_with_its_neighbour_and_can_be_ignored(root, capsys):
    file = _write(root, [_entry("what?", vidoes="a.mp4", video="a.mp4"), _entry("what?", video="a.mp4", mood="x")])

    assert main(["data", "check", file]) == 1
    table = capsys.readouterr().out
    assert "my.json[0].vidoes: this key is not known" in table
    assert "did you mean videos?" in table
    assert "my.json[1].mood: this key is not known" in table
    assert main(["data", "check", file, "--ignore", "vidoes", "--ignore", "mood"]) == 0


def test_the_drawn_data_of_nano_are_read_as_a_stage_reads_them(tmp_path, capsys):
    stage = {
        "init": "nano", "output": str(tmp_path / "runs/out"), "trainable": ["branches"], "batch": 2,
        "schedule": {"steps_per_epoch": 1, "lr": 0.1}, "data": [{"kind": "nano_video", "clips": 3}],
    }  # fmt: skip
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(stage))

    assert main(["data", "check", str(tmp_path / "stage.yaml"), "--json"]) == 0
    assert [report["good"] for report in json.loads(capsys.readouterr().out)] == [3]
    assert main(["data", "preview", str(tmp_path / "stage.yaml"), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("<section>") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my.json", "data.0.root=x"], "A.B=C: has no use here"),
        (["nano/own", "--sound", "auto"], "--sound: has no use here"),
        (["nano/own.yaml", "--media-root", "x", "--ignore", "y"], "--media-root, --ignore: has no use here"),
    ],
)
def test_options_without_a_use_are_refused(root, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(root)
    _write(root, GOOD)

    assert main(["data", "check", *arguments]) == 1
    assert message in capsys.readouterr().err


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


def test_s22_of_a_tenth_of_broken_media_exactly_those_are_listed(root, capsys, monkeypatch):
    from avllm.model import AvllmProcessor

    good, entries = AvllmProcessor.read, [_entry(f"what {n}?", image="b.png") for n in range(20)]
    entries[4] = _entry("what?", image="missing.png")
    entries[11] = _entry("what?", video="broken.mp4")
    entries[15] = _entry("odd?", video="a.mp4")

    def read(self, opened, kind, **options):
        if str(opened).endswith("a.mp4"):
            raise OverflowError("odd")
        return good(self, opened, kind, **options)

    monkeypatch.setattr(AvllmProcessor, "read", read)
    main(["data", "check", _write(root, entries), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert [fault["what"] for fault in report["faults"]] == ["media"] * 3
    assert [re.search(r"\[(\d+)\]", fault["message"])[1] for fault in report["faults"]] == ["4", "11", "15"]
    assert "OverflowError: odd (avllm " in report["faults"][2]["message"]
    assert report["good"] == 17
