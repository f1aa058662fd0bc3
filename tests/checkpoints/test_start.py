"""`avllm convert --start`: published encoders and a language model, around connectors that are drawn anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from avllm.checkpoints import videollama2
from avllm.checkpoints.convert import convert
from avllm.checkpoints.inspect import inspect
from avllm.cli import main
from avllm.config import to_plain
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from tests.checkpoints.published import BEATS, LAYOUTS, QWEN2, published

# layout -> files of the system itself, which a first stage makes; and what of ours they hold
STARTS = {
    "video_llama": (("vl", "al"), ("connector.query_tokens", "connector.frame_embedding", "connector.qformer", "proj")),
    "videochat": (("videochat",), ("mhra", "extra_query_tokens", "connector.projection")),
    "video_llava_projector": (("mm_projector",), ("branches.video.connector",)),
    "videollama2_base": (("mm_projector",), ("branches.video.connector",)),
    "videollama2_av": (("mm_projector_a",), ("branches.audio.connector",)),
}
TABLES = {"video_llava_projector": "video_llava", "videollama2_base": "videollama2", "videollama2_av": "videollama2"}


def _prepare(name: str, folder: Path):
    """The layout without the files of the system itself; what to give to convert."""
    layout = LAYOUTS[name](folder)
    config = AvllmConfig.from_pretrained(_whole(layout, folder.parent / "whole"))
    own, parts = STARTS[name]
    for key in own:
        path = layout.files[key]
        path.unlink() if path.is_file() else shutil.rmtree(path)
    if name == "videochat":  # BLIP-2's own, which the checkpoint of VideoChat replaces
        norm = "branches.video.connector.frame_qformer.input_norm"
        file = torch.load(layout.files["blip2"], weights_only=True)
        file["model"] |= {f"ln_vision.{w}": layout.state[f"{norm}.{w}"] for w in ("weight", "bias")}
        torch.save(file, layout.files["blip2"])
    system = folder.parent / "tiny.yaml"
    plain = to_plain(config.parsed())
    if name == "videollama2_av":  # the published BEATs around which the branch of sound is made
        beats = published(layout.state, videollama2.tables(config.parsed())["beats"])
        torch.save({"cfg": BEATS, "model": {**beats, "predictor.bias": torch.ones(3)}}, folder / "BEATs.pt")
        layout.files["audio_tower"].unlink()
        layout.files["audio_tower"] = folder / "BEATs.pt"
        plain["decoder"] = QWEN2  # no folder of a language model beside it tells the sizes
    plain["weights"] = {"table": TABLES.get(name, name)}
    system.write_text(yaml.safe_dump(plain))
    sources = [path for path in layout.files.values() if path.exists() and path != layout.options.get("decoder")]
    options = {"decoder": layout.options["decoder"]} if "decoder" in layout.options else {}
    return layout, sources, {**options, "system": str(system)}, parts


def _whole(layout, out: Path) -> Path:
    convert(layout.sources, out, **layout.options)
    return out


def _weights(folder: Path):
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", STARTS)
def test_published_parts_are_kept_and_the_rest_is_drawn_anew(name: str, tmp_path: Path):
    (tmp_path / "files").mkdir()
    layout, sources, options, parts = _prepare(name, tmp_path / "files")

    with pytest.raises(CheckpointError, match="missing"):
        convert(sources, tmp_path / "none", **options)
    convert(sources, tmp_path / "start", start=True, **options)
    convert(sources, tmp_path / "again", start=True, **options)
    convert(sources, tmp_path / "other", start=True, seed=1, **options)

    found, again, other = (_weights(tmp_path / folder) for folder in ("start", "again", "other"))
    drawn = set(json.loads((tmp_path / "start" / "avllm_manifest.json").read_text())["drawn"]["tensors"])
    assert drawn
    assert all(any(part in key for part in parts) for key in drawn)
    assert found.keys() == layout.state.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor, layout.state[key]) == (key not in drawn), key
        assert torch.equal(tensor, again[key])
        assert torch.isfinite(tensor).all()
    assert any(not torch.equal(found[key], other[key]) for key in drawn)
    assert inspect([tmp_path / "start"]).ok
    AvllmForConditionalGeneration.from_pretrained(tmp_path / "start")


def test_an_encoder_is_never_drawn(tmp_path: Path):
    (tmp_path / "files").mkdir()
    _, sources, options, _ = _prepare("videochat", tmp_path / "files")

    with pytest.raises(CheckpointError, match=r"missing eva_vit_g\.pth"):
        convert([path for path in sources if path.name != "eva_vit_g.pth"], tmp_path / "out", start=True, **options)


def test_a_whole_checkpoint_is_no_start(tmp_path: Path, capsys):
    layout = LAYOUTS["videollama2_mistral"](tmp_path / "files")

    assert main(["convert", *map(str, layout.sources), "--out", str(tmp_path / "out"), "--start"]) == 1
    assert "the sources hold the trained parts already" in capsys.readouterr().err
