import csv
import json
from pathlib import Path

import pytest

from avllm.data import Context, ImageCaptions, LlavaInstruct, MediaCaptions, Medium, Turn, VideoChatInstruct, WebVid
from avllm.errors import DataError


def _webvid(tmp_path, rows, columns=("videoid", "page_dir", "name"), name="0.csv"):
    folder = tmp_path / "annotations"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return WebVid.Config(annotations=str(folder), videos=str(tmp_path / "videos"), num_frames=8, sampling="head_tail")


def _write(tmp_path, data, name="a.json"):
    path = tmp_path / name
    path.write_text(json.dumps(data))
    return str(path)


def test_webvid_reads_all_files_of_the_folder_in_order(tmp_path):
    _webvid(tmp_path, [["2", "p/q", "A Dog,\nrunning (fast)!"]], name="1.csv")
    source = _webvid(tmp_path, [["1", "000001_000050", "Sea."]]).build(Context())

    first, second = (source.record(index, 0) for index in range(len(source)))

    assert first.id == f"{tmp_path}/annotations/0.csv:2"
    assert first.form == "caption"
    options = {"sampling": "head_tail", "num_frames": 8}
    video = Medium(kind="video", source=tmp_path / "videos/000001_000050/1.mp4", options=options)
    assert first.turns == (Turn(role="user", text="", media=(video,)), Turn(role="assistant", text="sea"))
    assert second.turns[1].text == "a dog,\nrunning fast"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([["1", "p"]], ("videoid", "page_dir"), r"0\.csv:1: column 'name' is missing"),
        ([["1", "p", "x"], ["2", "", "y"]], ("videoid", "page_dir", "name"), r"0\.csv:3: page_dir is empty"),
    ],
)
def test_webvid_names_file_line_and_column(tmp_path, rows, columns, message):
    with pytest.raises(DataError, match=message):
        _webvid(tmp_path, rows, columns).build(Context())


def test_webvid_reads_what_excel_writes_and_names_unknown_columns(tmp_path):
    config = _webvid(tmp_path, [["1", "p", "A\u2028b", "PT1S"]], ("videoid", "page_dir", "name", "duration"))
    path = tmp_path / "annotations" / "0.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert len(config.build(Context())) == 1
    path.write_text(path.read_text(encoding="utf-8-sig").replace("duration", "caption2"))
    with pytest.raises(DataError, match=r"0\.csv:1\.caption2: this key is not known .* did you mean caption\?"):
        config.build(Context())


def test_webvid_does_not_leave_its_folder(tmp_path):
    source = _webvid(tmp_path, [["x", "../../etc", "sea"]]).build(Context())

    with pytest.raises(DataError, match=r"leads out of .*videos"):
        source.record(0, 0)


def test_webvid_without_files_says_so(tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DataError, match="holds no CSV file"):
        WebVid.Config(annotations=str(tmp_path / "annotations"), videos="v").build(Context())


def test_image_captions_are_learned_from_the_image_alone_or_after_a_request(tmp_path):
    data = {"annotations": [{"image_id": "GCC_1", "caption": "A RED car."}, {"image_id": 2, "caption": "Sea."}]}
    _write(tmp_path, data, "filter_cap.json")

    plain = ImageCaptions.Config(root=str(tmp_path)).build(Context()).record(0, 0)
    asked = ImageCaptions.Config(root=str(tmp_path), prompts=("What?", "Which?"), clean=False).build(Context())

    assert (plain.form, plain.turns[0].text, plain.turns[1].text) == ("caption", "", "a red car")
    assert plain.turns[0].media[0] == Medium(kind="image", source=tmp_path / "image/GCC_1.jpg")
    assert {asked.record(1, seed).turns[0].text for seed in range(20)} == {"What?", "Which?"}
    assert asked.record(1, 3) == asked.record(1, 3)
    assert (asked.record(0, 0).form, asked.record(0, 0).turns[1].text) == ("train_caption", "A RED car.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"annotation": []}, r"filter_cap\.json\.annotations: missing; the entry has: annotation"),
        ({"annotations": [{"image_id": "a"}]}, r"annotations\[0\]\.caption: missing; the entry has: image_id"),
        ({"annotations": [{"image_id": "a", "caption": ""}]}, r"annotations\[0\]\.caption: expected a text, got \"\""),
        ([1], r"filter_cap\.json: expected keys and values, got \[1\]"),
    ],
)
def test_image_captions_name_index_and_key(tmp_path, data, message):
    _write(tmp_path, data, "filter_cap.json")
    with pytest.raises(DataError, match=message):
        ImageCaptions.Config(root=str(tmp_path)).build(Context())


def test_broken_json_names_the_line(tmp_path):
    (tmp_path / "filter_cap.json").write_text('{"annotations":\n [,]}')
    with pytest.raises(DataError, match=r"filter_cap\.json:2: no valid JSON"):
        ImageCaptions.Config(root=str(tmp_path)).build(Context())


def _llava(tmp_path, conversations, **entry):
    path = _write(tmp_path, [{"id": "1", **entry, "conversations": conversations}])
    return LlavaInstruct.Config(annotations=path, images="coco").build(Context())


def test_llava_instruct_keeps_the_image_where_the_first_question_has_it(tmp_path):
    said = [
        {"from": "human", "value": "What is it?\n<image>"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]

    record = _llava(tmp_path, said, image="000000033471.jpg").record(0, 0)

    assert [turn.text for turn in record.turns] == ["What is it?\n", "A cat.", "Sure?", "Yes."]
    assert record.turns[0].places == (12,)
    assert str(record.turns[0].media[0].source) == "coco/COCO_train2014_000000033471.jpg"
    assert not any(turn.media for turn in record.turns[1:])


def test_llava_instruct_takes_conversations_without_an_image(tmp_path):
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]

    assert _llava(tmp_path, said).record(0, 0).turns[0] == Turn(role="user", text="Hi")


@pytest.mark.parametrize(
    ("said", "entry", "message"),
    [
        ([("human", "Hi"), ("gpt", "x")], {"image": "a.jpg"}, r"expected 1 <image> in the first value.* got \[0\]"),
        ([("human", "Hi"), ("gpt", "x")], {"bbox": [1, 2]}, r"a\.json\[0\]\.bbox: is not used, where things are"),
        ([("robot", "Hi"), ("gpt", "x")], {}, r"conversations\[0\]\.from: expected human or gpt, got 'robot'"),
        ([("gpt", "Hi"), ("human", "x")], {}, r"a\.json\[0\]: turn 1: expected the user's, got the assistant's"),
        ([("human", "Hi")], {}, r"a\.json\[0\]: the last turn is the user's"),
    ],
)
def test_llava_instruct_names_what_is_wrong(tmp_path, said, entry, message):
    with pytest.raises(DataError, match=message):
        _llava(tmp_path, [{"from": role, "value": value} for role, value in said], **entry)


def test_videochat_instruct_shows_the_video_once(tmp_path):
    pairs = [{"q": "What happens?", "a": "A dog runs."}, {"q": "Where?", "a": "On a beach."}]
    path = _write(tmp_path, [{"video": "000001/1.mp4", "QA": pairs}])

    record = VideoChatInstruct.Config(annotations=path, videos="v").build(Context()).record(0, 0)

    assert [len(turn.media) for turn in record.turns] == [1, 0, 0, 0]
    assert [turn.text for turn in record.turns] == ["What happens?", "A dog runs.", "Where?", "On a beach."]


def test_videochat_instruct_names_index_and_key(tmp_path):
    path = _write(tmp_path, [{"video": "a.mp4", "QA": [{"q": "What?", "answer": "x"}]}])
    with pytest.raises(DataError, match=r"a\.json\[0\]\.QA\[0\]\.a: missing; the entry has: q, answer"):
        VideoChatInstruct.Config(annotations=path, videos="v").build(Context())


def test_videochat_instruct_takes_images_and_strips_texts(tmp_path):
    path = _write(tmp_path, [{"image": "2.jpg", "QA": [{"q": " What?\n", "a": "A tree. \n"}]}])
    config = VideoChatInstruct.Config(annotations=path, images="pictures", num_frames=8)

    record = config.build(Context()).record(0, 0)

    medium = record.turns[0].media[0]
    assert (medium.kind, str(medium.source), medium.options) == ("image", "pictures/2.jpg", {})
    assert [turn.text for turn in record.turns] == ["What?", "A tree."]


def test_videochat_instruct_asks_for_the_folder_that_is_missing(tmp_path):
    path = _write(tmp_path, [{"image": "2.jpg", "QA": [{"q": "What?", "a": "x"}]}])
    with pytest.raises(DataError, match=r"a\.json\[0\]\.image\[0\]: is about the image 2\.jpg; set images to the folder"):
        VideoChatInstruct.Config(annotations=path, videos="v").build(Context())


def test_media_captions_draws_a_request_and_keeps_the_caption(tmp_path):
    path = _write(tmp_path, [{"video": "a/1.mp4", "caption": "A DOG, running. "}, {"image": "2.jpg", "caption": "Sea"}])
    config = MediaCaptions.Config(annotations=path, root="r", prompts=("Describe it.", "Tell."), num_frames=4)
    source = config.build(Context())

    video, image = source.record(0, 0), source.record(1, 0)

    assert (len(source), video.form, video.turns[1].text) == (2, "train_caption", "A DOG, running.")
    assert {source.record(0, seed).turns[0].text for seed in range(20)} == {"Describe it.", "Tell."}
    assert video.turns[0].media == (
        Medium(kind="video", source=Path("r/a/1.mp4"), options={"sampling": None, "num_frames": 4}),
    )
    assert image.turns[0].media == (Medium(kind="image", source=Path("r/2.jpg")),)


def test_media_captions_names_index_and_key(tmp_path):
    path = _write(tmp_path, [{"image": "1.jpg", "caption": "x"}, {"image": "2.jpg"}])
    with pytest.raises(DataError, match=r"a\.json\[1\]\.caption: missing"):
        MediaCaptions.Config(annotations=path, root="r").build(Context())
