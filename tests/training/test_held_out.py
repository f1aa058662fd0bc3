import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from avllm.data.collate import Collate, Sample
from avllm.data.mixture import Mixture
from avllm.data.records import Record
from avllm.errors import ConfigError, DataError, MediaError
from avllm.training import checkpoint, train
from avllm.training.held_out import Standing, Watch
from avllm.training.progress import HELD_OUT, read_log
from avllm.training.stage import HeldOut, read_stage
from tests.training.tiny_system import DATASETS, make_stage

# Answers of these are drawn anew in each look of training and fixed here: training on 20 cannot keep lowering them.
HELD = {"data": [{"kind": "tiny_features", "size": 9}], "every": 2}
STEPS = {"steps_per_epoch": 40, "lr": 5e-2}


def _losses(out):
    return {int(row["step"]): row[HELD_OUT] for row in read_log(out / "log.csv") if HELD_OUT in row}


def test_ends_with_the_weights_of_the_best_step_and_keeps_it_beside_the_newest(tmp_path):
    out = train(make_stage(tmp_path, held_out=HELD, schedule=STEPS), ["checkpoints.keep=1"], datasets=DATASETS)

    losses = _losses(out)
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == list(range(2, 41, 2))
    assert best < 40, "this data should overfit"
    record = json.loads((out / "training.json").read_text())["held_out"]
    assert (record["best_step"], record["stopped_early"], record["unreadable"]) == (best, False, 0)
    kept = checkpoint.stored(out / "checkpoints")
    assert [checkpoint.step_of(path) for path in kept] == [best, 40]
    ended, stored = load_file(out / "trainable.safetensors"), load_file(kept[0] / "trainable.safetensors")
    whole = load_file(out / "model.safetensors")
    assert all(torch.equal(ended[name], stored[name]) and torch.equal(whole[name], stored[name]) for name in stored)


def test_stops_early_and_a_broken_off_end_stays_stopped(tmp_path):
    stage = make_stage(tmp_path, held_out={**HELD, "patience": 3}, schedule=STEPS)
    out = train(stage, datasets=DATASETS)

    losses = _losses(out)
    record = json.loads((out / "training.json").read_text())
    assert record["held_out"]["stopped_early"]
    assert record["steps"] == record["held_out"]["best_step"] + 3 * 2 == max(losses) < 40
    expected = load_file(out / "trainable.safetensors")
    for name in ("training.json", "trainable.safetensors", "model.safetensors"):
        (out / name).unlink()

    train(stage, resume=True, datasets=DATASETS)

    again = load_file(out / "trainable.safetensors")
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert json.loads((out / "training.json").read_text()) == record
    assert _losses(out) == losses


def test_patience_goes_on_where_a_run_was_broken_off(tmp_path):
    stage = make_stage(tmp_path, held_out={**HELD, "patience": 3}, schedule=STEPS, checkpoints={"every": 2, "keep": 9})
    out = train(stage, datasets=DATASETS)
    record = json.loads((out / "training.json").read_text())
    expected = load_file(out / "trainable.safetensors")
    (out / "training.json").unlink()
    for path in checkpoint.stored(out / "checkpoints"):
        if checkpoint.step_of(path) > record["held_out"]["best_step"] + 2:  # one look without gain is behind it
            path.rename(path.with_name(".gone" + path.name))

    train(stage, resume=True, datasets=DATASETS)

    assert json.loads((out / "training.json").read_text()) == record
    again = load_file(out / "trainable.safetensors")
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_a_look_changes_no_weight_of_the_run(tmp_path):
    short = {"steps_per_epoch": 6, "lr": 1e-2}
    stage = make_stage(tmp_path, held_out=HELD, schedule=short)
    looked = train(stage, ["checkpoints.best=false"], datasets=DATASETS)

    alone = train(stage, ["held_out=null", f"output={tmp_path}/alone"], datasets=DATASETS)

    a, b = load_file(looked / "trainable.safetensors"), load_file(alone / "trainable.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("held_out.patient=3", "held_out.patient: unknown key; did you mean 'patience'"),
        ("held_out.patience=0", "held_out: patience: expected 1 or more"),
        ("held_out.data.0.sise=3", r"held_out\.data\.0\.sise: unknown key; did you mean 'size'"),
        ("held_out.data=[]", "held_out: data: expected at least one entry"),
        ("checkpoints.best=2", "checkpoints.best: expected true or false"),
    ],
)
def test_names_the_wrong_key(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        read_stage(make_stage(tmp_path, held_out=HELD), [override], datasets=DATASETS)


def test_standing_counts_looks_without_gain():
    standing = Standing()

    gains = [standing.take(loss, step, min_delta=0.1) for step, loss in enumerate((2.0, 1.95, 1.8, 1.9, 1.79))]

    assert gains == [True, False, True, False, False]
    assert (standing.best, standing.best_step, standing.last, standing.without_gain) == (1.8, 2, 1.79, 2)


class _Lengths:
    """Samples of which number n has n learned tokens."""

    def __len__(self):
        return 5

    def record(self, index, seed):
        if index == 4:
            raise MediaError("clip.mp4: truncated")
        return Record(id=str(index), input_ids=torch.arange(index + 2), labels=torch.tensor([-100, *range(index + 1)]))


class _LossIsLength(torch.nn.Module):
    def forward(self, input_ids, labels, attention_mask):
        lengths = (labels[:, 1:] != -100).sum(1).double()
        self.loss = (lengths * lengths).sum() / lengths.sum()  # each token's loss is its row's length
        return self


def _prepare(record, seed):
    return Sample(id=record.id, input_ids=record.input_ids, labels=record.labels)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_loss_is_the_mean_over_tokens_however_they_are_batched(batch, caplog):
    settings = HeldOut(data=("one",), samples=None)
    watch = Watch(settings, Mixture([_Lengths()], _prepare), Collate(), batch=batch, seed=0)
    model = _LossIsLength().train()

    with caplog.at_level(logging.WARNING):
        loss = watch.loss(model, dict)

    assert loss == pytest.approx(sum(n * n for n in range(1, 5)) / sum(range(1, 5)))
    assert model.training
    assert "held_out: 1 of 5 samples cannot be read" in caplog.text


def test_nothing_readable_is_an_error():
    class Broken(_Lengths):
        def record(self, index, seed):
            return super().record(4, seed)

    watch = Watch(HeldOut(data=("one",)), Mixture([Broken()], _prepare), Collate(), batch=2, seed=0)

    with pytest.raises(DataError, match="none of the samples could be read"):
        watch.loss(_LossIsLength(), dict)
