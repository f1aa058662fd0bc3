"""Own data in the forms in which people write it: each is read as meant, or refused by name."""

import math
from pathlib import Path

import numpy as np
import pytest

from avllm.data import Conversations
from avllm.data.conversations import read_record
from avllm.errors import DataError

MP4 = {"video": "a.mp4"}
TALK = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "A car."}]
PLAIN = [{"from": "human", "value": "What moves?"}, {"from": "gpt", "value": "A car."}]
PICTURES = ["f0.jpg", "f1.jpg", "f2.jpg"]


def _read(entry, **options):
    return read_record(entry, "x[0]", Conversations.Config(annotations="", root="r", **options))


def _messages(content, answer="A car.", **more):
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}], **more}


def _said(record):
    return [turn.text for turn in record.turns]


def _sources(record):
    return [(medium.kind, medium.source) for turn in record.turns for medium in turn.media]


@pytest.mark.parametrize(
    "entry",
    [
        {**MP4, "conversations": [{"from": "system", "value": "Be terse."}, *TALK]},
        {**MP4, "conversations": TALK, "system": "Be terse."},
        {**MP4, "conversations": TALK, "system_prompt": "Be terse."},
        {**MP4, "messages": [{"role": "system", "content": "Be terse."}, *_messages("What moves?")["messages"]]},
        {**MP4, "QA": [{"i": "Be terse.", "q": "What moves?", "a": "A car."}]},
        {**MP4, "query": "What moves?", "response": "A car.", "system": "Be terse."},
        {**MP4, "instruction": "What moves?", "input": "", "output": "A car.", "system": "Be terse."},
        {**MP4, "question": "What moves?", "answer": "A car.", "system": "Be terse.", "image": None, "audio": math.nan},
        {"video_path": "a.mp4", "prompt": "<Video>\nWhat moves?", "completion": "A car.", "system": "Be terse."},
        {"videos": ["a.mp4"], "conversation": [*TALK], "system": "Be terse.", "images": [], "tools": []},
        {**MP4, "messages": [{"from": "Developer", "value": "Be terse."}, {"from": "User", "value": "What moves?"},
                             {"from": "model", "value": "A car."}]},
        _messages([{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What moves?"}], system="Be terse."),
        _messages([{"type": "video"}, {"type": "text", "text": "What moves?"}], system="Be terse.", videos=["a.mp4"]),
        _messages([{"type": "video_url", "video_url": {"url": "a.mp4"}}, {"type": "text", "text": "What moves?"}],
                  [{"type": "text", "text": "A car."}], system="Be terse."),
    ],
)  # fmt: skip
def test_one_sample_in_many_forms(entry):
    record = _read(entry)

    assert (record.system, _said(record)) == ("Be terse.", ["What moves?", "A car."])
    assert _sources(record) == [("video", Path("r/a.mp4"))]
    assert record.turns[0].places is None
    assert not record.remarks
    assert not set(record.unused) - {"id"}


def test_history_and_input_stand_before_the_question():
    record = _read({"query": "And then?", "response": "Nothing.", "history": [["Hi", "Hello"], ["Why?", 3]]})
    assert _said(record) == ["Hi", "Hello", "Why?", "3", "And then?", "Nothing."]
    assert _said(_read({"instruction": "Add.", "input": "1 2", "output": 3})) == ["Add.\n1 2", "3"]


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (3.5, "3.5"), (-1, "-1"), (" a ", "a")])
def test_a_number_as_an_answer_is_its_text(value, text):
    entry = {**MP4, "conversations": [PLAIN[0], {"from": "gpt", "value": value}]}
    assert _said(_read(entry)) == ["What moves?", text]
    assert _said(_read({**MP4, "QA": [{"q": "What moves?", "a": value}]})) == ["What moves?", text]


@pytest.mark.parametrize("value", [None, math.nan, "", "  ", True, {"a": 1}])
def test_no_answer_is_refused(value):
    with pytest.raises(DataError, match=r"x\[0\]\.conversations\[1\]\.value: expected a text, got"):
        _read({**MP4, "conversations": [PLAIN[0], {"from": "gpt", "value": value}]})


@pytest.mark.parametrize(
    ("entry", "sources"),
    [
        ({"video": PICTURES, "conversations": TALK}, [PICTURES]),
        ({"video": PICTURES, "conversations": PLAIN}, [PICTURES]),
        ({"videos": [PICTURES], "conversations": TALK}, [PICTURES]),
        ({"frames": PICTURES, "conversations": PLAIN}, [PICTURES]),
        ({"videos": [PICTURES[:2], "b.mp4"], **_messages("<video><video>Same?")}, [PICTURES[:2], "b.mp4"]),
        ({"videos": PICTURES[:2], **_messages("<video><video>Same?")}, PICTURES[:2]),
        ({"videos": ["a.mp4", "b.mp4"], "conversations": PLAIN}, ["a.mp4", "b.mp4"]),
        (_messages([{"type": "video", "video": PICTURES}, {"type": "text", "text": "Q"}]), [PICTURES]),
    ],
)
def test_a_list_of_pictures_is_one_video_unless_each_has_a_place(entry, sources):
    def below(name):
        return [below(one) for one in name] if isinstance(name, list) else Path("r") / name

    assert _sources(_read(entry)) == [("video", below(source)) for source in sources]


def test_images_in_a_list_are_images():
    assert _sources(_read({"images": PICTURES, "conversations": PLAIN})) == [("image", Path("r") / f) for f in PICTURES]


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        ({"start": 1.0, "end": 2.0}, {"start_s": 1.0, "end_s": 2.0}),
        ({"start_s": "1.5"}, {"start_s": 1.5}),
        ({"video_start": 0, "video_end": 3}, {"start_s": 0.0, "end_s": 3.0}),
        ({"end_time": [2]}, {"end_s": 2.0}),
        ({"start": None, "end": math.nan}, {}),
    ],
)
def test_a_part_of_a_video_and_of_its_sound(keys, options):
    video, sound = _read({**MP4, "conversations": TALK, **keys}, sound="auto").turns[0].media

    assert dict(video.options) == {"sampling": None, "num_frames": None, **options}
    assert dict(sound.options) == options


def test_parts_of_several_media():
    entry = {"videos": ["a.mp4", "b.mp4"], "audio": "c.wav", "conversations": PLAIN}
    media = _read({**entry, "video_start": [1, None], "audio_end": 5}).turns[0].media
    assert [medium.options.get("start_s") for medium in media] == [1.0, None, None]
    assert [medium.options.get("end_s") for medium in media] == [None, None, 5.0]
    part = {"type": "video", "video": "a.mp4", "start": 1, "end": 2}
    medium = _read(_messages([part, {"type": "text", "text": "Q"}])).turns[0].media[0]
    assert (medium.options["start_s"], medium.options["end_s"]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**MP4, "start": 2, "end": 1}, "expected start < end in seconds, got 2.0 and 1.0"),
        ({**MP4, "start": "soon"}, r"x\[0\]\.start: expected seconds from the start of the medium, got \"soon\""),
        ({**MP4, "start": 1, "start_s": 2}, "start_s of the medium is given twice"),
        ({"image": "a.jpg", "start": 1}, "has no video or sound that it could be a part of"),
        ({"videos": ["a.mp4", "b.mp4"], "start": 1}, "1 times for 2 media"),
    ],
)
def test_a_part_that_is_none_is_refused(entry, message):
    with pytest.raises(DataError, match=message):
        _read({**entry, "conversations": PLAIN})


def test_places_are_kept_where_the_text_has_them():
    turn = _read({**MP4, "image": "b.jpg", **_messages("First <image>, then <video> now: what?")}).turns[0]
    assert (turn.text, turn.places) == ("First , then  now: what?", (6, 13))
    assert [medium.kind for medium in turn.media] == ["image", "video"]
    assert _read({**MP4, **_messages("What is it?\n<video>")}).turns[0].places == (12,)
    assert _read({**MP4, **_messages("<video>What is it?")}).turns[0].places == (0,)
    parts = [{"type": "text", "text": "One: "}, {"type": "image", "image": "1.jpg"}, {"type": "text", "text": " two: "}]
    turn = _read(_messages([*parts, {"type": "image", "image": "2.jpg"}])).turns[0]
    assert (turn.text, turn.places) == ("One:  two: ", (5, 11))


def test_the_sound_of_a_video_stands_at_its_place():
    turn = _read({**MP4, **_messages("Here <video> now")}, sound="auto").turns[0]
    assert ([medium.kind for medium in turn.media], turn.places) == (["video", "audio"], (5, 5))


@pytest.mark.parametrize(
    ("entry", "question", "kinds"),
    [
        ({"conversations": [{"from": "human", "value": "Is <video> a tag?"}, TALK[1]]}, "Is <video> a tag?", []),
        ({**MP4, **_messages("<video>\nWhat does <audio> mean?")}, "What does <audio> mean?", ["video"]),
        ({**MP4, **_messages("Which tag?", "The <video> tag.")}, "Which tag?", ["video"]),
        (
            _messages([{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Is <video> a tag?"}]),
            "Is <video> a tag?",
            ["video"],
        ),
        ({**MP4, **_messages("<video>\nWhat is <image>?")}, "What is <image>?", ["video"]),
    ],
)
def test_tags_are_words_where_there_is_no_such_medium_and_in_answers(entry, question, kinds):
    record = _read(entry)

    assert record.turns[0].text == question
    assert [kind for kind, _ in _sources(record)] == kinds


def test_the_answer_is_never_searched():
    assert _said(_read({**MP4, **_messages("<video>\nTag?", "<video> and <audio>")}))[1] == "<video> and <audio>"


def test_image_stands_for_a_video_where_llava_video_writes_it_so():
    record = _read({**MP4, "conversations": [{"from": "human", "value": "<image>\nWhat moves?"}, TALK[1]]})

    assert (_said(record)[0], record.turns[0].places) == ("What moves?", None)
    assert record.remarks == ("<image> is read as the place of a video",)


@pytest.mark.parametrize("tag", ["<Video>", "<VIDEO>", "< video >", "<video/>", "<Video><VideoHere></Video>"])
def test_tags_in_any_letters(tag):
    record = _read({**MP4, **_messages(f"{tag}\nWhat moves?")})
    assert (_said(record)[0], record.turns[0].places) == ("What moves?", None)


@pytest.mark.parametrize("key", [{"loss": False}, {"loss": 0}, {"loss_weight": 0.0}, {"weight": 0}, {"train": False}])
def test_turns_that_are_not_learned(key):
    talk = [PLAIN[0], {**PLAIN[1], **key}, {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]
    assert [turn.is_learned for turn in _read({"conversations": talk}).turns] == [True, False, True, True]


def test_the_form_of_run_says_how_its_video_is_read():
    row = {"id": 1, **MP4, "question": "What moves?", "answer": "A car."}
    video, sound = _read({**row, "num_frames": 8.0, "audio_mode": "require"}).turns[0].media
    assert (video.options["num_frames"], sound.optional) == (8, False)
    assert len(_read({**row, "num_frames": "4", "audio_mode": "off"}, sound="auto").turns[0].media) == 1
    video = _read({**row, "fps": 2, "max_frames": 5, "end_s": 3, "max_new_tokens": 9}, num_frames=16).turns[0].media[0]
    assert dict(video.options) == {"fps": 2.0, "max_frames": 5, "end_s": 3.0}
    parts = [{"type": "text", "text": "And "}, {"type": "image", "image": "b.jpg"}]
    turn = _read({"question": parts, "media": [{"type": "video", **MP4, "nframes": 4}], "answer": "x"}).turns[0]
    assert (turn.text, turn.places, [medium.kind for medium in turn.media]) == ("And ", (0, 4), ["video", "image"])
    assert turn.media[0].options["num_frames"] == 4


def test_sources_that_python_users_hand_over():
    frames = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    assert _read({"video": frames, "conversations": TALK}).turns[0].media[0].source is frames
    assert _sources(_read({"video": Path("a.mp4"), "conversations": TALK})) == [("video", Path("r/a.mp4"))]
    assert _sources(_read({"image": {"path": "a.jpg"}, "caption": "x"})) == [("image", Path("r/a.jpg"))]
    sound = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}
    assert _sources(_read(_messages([sound]))) == [("audio", "data:audio/wav;base64,QUJD")]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**MP4, "conversations": TALK, "clip": "x"}, r"x\[0\]\.clip: this key is not known"),
        ({"vidoe": "a.mp4", "conversations": PLAIN}, r"x\[0\]\.vidoe: .*video"),
        ({"video_id": "a.mp4", "conversations": PLAIN}, r"x\[0\]\.video_id: seems to name a medium"),
        ({**MP4, "conversations": TALK, "caption": "x"}, "has conversations and caption; expected one of them"),
        ({**MP4, "question": "q", "query": "q", "answer": "a"}, "has query and question; expected one of them"),
        ({**MP4, "query": "q", "response": "a", "rejected_response": "b"}, "rejected_response: is not used, pairs of"),
        ({**MP4, "conversations": TALK, "tools": [{}]}, r"x\[0\]\.tools: is not used, calls of tools"),
        ({**MP4, "conversations": TALK, "num_frames": 4}, r"x\[0\]\.num_frames: is not used, which frames"),
        ({**MP4, "question": "q", "answer": "A", "options": ["a"]}, r"options: is not used, answers to choose from"),
        ({**MP4, "question": "q", "answer": "a", "num_frames": "many"}, "num_frames: expected a whole number above 0"),
        ({**MP4, "question": "q", "answer": "a", "audio_mode": "on"}, "audio_mode: expected off, auto, require"),
        ({**MP4, "question": "q"}, r"x\[0\]\.answer: missing"),
        (_messages("Q", system={"a": 1}), r"x\[0\]\.system: expected a text"),
        ({"conversations": [{**PLAIN[0], "loss": True}, PLAIN[1]]}, r"conversations\[0\]\.loss: the text of the user"),
        ({**MP4, "conversations": [TALK[0], {**TALK[1], "loss_weight": 0.5}]}, "loss_weight: expected true or false"),
        ({"conversations": [PLAIN[0], {**PLAIN[1], "tone": "x"}]}, r"conversations\[1\]\.tone: this key is not known"),
        ({**MP4, "conversations": [*TALK, {"from": "tool", "value": "x"}]}, "calls of tools are not trained"),
        ({**MP4, "conversations": [*TALK, {"from": "system", "value": "x"}]}, "a turn of the system; expected it"),
        ({"conversations": [{"from": "system", "value": "a"}, *PLAIN], "system": "b"}, "another text of the system"),
        ({**MP4, "QA": [{"i": "a", "q": "q", "a": "b"}, {"i": "c", "q": "q", "a": "b"}]}, "different instructions i"),
        ({"video": "https://x.org/a.mp4", "caption": "x"}, r"is a URL, which is not read"),
        ({"images": [PICTURES], "caption": "x"}, r"images\[0\]: expected a path below the media root"),
        ({"video": PICTURES, **_messages("<video> <video> Same?")}, "2 places <video> in the text and 3 media"),
        ({"video": "a.mp4", "audio": "b.wav", "conversations": TALK}, "0 places <audio> in the text and 1 media"),
        (_messages([{"type": "table", "table": "x"}]), r"content\[0\]\.type: expected text, video"),
        (_messages([{"type": "video", "video": "a.mp4", "max_pixels": 2}]), r"content\[0\]\.max_pixels: is not used"),
        (_messages([{"type": "video", "video": "a.mp4", "fps": 2, "nframes": 4}]), "fps, num_frames: give one of them"),
        (_messages([{"type": "image", "image": "a.jpg", "fps": 2}]), r"content\[0\]\.fps: is not used"),
        ({"image": "a.jpg", "question": "q", "answer": "a", "num_frames": 4}, "num_frames: the entry has no video"),
        ({**MP4, "question": "q", "answer": "a", "sampling": "odd"}, r"x\[0\]\.sampling: got .*'odd', allowed are"),
        (_messages([{"type": "video"}, {"type": "text", "text": "Q"}]), "1 places <video> in the text and 0 media"),
        (_messages("Q", [{"type": "image", "image": "a.jpg"}]), "media in a turn of the assistant"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_named(entry, message):
    with pytest.raises(DataError, match=message):
        _read(entry)


def test_keys_that_change_nothing_are_told_and_others_can_be_ignored():
    entry = {**MP4, "conversations": [TALK[0], {**TALK[1], "tone": "x"}], "id": 1, "source": "s", "mood": "y"}

    record = _read(entry, ignore=("mood", "tone"))

    assert (record.unused, record.remarks) == (("id", "source"), ())


def test_a_caption_form_learns_one_answer():
    with pytest.raises(DataError, match="4 turns; expected one answer, which the caption form learns alone"):
        _read({**MP4, "conversations": [*TALK, *PLAIN]}, form="caption")
