import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from avllm.checkpoints.load import load_model
from avllm.errors import CheckpointError, ConfigError
from avllm.nano.assemble import assemble
from avllm.nano.build import STARTS, BuildError, _in_parallel, build, finish
from avllm.nano.data import DATASETS
from avllm.nano.tokenizer import slot_word_ids
from avllm.training import read_stage, train
from avllm.training.feature_engines import extract
from tests.nano.light_work import fail, never_end, succeed


def test_lines_run_side_by_side(tmp_path):
    _in_parallel({name: (succeed, (tmp_path / name,)) for name in ("a", "b")})

    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()


def test_a_line_that_fails_ends_the_others(tmp_path):
    with pytest.raises(BuildError, match=r"fails stopped.*--resume"):
        _in_parallel({"fails": (fail, ()), "waits": (never_end, (tmp_path / "pid",))})

    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


def test_lines_end_with_a_build_that_is_killed(tmp_path):
    script = tmp_path / "build.py"
    script.write_text(
        """
import sys
from pathlib import Path
from avllm.nano.build import _in_parallel
from tests.nano.light_work import never_end

if __name__ == "__main__":
    _in_parallel({"waits": (never_end, (Path(sys.argv[1]),))})
"""
    )
    pid = tmp_path / "pid"
    build_process = subprocess.Popen([sys.executable, script, pid])
    _until(lambda: pid.exists() and pid.read_text())
    build_process.kill()
    build_process.wait()

    _until(lambda: not Path(f"/proc/{pid.read_text()}/cmdline").exists())


def _until(is_so: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_build_is_not_overwritten(tmp_path):
    (tmp_path / "parts").mkdir()

    with pytest.raises(ConfigError, match="--resume"):
        build(tmp_path)


def test_parts_become_a_system(tmp_path):
    table = torch.randn(704, 128)
    save_file({"decoder.model.embed_tokens.weight": table}, tmp_path / "decoder.safetensors")

    assemble([tmp_path / "decoder.safetensors"], tmp_path / "start")
    model, processor = load_model(finish(tmp_path / "start", tmp_path / "nano"))

    assert torch.allclose(model.get_input_embeddings().weight, table, atol=5e-3)
    words = table[list(slot_word_ids("audio").values())]
    assert torch.allclose(model.branches["audio"].connector.projection.bias, words.mean(0), atol=5e-3)
    assert sum(path.stat().st_size for path in (tmp_path / "nano").iterdir()) < 10_000_000
    assert processor.tokenizer.decode(processor.tokenizer("a red drum").input_ids).strip() == "a red drum"


def test_names_a_weight_that_does_not_fit(tmp_path):
    save_file({"decoder.model.embed_tokens.weight": torch.zeros(7, 128)}, tmp_path / "decoder.safetensors")

    with pytest.raises(CheckpointError, match=r"embed_tokens.weight is \[7, 128\], configs/nano.yaml has \[704, 128\]"):
        assemble([tmp_path / "decoder.safetensors"], tmp_path / "start")


@pytest.mark.slow
def test_a_quick_build_answers_far_above_chance_on_unseen_clips(tmp_path, caplog):
    """Learning as a whole: if a change breaks training, this says so."""
    from avllm.nano.score import score

    caplog.set_level(logging.INFO)
    folder = build(tmp_path / "build", quick=True)
    found = score(num_clips=60, seed=11, model=folder).to_dict()["scores"]

    assert (tmp_path / "build" / "video_stage2" / "curve.png").exists()
    shown = {kind: figures["accuracy"] for kind, figures in found.items()}
    # By chance: thing 1/8, colour 1/8, hearing 1/9, caption under 1/400.
    least = {"thing": 0.5, "colour": 0.6, "hearing": 0.5, "caption": 0.15}
    assert all(shown[kind] >= value for kind, value in least.items()), shown


@pytest.mark.parametrize("name", STARTS)
def test_the_stages_start_from_what_a_build_leaves_and_write_elsewhere(name):
    stage, plain = read_stage(f"nano/{name}", datasets=DATASETS)

    assert plain["init"] == yaml.safe_load(STARTS[name].format(out="outputs/nano"))
    assert not Path(stage.output).is_relative_to("outputs/nano")  # where a build has finished this stage already


def test_without_a_build_the_stages_tell_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for name in STARTS:
        with pytest.raises(
            ConfigError, match=r"init\.0: outputs/nano/.*: no such folder; make it with: avllm nano build"
        ):
            train(f"nano/{name}", datasets=DATASETS)


def test_nano_draws_features_so_there_are_none_to_store(tmp_path):
    with pytest.raises(ConfigError, match="nano's own draw features themselves"):
        extract("nano/video_stage1", ["init=nano"], out=tmp_path / "features", datasets=DATASETS)
