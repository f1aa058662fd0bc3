"""What is found before the first step of a training, from texts and names alone."""

import json

import numpy as np
import pytest
from PIL import Image

from avllm.checkpoints.load import find_model
from avllm.data import Context, Conversations, Medium, Prepare, Record, Turn
from avllm.data.frames import Count, TooLong, num_frames
from avllm.data.ready import Fit, require_ready
from avllm.errors import DataError, MediaError
from avllm.media import write_video
from avllm.model import AvllmProcessor
from avllm.model.prompts import Medium as PromptMedium


@pytest.fixture(scope="module")
def processor():
    return AvllmProcessor.from_pretrained(find_model("nano"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    pixels = np.zeros((6, 32, 48, 3), dtype=np.uint8)
    write_video(root / "a.mp4", iter(pixels), 10.0)
    Image.fromarray(pixels[0]).save(root / "b.png")
    return root


def _source(root, entries, **options):
    (root / "my.json").write_text(json.dumps(entries))
    return Conversations.Config(annotations=str(root / "my.json"), root=str(root), **options).build(Context())


def _entry(question="What?", answer="a bird", **media):
    return {**media, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _look(root, processor, entries, *, context=200, max_unreadable=0.01, max_text_tokens=None, **options):
    prepare = Prepare(processor, context=context, max_text_tokens=max_text_tokens)
    require_ready({"data.0": _source(root, entries, **options)}, prepare, max_unreadable=max_unreadable)


def test_good_data_pass_without_a_look_at_their_media(root, processor, monkeypatch):
    monkeypatch.setattr(processor, "read", lambda *args, **options: pytest.fail("opened a medium"))

    _look(root, processor, [_entry(video="a.mp4"), _entry(image="b.png"), _entry()] * 20)


def test_texts_beyond_the_context_are_counted_and_named(root, processor):
    long = _entry("what a long question " * 60, video="a.mp4")

    with pytest.raises(
        DataError,
        match=r"data\.0: 2 of 3 samples cannot .*my\.json\[1\]: \d+ ids with its media, the decoder holds 200",
    ):
        _look(root, processor, [_entry(video="a.mp4"), long, long])
    _look(root, processor, [long], context=2000)
    _look(root, processor, [long], context=None)


def test_long_bytes_that_are_few_ids_are_no_fault(root, processor):
    ids = len(Prepare(processor)(_source(root, [_entry("what colour is it? " * 9)]).record(0, 0), 0).input_ids)

    _look(root, processor, [_entry("what colour is it? " * 9)], context=ids)
    with pytest.raises(DataError, match=f"{ids} ids with its media, the decoder holds {ids - 1}"):
        _look(root, processor, [_entry("what colour is it? " * 9)], context=ids - 1)


def test_a_long_text_that_the_stage_cuts_is_no_fault_but_a_lost_answer_is(root, processor):
    long = _entry("what?", "so many words " * 90, video="a.mp4")

    _look(root, processor, [long], max_text_tokens=100)
    with pytest.raises(DataError, match="no token is learned"):
        _look(root, processor, [_entry("so many words " * 90)], max_text_tokens=100)


def test_frames_beyond_the_table_are_named(root, processor):
    with pytest.raises(DataError, match=r"my\.json\[0\]: 17 frames or segments of a medium, the video branch holds 16"):
        _look(root, processor, [_entry(video="a.mp4")], num_frames=17)
    _look(root, processor, [_entry(video="a.mp4")], num_frames=16)


@pytest.mark.parametrize("num_missing", [1, 3])
def test_missing_files_are_allowed_up_to_a_share(root, processor, num_missing):
    entries = [_entry(video=f"gone{number}.mp4") for number in range(num_missing)] + [_entry(video="a.mp4")]

    _look(root, processor, entries, max_unreadable=num_missing / len(entries))
    with pytest.raises(DataError, match=rf"media of {num_missing} of {len(entries)} samples are not there.*gone0\.mp4"):
        _look(root, processor, entries, max_unreadable=num_missing / len(entries) - 0.01)


class _Varied:
    """A system that takes a slot for every frame: only the medium tells how many ids there are."""

    def __init__(self, processor):
        self._own = processor
        self.branches = {"video": _Branch(processor.branches["video"])}

    def __getattr__(self, name):
        return getattr(self._own, name)

    def medium(self, loaded):
        return PromptMedium(kind=loaded.kind, branch=loaded.branch, num_tokens=10 * len(loaded.values))


class _Branch:
    def __init__(self, settings):
        self.media, self.encoder, self.connector, self.max_frames = settings.media, None, None, None

    def num_tokens(self, shape):
        return 10 * shape[0]


def test_only_media_that_decide_are_opened(root, processor):
    varied = _Varied(processor)  # 8 frames are 80 slots; the clip has 6
    source = _source(root, [_entry(video="a.mp4")])
    ids = len(Prepare(varied)(source.record(0, 0), 0).input_ids)
    record = source.record(0, 0)

    assert Fit(Prepare(varied, context=ids + 40)).require(record) is True
    assert Fit(Prepare(varied, context=ids)).require(record) is False
    with pytest.raises(TooLong):
        Fit(Prepare(varied, context=10)).require(record)
    require_ready({"data.0": source}, Prepare(varied, context=ids), max_unreadable=0.0)
    with pytest.raises(DataError, match=f"{ids} ids with its media, the decoder holds {ids - 1}"):
        require_ready({"data.0": source}, Prepare(varied, context=ids - 1), max_unreadable=0.0)


def test_how_many_frames_are_known_before(processor):
    def count(kind="video", source="x", **options):
        return num_frames(processor, Medium(kind=kind, source=source, options=options))

    assert count() == Count(8, False)
    assert count(num_frames=4, sampling="middle") == Count(4, True)
    assert count(source=["a", "b", "c"]) == Count(3, True)
    assert count(sampling="all") == Count(None, False)
    assert count("image") == Count(1, True)
    assert count("audio") == Count(10, True)


def test_a_system_without_the_branch_is_named(root, processor):
    varied = _Varied(processor)
    record = Record(
        id="r",
        turns=(
            Turn(role="user", text="", media=(Medium(kind="audio", source="a.wav"),)),
            Turn(role="assistant", text="x"),
        ),
    )
    with pytest.raises(DataError, match="r: holds a medium of kind audio, the system has no audio branch, but: video"):
        Prepare(varied)(record, 0)


def test_sound_that_is_not_there_takes_its_place_along(root, processor):
    record = _source(root, [_entry("One <video> two", video="a.mp4")], sound="auto").record(0, 0)
    assert record.turns[0].places == (4, 4)

    sample = Prepare(processor)(record, 0)

    alone = _source(root, [_entry("One <video> two", video="a.mp4")]).record(0, 0)
    assert sample.input_ids.tolist() == Prepare(processor)(alone, 0).input_ids.tolist()
    in_front = Record(id="r", turns=(Turn(role="user", text="One  two", media=alone.turns[0].media), alone.turns[1]))
    assert sample.input_ids.tolist() != Prepare(processor)(in_front, 0).input_ids.tolist()
    with pytest.raises(MediaError, match="audio"):
        Prepare(processor)(_source(root, [_entry(video="a.mp4")], sound="require").record(0, 0), 0)


def test_answers_that_are_not_learned_are_read(root, processor):
    def sample(*is_learned):
        said = [("user", "What?"), ("assistant", "a bird"), ("user", "Sure?"), ("assistant", "yes")]
        talk = [{"role": role, "content": text} for role, text in said]
        for index, loss in zip((1, 3), is_learned, strict=True):
            talk[index]["loss"] = loss
        record = _source(root, [{"messages": talk}]).record(0, 0)
        return Prepare(processor)(record, 0)

    def learned(one):
        return processor.tokenizer.decode(one.labels[one.labels != -100]).split()

    both, last, first = sample(True, True), sample(False, True), sample(True, False)

    assert both.input_ids.tolist() == last.input_ids.tolist() == first.input_ids.tolist()
    assert learned(both) == learned(first) + learned(last)
    assert (learned(first)[0], learned(last)[0]) == ("a", "yes</s>")
    with pytest.raises(DataError, match="no answer is to be learned"):
        sample(False, False)
