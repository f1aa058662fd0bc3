import json
import os
from pathlib import Path

import pytest

from avllm.training.schedule import Schedule

GOLDEN = Path(os.environ.get("AVLLM_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
STORED = Path(__file__).parents[1] / "golden"
CASES = [folder / "video_llama" / "prompts" / "schedule.json" for folder in (GOLDEN, STORED)]


@pytest.mark.parametrize("path", CASES, ids=["shared", "stored"])
def test_equals_the_published_scheduler(path):
    if not path.exists():
        pytest.skip("no reference cases here")
    for case in json.loads(path.read_text())["schedules"]:
        schedule = Schedule(
            epochs=case["max_epoch"],
            steps_per_epoch=case["iters_per_epoch"],
            warmup_steps=case["warmup_steps"],
            lr=case["init_lr"],
            min_lr=case["min_lr"],
            warmup_start_lr=case["warmup_start_lr"],
        )
        for epoch, iteration, lr in case["epoch_iter_lr"]:
            assert schedule.at(epoch * case["iters_per_epoch"] + iteration) == pytest.approx(lr, abs=1e-12)


def test_warms_up_from_the_start_rate_when_the_warmup_spans_epochs():
    schedule = Schedule(epochs=2, steps_per_epoch=10, warmup_steps=15, lr=1.0, warmup_start_lr=0.0)

    # The iteration within the epoch counts: the second epoch begins at the start rate again, as published.
    assert schedule.at(10) == 0.0
    assert schedule.at(9) == pytest.approx(0.6)


def test_equals_the_published_scheduler_of_videochat():
    path = GOLDEN / "videochat" / "pt_train_steps" / "schedule.json"
    if not path.exists():
        pytest.skip("no reference cases here")
    for case in json.loads(path.read_text()).values():
        schedule = Schedule(
            cosine="after_warmup",
            epochs=case["epochs"],
            steps_per_epoch=case["steps_per_epoch"],
            warmup_steps=int(case["warmup_epochs"] * case["steps_per_epoch"]),
            lr=case["lr"],
            min_lr=case["min_lr_multi"] * case["lr"],
        )
        for step, lr in case["lr_at"]:
            assert schedule.at(step) == pytest.approx(lr, rel=1e-9), step


def test_the_floor_cuts_off_both_ends_of_a_cosine_after_the_warmup():
    schedule = Schedule(cosine="after_warmup", steps_per_epoch=20, warmup_steps=10, lr=1.0, min_lr=0.25)

    assert [schedule.at(step) for step in (0, 2, 3, 10, 15, 20, 30)] == pytest.approx(
        [0.25, 0.25, 0.3, 1, 0.5, 0.25, 0.25]
    )


def test_a_start_rate_has_no_meaning_before_a_cosine_after_the_warmup():
    with pytest.raises(ValueError, match="warmup_start_lr"):
        Schedule(cosine="after_warmup", steps_per_epoch=10, lr=1.0, warmup_start_lr=0.1)


@pytest.mark.parametrize("fault", [{"steps_per_epoch": 0}, {"lr": 0.0}, {"min_lr": 2.0}, {"warmup_steps": -1}])
def test_refuses_values_without_meaning(fault):
    with pytest.raises(ValueError, match=next(iter(fault))):
        Schedule(**{"steps_per_epoch": 10, "lr": 1.0, **fault})
