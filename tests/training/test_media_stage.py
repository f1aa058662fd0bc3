import pytest
import torch
import yaml
from safetensors.torch import load_file

from avllm.checkpoints.load import load_model
from avllm.data import Context, Medium, Prepare, Record, Turn, WebVid
from avllm.errors import DataError, MediaError
from avllm.training import train
from avllm.training.progress import read_log
from tests.training.media_system import save_media_system, write_layouts

PARTS = ("query_tokens", "frame_embedding", "qformer", "projection")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def layouts(root):
    return write_layouts(root)


@pytest.fixture(scope="module")
def base(root):
    return save_media_system(root / "base")


def _stage(tmp_path, base, branch, data, **changes):
    stage = {
        "init": str(base),
        "output": str(tmp_path / "out"),
        "trainable": [f"branches.{branch}.connector.{part}" for part in PARTS],
        "data": data,
        "batch": 2,
        "schedule": {"steps_per_epoch": 3, "lr": 1e-3},
        "logging": {"every": 1, "tensorboard": False},
        **changes,
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(stage))
    return path


@pytest.mark.parametrize(
    "kinds", [("webvid", "image_captions"), ("llava_instruct", "videochat_instruct", "image_captions")]
)
@pytest.mark.parametrize("branch", ["video", "audio"])
def test_published_layouts_train_a_branch_from_real_files(tmp_path, base, layouts, kinds, branch):
    modality = {"audio": "vision"} if branch == "audio" else {}
    data = [layouts[kind] for kind in kinds]

    out = train(_stage(tmp_path, base, branch, data, modality=modality, mix="sample", max_text_tokens=40))

    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(f"branches.{branch}.connector.") and "frame_qformer" not in name for name in changed)
    assert len(read_log(out / "log.csv")) == 3
    model, _ = load_model(out)
    assert model.branches["audio"].modality == "own"


def test_decoder_processes_of_data_loaders_give_what_trusted_media_give(tmp_path, base, layouts):
    found = {}
    for name, changes in (("isolated", {"workers": 2}), ("trusted", {"trusted_media": True})):
        stage = _stage(tmp_path, base, "video", [layouts["webvid"]], output=str(tmp_path / name), **changes)
        found[name] = (train(stage) / "model.safetensors").read_bytes()

    assert found["isolated"] == found["trusted"]


def test_a_missing_video_is_left_out(tmp_path, base, layouts, root):
    data = {**layouts["webvid"], "annotations": str(tmp_path / "one.csv")}
    (tmp_path / "one.csv").write_text("videoid,page_dir,name\n1,p,A dog.\ngone,p,The sea.\n")

    out = train(_stage(tmp_path, base, "video", [data], max_unreadable=0.5))

    assert read_log(out / "log.csv")[-1]["unreadable"] == 3


@pytest.fixture(scope="module")
def processor(base):
    return load_model(base)[1]


def _video(root, **options):
    return Medium(kind="video", source=root / "videos/p/1.mp4", options=options)


def _record(*turns, form="train", **rest):
    return Record(id="r", turns=turns, form=form, **rest)


def test_labels_are_the_answers_and_slots_equal_media(root, layouts, processor):
    turns = (Turn(role="user", text="What?", media=(_video(root),)), Turn(role="assistant", text="A dog."))

    sample = Prepare(processor)(_record(*turns), 0)

    assert processor.tokenizer.decode(sample.labels[sample.labels != -100]) == " A dog.</s>"
    assert int((sample.input_ids == processor.slot_ids["video"]).sum()) == 3
    assert [tuple(clip.shape) for clip in sample.media["video"]] == [(4, 3, 16, 16)]


def test_head_tail_sees_other_frames_with_another_seed(root, layouts, processor):
    record = _record(
        Turn(role="user", text="", media=(_video(root, sampling="head_tail"),)),
        Turn(role="assistant", text="x"),
        form="caption",
    )
    prepare = Prepare(processor)

    first, again, other = (prepare(record, seed).media["video"][0] for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_stored_features_stand_in_for_media(root, layouts, processor):
    turns = (Turn(role="user", text="What?", media=(_video(root),)), Turn(role="assistant", text="A dog."))
    features = {"video": torch.zeros(4, 2, 16)}

    sample = Prepare(processor)(_record(*turns, features=features), 0)

    assert not sample.media
    assert int((sample.input_ids == processor.slot_ids["video"]).sum()) == 3


def test_long_text_is_cut_at_its_end_and_a_lost_answer_is_told(root, layouts, processor):
    turns = (Turn(role="user", text="What?"), Turn(role="assistant", text="A dog."))
    whole = Prepare(processor)(_record(*turns), 0)

    cut = Prepare(processor, max_text_tokens=len(whole.input_ids) - 2)(_record(*turns), 0)

    assert cut.input_ids.tolist() == whole.input_ids.tolist()[:-2]
    with pytest.raises(DataError, match="r: no token is learned"):
        Prepare(processor, max_text_tokens=5)(_record(*turns), 0)


def test_a_caption_keeps_its_first_tokens(root, layouts, processor):
    turns = (Turn(role="user", text="", media=(_video(root),)), Turn(role="assistant", text="a long caption"))

    sample = Prepare(processor, max_text_tokens=4)(_record(*turns, form="caption"), 0)

    assert int((sample.labels != -100).sum()) == 4


def test_missing_files_are_media_errors(root, layouts, processor):
    source = WebVid.Config(annotations=str(root / "webvid"), videos=str(root / "nowhere")).build(Context())

    with pytest.raises(MediaError, match=r"1\.mp4: cannot be opened"):
        Prepare(processor)(source.record(0, 0), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 99}, r"data\.0: 2 of 2 samples cannot be trained on; the first: .*0\.csv:2: 99 frames"),
        ({"videos": "nowhere"}, r"data\.0: media of 2 of 2 samples are not there"),
    ],
)
def test_what_cannot_be_trained_on_stops_before_the_first_step(tmp_path, base, layouts, changes, message):
    stage = _stage(tmp_path, base, "video", [{**layouts["webvid"], **changes}])

    with pytest.raises(DataError, match=message):
        train(stage)
    assert not (tmp_path / "out" / "log.csv").exists()


def test_held_out_data_are_looked_through_too(tmp_path, base, layouts):
    held_out = {"data": [{**layouts["webvid"], "num_frames": 99}]}
    with pytest.raises(DataError, match=r"held_out\.data\.0: 2 of 2 samples cannot"):
        train(_stage(tmp_path, base, "video", [layouts["webvid"]], held_out=held_out))


def test_an_entry_beyond_the_context_is_named_while_it_runs(root, layouts, processor):
    turns = (Turn(role="user", text="What?"), Turn(role="assistant", text="A dog."))
    num_ids = len(Prepare(processor)(_record(*turns), 0).input_ids)

    Prepare(processor, context=num_ids)(_record(*turns), 0)
    with pytest.raises(DataError, match=f"r: {num_ids} ids with its media, the decoder holds {num_ids - 1}"):
        Prepare(processor, context=num_ids - 1)(_record(*turns), 0)
