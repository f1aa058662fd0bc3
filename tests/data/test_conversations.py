import json

import pytest

from avllm.data import Context, Conversations, LlavaInstruct, VideoChatInstruct
from avllm.data.annotated import Annotated
from avllm.errors import DataError


def _said(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def _open(tmp_path, entries, name="a.json", **options):
    path = tmp_path / name
    lines = name.endswith(".jsonl")
    path.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    return Conversations.Config(annotations=str(path), root=str(tmp_path), **options).build(Context())


def _shape(tmp_path, record):
    return [
        (turn.role, turn.text, [(medium.kind, str(medium.source.relative_to(tmp_path))) for medium in turn.media])
        for turn in record.turns
    ]


VIDEO = [("user", "What?", [("video", "v/1.mp4")]), ("assistant", "A dog.", [])]


@pytest.mark.parametrize(
    "entry",
    [
        {"id": 1, "video": "v/1.mp4", "conversations": _said("<video>\nWhat?", "A dog.")},
        {"id": "x", "v_id": "1", "source": "w", "video": "v/1.mp4", "conversations": _said("<video>\nWhat?", "A dog.")},
        {"video": "v/1.mp4", "conversations": _said("What?", "A dog.")},
        {"videos": ["v/1.mp4"], "conversations": _said("<video>What?", "A dog.")},
        {
            "videos": ["v/1.mp4"],
            "messages": [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "A dog."}],
        },
        {"video": "v/1.mp4", "QA": [{"q": " What? ", "a": "A dog."}]},
    ],
    ids=["video_llava", "valley", "no place", "sharegpt", "messages", "videochat"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_every_layout_gives_the_same_record(tmp_path, entry, name):
    assert _shape(tmp_path, _open(tmp_path, [entry], name).record(0, 0)) == VIDEO


def test_a_caption_is_learned_behind_its_medium(tmp_path):
    assert _shape(tmp_path, _open(tmp_path, [{"audio": "a.wav", "caption": "Rain."}]).record(0, 0)) == [
        ("user", "", [("audio", "a.wav")]),
        ("assistant", "Rain.", []),
    ]


def test_each_place_takes_the_next_medium_of_its_kind(tmp_path):
    entry = {
        "images": ["1.jpg", "2.jpg"],
        "video": "v.mp4",
        "conversations": _said("<image>First?", "A.", "And <video> or <image>?", "B."),
    }

    turns = _shape(tmp_path, _open(tmp_path, [entry]).record(0, 0))

    assert turns[0] == ("user", "First?", [("image", "1.jpg")])
    assert turns[2] == ("user", "And  or ?", [("video", "v.mp4"), ("image", "2.jpg")])


def test_text_alone_has_no_media(tmp_path):
    assert _shape(tmp_path, _open(tmp_path, [{"conversations": _said("Hi", "Hello")}]).record(0, 0)) == [
        ("user", "Hi", []),
        ("assistant", "Hello", []),
    ]


def test_a_caption_form_leaves_the_question_out(tmp_path):
    entry = {"image": "1.jpg", "conversations": _said("<image>\nDescribe it.", "A cat.")}

    record = _open(tmp_path, [entry], form="caption").record(0, 0)

    assert (record.form, record.turns[0].text, record.turns[1].text) == ("caption", "", "A cat.")


def test_a_video_brings_its_sound_when_told(tmp_path):
    source = _open(tmp_path, [{"video": "v.mp4", "caption": "x"}], sound="auto", num_frames=4)

    video, sound = source.record(0, 0).turns[0].media

    assert (video.kind, video.options["num_frames"], sound.kind) == ("video", 4, "audio")
    assert (video.source, sound.optional) == (sound.source, True)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"image": "1.jpg", "conversations": _said("<image> <image>", "x")},
            "2 places <image> in the text and 1 media",
        ),
        ({"image": "1.jpg", "conversations": [{"from": "cat", "value": "x"}]}, r"conversations\[0\]\.from: expected"),
        ({"image": "1.jpg", "conversations": [{"from": "human"}]}, r"conversations\[0\]\.value: missing"),
        ({"image": "1.jpg"}, r"conversations: missing; the entry has: image"),
        ({"image": "1.jpg", "images": ["2.jpg"], "caption": "x"}, "has both image and images"),
        ({"images": [3], "caption": "x"}, r"images\[0\]: expected a path below the media root, got 3"),
        ({"image": "../1.jpg", "caption": "x"}, "leads out of"),
        ({"image": "1.jpg", "conversations": _said("<image>What?")}, "the last turn is the user's"),
    ],
)
def test_a_fault_is_named_by_file_line_and_key(tmp_path, entry, message):
    good = {"image": "1.jpg", "caption": "x"}
    with pytest.raises(DataError, match=rf"a\.jsonl:2.*{message}"):
        _open(tmp_path, [good, entry], "a.jsonl")


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "1.jpg", "caption": "x"}\n\n{"image": \n')
    with pytest.raises(DataError, match=r"a\.jsonl:3: no valid JSON"):
        Conversations.Config(annotations=str(tmp_path / "a.jsonl"), root=str(tmp_path)).build(Context())


def test_readers_of_one_annotation_file_share_their_source():
    assert all(issubclass(reader, Annotated) for reader in (Conversations, LlavaInstruct, VideoChatInstruct))
