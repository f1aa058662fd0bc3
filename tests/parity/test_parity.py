"""Every reference case holds, and a wrong weight makes its case fail by name."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import runner
from tests.parity.__main__ import main

COPIES = Path(__file__).parents[1] / "golden"
GOLDEN = Path(os.environ.get("AVLLM_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
SYSTEM = "video_llama"
PARTS = (
    "video_llama/video_branch",
    "video_llama/audio_branch",
    "videochat/eva_double_lmhra_downsample",
    "videollama2/connector_stc_connector_v35",
    "videollama2/av_beats",
    "video_llava/projector_mlp2x_gelu",
)
NOT_LOADED = re.compile(
    r".*(position_ids|inv_freq|t5_proj|\.text\.|\.depth\.|\.thermal\.|\.imu\.|audio_encoder|\.mask).*|blocks\.[1-9].*"
)


def cases(root: Path) -> list[Path]:
    return runner.cases_below(root) if root.is_dir() else []


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def files() -> list[str]:
    return [f"{part}/{file.name}" for part in PARTS for file in sorted((COPIES / part).glob("*weights*"))]


@pytest.fixture
def copy(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A weight file in a private copy of its case."""
    system, part, file = request.param.split("/")
    shutil.copytree(COPIES / system / part, tmp_path / system / part)
    return tmp_path / system / part / file


@pytest.mark.parametrize("path", cases(COPIES), ids=name_of)
def test_the_small_case_holds(path: Path):
    assert [row for row in runner.run_case(path) if not row.ok] == []


@pytest.mark.parametrize("path", cases(GOLDEN), ids=name_of)
def test_the_case_holds(path: Path):
    assert [row for row in runner.run_case(path) if not row.ok] == []


@pytest.mark.parametrize("copy", files(), indirect=True)
@pytest.mark.parametrize("fault", ["renamed", "missing", "reshaped", "surplus"])
def test_a_wrong_weight_fails_and_is_named(copy: Path, fault: str):
    original = load_file(copy)
    for key in loaded_keys(original)[:: max(1, len(loaded_keys(original)) // 3)]:
        weights = dict(original)
        named = break_weight(weights, key, fault)
        save_file(weights, copy)

        rows = runner.run_case(copy.parent)

        assert not all(row.ok for row in rows)
        assert any(named in row.note for row in rows if not row.ok), (named, rows)


@pytest.mark.parametrize("copy", files(), indirect=True)
def test_a_wrong_value_fails(copy: Path):
    weights = load_file(copy)
    keys = [name for name in loaded_keys(weights) if ".audio." not in name]
    key = next((name for name in keys if re.search(r"norm|LayerNorm|\.bn\.", name)), keys[0])
    weights[key] = weights[key] * 1.01
    save_file(weights, copy)

    rows = runner.run_case(copy.parent)

    assert any(not row.ok and row.max_abs_error for row in rows)


def test_a_missing_key_of_a_manifest_is_named(tmp_path: Path):
    source = COPIES / SYSTEM / "manifests" / "VL_LLaMA_2_7B_Finetuned.pth.json"
    data = json.loads(source.read_text())
    del data["keys"]["video_query_tokens"]
    data["keys"]["llama_proj.bias"] = [[17], "float32"]
    (tmp_path / source.name).write_text(json.dumps(data))

    notes = " ".join(row.note for row in runner.run_case(tmp_path / source.name) if not row.ok)

    assert "missing video_query_tokens" in notes
    assert "llama_proj.bias: expected [4096], got [17]" in notes


def test_a_tensor_that_is_not_recorded_or_not_computed_fails(tmp_path: Path):
    case = tmp_path / "video_branch_other"
    shutil.copytree(COPIES / SYSTEM / "video_branch", case)
    outputs = load_file(case / "outputs.safetensors")
    save_file({**outputs, "layer_99.output": torch.zeros(1)}, case / "outputs.safetensors")

    bad = [row for row in runner.run_case(case) if not row.ok]

    assert [row.name for row in bad] == ["layer_99.output"]


def test_a_case_of_another_name_is_recognised_by_its_files(tmp_path: Path):
    for part in PARTS[:2]:
        shutil.copytree(COPIES / part, tmp_path / f"x{part[-14:-11]}")

    results = runner.run(tmp_path)

    assert len(results) == 2
    assert all(result.ok for result in results)


def test_an_unknown_case_is_an_error_row(tmp_path: Path):
    (tmp_path / "zzz.json").write_text("{}")

    (row,) = runner.run_case(tmp_path)

    assert not row.ok
    assert "unknown form of case" in row.note


def test_exit_status_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    case = COPIES / SYSTEM / "video_branch"
    assert main([str(case), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"case", "name", "max_abs_error", "tolerance", "ok", "note"} == set(rows[0])
    assert all(row["ok"] for row in rows)

    assert main([str(tmp_path / "nothing")]) == 1
    assert "does not exist" in capsys.readouterr().out


def loaded_keys(weights: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in sorted(weights) if not NOT_LOADED.fullmatch(name)]


def break_weight(weights: dict[str, torch.Tensor], key: str, fault: str) -> str:
    """Breaks the weights in place; returns the name that the report must tell."""
    tensor = weights[key]
    if fault == "surplus":
        weights[key + "_more"] = tensor.clone()
        return key + "_more"
    if fault == "reshaped":
        weights[key] = torch.cat([tensor, tensor]) if tensor.ndim else tensor[None]
        return key
    del weights[key]
    if fault == "renamed":
        weights["other." + key] = tensor
        return "other." + key
    return key


def test_a_folder_of_systems_runs_the_cases_of_each():
    names = [path.name for path in runner.cases_below(COPIES)]

    assert {"video_branch", "prompts", "eva_double_lmhra_downsample", "av_beats", "projector_mlp2x_gelu"} <= set(names)
