import os
import pickle

import pytest
import torch

from avllm.data import Medium
from avllm.data.feature_shards import SHARDS, ShardIndex
from avllm.data.feature_work import Extractor, Item
from avllm.data.features import FeatureStore, Reading, begin, describe, fingerprint, require_equal
from avllm.data.records import FilePart
from avllm.durable import UNFINISHED
from avllm.errors import ConfigError, DataError, MediaError, NoAudioStream, NumericError
from avllm.model import AvllmProcessor
from tests.media.make import clip
from tests.model.tiny import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor(model) -> AvllmProcessor:
    return tiny_processor(model)


@pytest.fixture
def media(tmp_path):
    """Three clips of 4, 4 and 2 frames, one without sound and one broken."""
    sizes = {"a": 6, "b": 6, "c": 2}
    for name, count in sizes.items():
        clip(tmp_path / f"{name}.mp4", count, sound=name != "b")
    (tmp_path / "broken.mp4").write_bytes(b"\x00" * 500)
    return tmp_path


def _store(model, processor, folder, wanted, **options):
    """Makes a store of (branch, medium) pairs in shards of two."""
    reading = Reading(processor)
    branches = dict(model.branches)
    folder.mkdir()
    begin(folder, "fp32", {name: describe(branch, name, processor) for name, branch in branches.items()})
    items = [Item(reading.key(branch, medium), branch, medium) for branch, medium in wanted]
    work = Extractor(branches, processor, folder, **{"dtype": torch.float32, **options})
    written = list(work.run([items[i : i + 2] for i in range(0, len(items), 2)]))
    return FeatureStore(folder, processor), written


def _video(path, **options):
    return Medium(kind="video", source=path, options=options)


def test_features_are_those_of_the_branch_and_know_their_times(model, processor, media):
    wanted = [("video", _video(media / f"{name}.mp4")) for name in "abc"]
    wanted.append(("audio", Medium(kind="audio", source=media / "a.mp4")))

    store, written = _store(model, processor, media / "store", wanted, batch=2, decoders=2)

    assert len(written) == 2
    for branch, medium in wanted:
        loaded = processor.read(medium.source, medium.kind)
        found = store.load(branch, medium)
        with torch.inference_mode():
            expected = model.branches[branch].features(loaded.values[None])[0]
        torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-5)
        assert found.times_s == loaded.times_s
    assert store.load(*wanted[2]).values.shape[0] == 2  # frames; a clip of another length waits for no batch


def test_silent_and_broken_media_are_told_apart_and_do_not_stop_the_others(model, processor, media):
    silent, broken = Medium(kind="audio", source=media / "b.mp4"), _video(media / "broken.mp4")

    store, written = _store(
        model, processor, media / "store", [("audio", silent), ("video", broken), ("video", _video(media / "a.mp4"))]
    )

    with pytest.raises(NoAudioStream):
        store.load("audio", silent)
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        store.load("video", broken)
    assert [entry.state for shard in written for entry in shard.entries] == ["silent", "unreadable", "stored"]
    assert not store.is_current(store.reading.key("video", broken), broken)  # it is tried again


def test_a_medium_that_changed_is_refused_and_one_that_moved_is_found(model, processor, media):
    medium = _video(media / "a.mp4")
    store, _ = _store(model, processor, media / "store", [("video", medium), ("video", _video(media / "b.mp4"))])
    values = store.load("video", medium).values

    os.utime(media / "a.mp4", (1, 1))  # touched, not changed
    assert torch.equal(store.load("video", medium).values, values)
    (media / "a.mp4").rename(media / "moved.mp4")
    assert torch.equal(store.load("video", _video(media / "moved.mp4")).values, values)
    assert torch.equal(store.load("video", medium).values, values)  # the medium itself need not be there
    clip(media / "b.mp4", 7, sound=False)
    with pytest.raises(DataError, match=r"b\.mp4: it has changed since its features were stored"):
        store.load("video", _video(media / "b.mp4"))


def test_a_medium_inside_a_tar_is_found_by_its_place_and_its_content(model, processor, media):
    data = (media / "a.mp4").read_bytes()
    (media / "two.tar").write_bytes(b"x" * 512 + data + (media / "b.mp4").read_bytes())
    inside = Medium(kind="video", source=FilePart(media / "two.tar", 512, len(data)))
    store, _ = _store(model, processor, media / "store", [("video", inside)])

    assert torch.equal(store.load("video", inside).values, store.load("video", _video(media / "a.mp4")).values)
    (media / "two.tar").write_bytes(b"x" * 512 + data[::-1])
    with pytest.raises(DataError, match=r"two\.tar: it has changed"):
        store.load("video", inside)


def test_another_reading_of_the_same_medium_is_not_in_the_store(model, processor, media):
    store, _ = _store(model, processor, media / "store", [("video", _video(media / "a.mp4"))])

    assert len(store.load("video", _video(media / "a.mp4", num_frames=4, sampling=None)).values) == 4  # as the system
    with pytest.raises(DataError, match="holds no features of it"):
        store.load("video", _video(media / "a.mp4", num_frames=2))
    with pytest.raises(ConfigError, match=r"crop \[0.5, 1.0\] cuts at random"):
        store.load("video", Medium(kind="video", source=media / "a.mp4", crop=(0.5, 1.0)))
    with pytest.raises(ConfigError, match="sampling head_tail draws other frames each time"):
        store.load("video", _video(media / "a.mp4", sampling="head_tail"))


def test_a_store_of_other_weights_or_settings_is_stale(model, processor, media):
    folder = media / "store"
    _store(model, processor, folder, [("video", _video(media / "a.mp4"))])
    stored = FeatureStore(folder, processor).branches
    now = {name: describe(branch, name, processor) for name, branch in model.branches.items()}
    require_equal(folder, stored, now)

    other = tiny_model(seed=1)
    with pytest.raises(ConfigError, match="is stale: weights of branch video was"):
        begin(folder, "fp32", {"video": describe(other.branches["video"], "video", processor)})
    with pytest.raises(ConfigError, match=r"is stale: media of branch video was {'num_frames': 4}, now"):
        require_equal(
            folder, stored, {**now, "video": {**now["video"], "media": {**now["video"]["media"], "num_frames": 8}}}
        )
    with pytest.raises(ConfigError, match="of branch video, of which this stage has none"):
        require_equal(folder, stored, {"audio": now["audio"]})
    with pytest.raises(ConfigError, match="holds features in fp32, not fp16"):
        begin(folder, "fp16", now)


def test_the_fingerprint_is_of_the_frozen_weights_alone(model, processor):
    before = {name: describe(branch, name, processor)["weights"] for name, branch in model.branches.items()}
    changed = tiny_model()
    with torch.no_grad():
        next(changed.branches["video"].connector.qformer.parameters()).add_(1)
        changed.branches["audio"].encoder.vision.positions.add_(1)
    assert before == {name: describe(branch, name, processor)["weights"] for name, branch in changed.branches.items()}
    with torch.no_grad():
        next(changed.branches["video"].connector.frame_qformer.parameters()).add_(1)
        next(changed.branches["audio"].encoder.audio.parameters()).add_(1)
    after = {name: describe(branch, name, processor)["weights"] for name, branch in changed.branches.items()}
    assert all(before[name] != after[name] for name in before)
    half = {"w": torch.ones(3, 4, dtype=torch.float16)}
    assert fingerprint(half) == fingerprint({"w": torch.ones(3, 4)}) != fingerprint({"w": torch.ones(4, 3)})


def test_values_that_do_not_fit_are_an_error(model, processor, media):
    loud = tiny_model()
    with torch.no_grad():
        loud.branches["audio"].encoder.audio.log_logit_scale.fill_(30)
        loud.branches["video"].connector.frame_qformer.query_tokens.mul_(float("nan"))
    with pytest.raises(NumericError, match=r"a\.mp4.*not finite"):
        _store(loud, processor, media / "store", [("video", _video(media / "a.mp4"))])


def test_what_a_crash_left_is_no_shard_and_the_newest_counts(model, processor, media):
    folder, medium = media / "store", _video(media / "a.mp4")
    store, _ = _store(model, processor, folder, [("video", medium)])
    (folder / SHARDS / f"{UNFINISHED}x").write_bytes(b"half")
    key = store.reading.key("video", medium)
    clip(media / "a.mp4", 7)
    work = Extractor(dict(model.branches), processor, folder, dtype=torch.float32)
    list(
        work.run(
            [[Item(key, "video", medium), Item(store.reading.key("video", _video("gone")), "video", _video("gone"))]]
        )
    )

    again = pickle.loads(pickle.dumps(FeatureStore(folder, processor)))  # as a reader process gets it

    assert len(again.index.names) == 2
    again.load("video", medium)
    folder.chmod(0o500)
    try:
        assert ShardIndex(folder).peek(key) == again.index.peek(key)
    finally:
        folder.chmod(0o700)
