import json
import logging
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from avllm.data import Order
from avllm.errors import ConfigError, DataError, InUse, MediaError, NumericError
from avllm.model.modeling import AvllmForConditionalGeneration
from avllm.training import train
from avllm.training.progress import read_log
from tests.training.tiny_system import DATASETS, SLOT, TinyFeatures, make_stage, save_tiny_system, write_stage


def test_trains_what_is_named_and_leaves_every_other_bit(tmp_path):
    out = train(make_stage(tmp_path), datasets=DATASETS)

    before, after = load_file(tmp_path / "base" / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = set(json.loads((out / "training.json").read_text())["trained"])
    assert changed <= trained
    # A key's bias moves every score of a query alike: its gradient is 0 but for rounding.
    assert all(name in changed for name in trained if not name.endswith("key.bias"))


def test_leaves_log_curve_stage_and_a_folder_that_opens(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "avllm.training.progress"):
        out = train(make_stage(tmp_path), ["schedule.steps_per_epoch=5", "checkpoints.every=2"], datasets=DATASETS)

    line = r"out: step 2 of 5, loss \d\.\d+, [\d.]+ samples/s, \d\d:\d\d left"
    assert any(re.fullmatch(line, record.getMessage()) for record in caplog.records)
    rows = read_log(out / "log.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["lr"] for row in rows[:3]] == pytest.approx(
        [1e-4, 1e-4 + (1e-2 - 1e-4) / 3, 1e-4 + 2 * (1e-2 - 1e-4) / 3]
    )
    assert (out / "curve.png").stat().st_size > 1000
    record = json.loads((out / "training.json").read_text())
    assert (record["steps"], record["base"], record["samples"]) == (5, [str(tmp_path / "base")], 20)
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["step-00000004", "step-00000005"]
    AvllmForConditionalGeneration.from_pretrained(out)


def test_learns(tmp_path):
    stage = make_stage(
        tmp_path,
        schedule={"steps_per_epoch": 60, "lr": 3e-2},
        trainable=["branches.video.connector", "decoder"],
        batch=8,
    )

    out = train(stage, datasets=DATASETS)

    losses = [row["loss"] for row in read_log(out / "log.csv")]
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


@pytest.mark.gpu
def test_learns_on_a_gpu_in_bf16_and_goes_on_from_a_checkpoint(tmp_path):
    parts = ["branches.video.connector", "decoder"]
    stage = make_stage(tmp_path, schedule={"steps_per_epoch": 60, "lr": 3e-2}, trainable=parts, batch=8)
    few = ["precision=bf16", "checkpoints.every=20"]

    torch.cuda.reset_peak_memory_stats()
    out = train(stage, few, datasets=DATASETS)

    losses = [row["loss"] for row in read_log(out / "log.csv")]
    assert torch.cuda.max_memory_allocated() > 0
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]
    assert {tensor.dtype for tensor in load_file(out / "trainable.safetensors").values()} == {torch.float32}
    assert train(stage, few, resume=True, datasets=DATASETS) == out


def _cut_in_parts(tmp_path, *overrides):
    """Weights and losses of the same 8 samples a step, as 8 x 1, 2 x 4 and 1 x 8."""
    data = [{"kind": "tiny_features", "uneven": True}]
    stage = make_stage(tmp_path, trainable=["branches.video.connector.projection"], data=data)  # dropout would differ
    runs = []
    for batch, parts in ((8, 1), (2, 4), (1, 8)):
        few = ["schedule.steps_per_epoch=4", f"batch={batch}", f"accumulation={parts}", f"output={tmp_path}/{batch}"]
        out = train(stage, [*few, *overrides], datasets=DATASETS)
        runs.append((load_file(out / "trainable.safetensors"), [row["loss"] for row in read_log(out / "log.csv")]))
    return runs


def test_accumulation_gives_the_step_of_the_whole_batch(tmp_path):
    (whole, losses), *cut = _cut_in_parts(tmp_path)

    for weights, others in cut:
        assert others == pytest.approx(losses, abs=1e-5)
        assert all(torch.allclose(whole[name], weights[name], atol=1e-6) for name in whole)


def test_the_published_mean_weighs_short_answers_more(tmp_path):
    (whole, _), _, (single, _) = _cut_in_parts(tmp_path, "accumulation_mean=micro_batch")

    assert not all(torch.allclose(whole[name], single[name], atol=1e-4) for name in whole)


def test_each_mean_is_what_it_says(tmp_path):
    # At the first step of both the model is the same: the loss is known from single samples.
    data = [{"kind": "tiny_features", "size": 4, "uneven": True}]
    stage = make_stage(tmp_path, data=data, trainable=["branches.video.connector.projection"])
    one = ["schedule.steps_per_epoch=1", "batch=1", "schedule.warmup_steps=0", "schedule.warmup_start_lr=0"]

    def first_loss(name, *more):
        out = train(stage, [*one, *more, f"output={tmp_path}/{name}"], datasets=DATASETS)
        return read_log(out / "log.csv")[0]["loss"]

    tokens, means = (
        first_loss("a", "accumulation=4"),
        first_loss("b", "accumulation=4", "accumulation_mean=micro_batch"),
    )

    order = Order([4], [1.0], num_batches=4, batch=1, seed=42)
    source = TinyFeatures(TinyFeatures.Config(size=4, uneven=True))
    model = AvllmForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    losses, counts = [], []
    for (draw,) in order:
        record = source.record(draw.index, draw.seed)
        with torch.no_grad():
            out = model(
                record.input_ids[None], labels=record.labels[None], features={"video": [record.features["video"]]}
            )
        losses.append(float(out.loss))
        counts.append(int((record.labels != -100).sum()))
    assert sorted(counts) == [2, 3, 6, 11]
    assert means == pytest.approx(sum(losses) / 4, abs=1e-4)
    assert tokens == pytest.approx(sum(map(lambda a, n: a * n, losses, counts)) / sum(counts), abs=1e-4)


def test_stops_at_a_loss_that_is_no_number_and_names_the_samples(tmp_path):
    stage = make_stage(tmp_path, data=[{"kind": "tiny_features", "broken": 3}])

    with pytest.raises(NumericError, match=r"the loss is nan; samples: .*tiny\[3\]"):
        train(stage, datasets=DATASETS)

    assert not (tmp_path / "out" / "training.json").exists()


def test_a_used_output_folder_needs_resume(tmp_path):
    stage = make_stage(tmp_path, schedule={"steps_per_epoch": 2, "lr": 1e-2})
    out = train(stage, datasets=DATASETS)

    with pytest.raises(ConfigError, match="holds a run already; go on with --resume"):
        train(stage, datasets=DATASETS)
    assert train(stage, resume=True, datasets=DATASETS) == out


HOLD = """
import sys, time
from pathlib import Path
from avllm.durable import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_do_not_share_an_output_folder(tmp_path):
    stage = make_stage(tmp_path, schedule={"steps_per_epoch": 2, "lr": 1e-2})
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InUse, match=f"out: process {other.pid} on .* writes it right now"):
            train(stage, resume=True, datasets=DATASETS)
        other.kill()

    # What was killed holds nothing, and a run leaves no mark.
    assert not (train(stage, datasets=DATASETS) / ".in_use").exists()


def test_a_model_that_no_stage_trained_is_not_written_over(tmp_path):
    stage = make_stage(tmp_path)

    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"base holds a model that no stage trained \(config.json\)"):
            train(stage, [f"output={tmp_path}/base"], resume=resume, datasets=DATASETS)


def test_a_refused_stage_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"init\.0: .*nowhere: no such folder"):
        train(make_stage(tmp_path), [f"init={tmp_path}/nowhere"], datasets=DATASETS)

    assert not (tmp_path / "out").exists()


def test_resume_refuses_a_changed_stage_and_names_the_key(tmp_path):
    stage = make_stage(tmp_path, schedule={"steps_per_epoch": 2, "lr": 1e-2})
    train(stage, datasets=DATASETS)
    (tmp_path / "out" / "training.json").unlink()

    with pytest.raises(ConfigError, match=r"schedule\.lr: the run in .* was started with 0\.01, now it is 0\.02"):
        train(stage, ["schedule.lr=0.02"], resume=True, datasets=DATASETS)
    train(stage, ["logging.every=2"], resume=True, datasets=DATASETS)


def test_trained_parts_of_a_stage_go_over_another_base(tmp_path):
    first = train(make_stage(tmp_path, schedule={"steps_per_epoch": 3, "lr": 1e-2}), datasets=DATASETS)
    other = save_tiny_system(tmp_path / "other", seed=1)
    frozen_now = ["decoder.model.norm"]
    stage = write_stage(
        tmp_path / "second.yaml", [str(other), str(first)], tmp_path / "second", trainable=frozen_now,
        schedule={"steps_per_epoch": 1, "lr": 1e-3},
    )  # fmt: skip

    second = train(stage, datasets=DATASETS)

    trained, merged = load_file(first / "trainable.safetensors"), load_file(second / "model.safetensors")
    assert all(torch.equal(trained[name], merged[name]) for name in trained)
    name = "branches.video.encoder.class_token"
    assert torch.equal(merged[name], load_file(other / "model.safetensors")[name])


def test_fp16_needs_cuda(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(ConfigError, match="fp16 needs CUDA"):
        train(make_stage(tmp_path, precision="fp16"), datasets=DATASETS)


def test_bf16_keeps_trained_weights_in_fp32(tmp_path):
    stage = make_stage(tmp_path, precision="bf16", schedule={"steps_per_epoch": 2, "lr": 1e-2})

    out = train(stage, datasets=DATASETS)

    assert {t.dtype for t in load_file(out / "trainable.safetensors").values()} == {torch.float32}


class _Unreadable:
    """Fails like a missing video for some of its records."""

    def __init__(self, bad):
        self.bad = bad

    def __call__(self, index):
        if index in self.bad:
            raise MediaError("clip.mp4: cannot be opened")


def _with_bad(monkeypatch, bad):
    from tests.training.tiny_system import TinyFeatures

    fail, original = _Unreadable(bad), TinyFeatures.record

    def record(self, index, seed):
        fail(index)
        return original(self, index, seed)

    monkeypatch.setattr(TinyFeatures, "record", record)


def test_unreadable_samples_are_left_out_and_listed(tmp_path, monkeypatch, caplog):
    _with_bad(monkeypatch, {2})
    stage = make_stage(tmp_path, max_unreadable=0.1, schedule={"steps_per_epoch": 5, "lr": 1e-2})

    with caplog.at_level(logging.WARNING):
        out = train(stage, datasets=DATASETS)

    record = json.loads((out / "training.json").read_text())
    assert record["unreadable"] == [{"id": "dataset 0, record 2", "reason": "clip.mp4: cannot be opened"}]
    assert record["samples"] == 20
    assert read_log(out / "log.csv")[-1]["unreadable"] == 1
    assert "left out dataset 0, record 2" in caplog.text


def test_a_batch_without_any_readable_sample_changes_nothing(tmp_path, monkeypatch):
    _with_bad(monkeypatch, set(range(20)))
    stage = make_stage(tmp_path, max_unreadable=1.0, schedule={"steps_per_epoch": 2, "lr": 1e-2})

    out = train(stage, datasets=DATASETS)

    before, after = load_file(tmp_path / "base" / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_too_many_unreadable_samples_stop_the_run(tmp_path, monkeypatch):
    _with_bad(monkeypatch, set(range(20)))

    with pytest.raises(DataError, match=r"samples could not be read, max_unreadable allows 1\.0%"):
        train(make_stage(tmp_path), datasets=DATASETS)


def test_slots_of_the_tiny_system_are_beyond_its_vocabulary(tmp_path):
    model = AvllmForConditionalGeneration.from_pretrained(save_tiny_system(tmp_path / "base"))

    assert model.config.slot_ids() == {"video": SLOT}


def test_recomputed_activations_give_the_same_weights(tmp_path):
    stage = make_stage(tmp_path, schedule={"steps_per_epoch": 3, "lr": 1e-2})

    stored = train(stage, [f"output={tmp_path}/a"], datasets=DATASETS)
    again = train(stage, [f"output={tmp_path}/b", "gradient_checkpointing=true"], datasets=DATASETS)

    a, b = (load_file(folder / "trainable.safetensors") for folder in (stored, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_frozen_decoder_computes_its_layers_again(tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    calls = []
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: calls.append(self.training) or forward(self, x))

    train(
        make_stage(tmp_path, schedule={"steps_per_epoch": 1, "lr": 1e-2}),
        ["gradient_checkpointing=true"],
        datasets=DATASETS,
    )

    assert calls == [False] * 4  # two layers, each in the forward and in the backward pass, in eval mode
