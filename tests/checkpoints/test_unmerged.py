"""A published LoRA beside its base model computes what it computes merged into it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import avllm
from avllm.checkpoints import adapters
from avllm.checkpoints.convert import convert
from avllm.checkpoints.inspect import inspect
from avllm.checkpoints.load import load_model, merge_adapter
from avllm.checkpoints.unmerged import convert_adapter
from avllm.cli import main
from avllm.errors import CheckpointError
from tests.checkpoints.published import Layout, base_layout, lora_of, projector_layout

pytest.importorskip("peft", reason="adapters need avllm[train]")
SYSTEMS = {"videollama2": base_layout, "video_llava": projector_layout}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory):
    """System -> its LoRA on disk and the converted model that it was trained on; not to be changed."""
    found: dict[str, tuple[Layout, Path]] = {}

    def write(name: str) -> tuple[Layout, Path]:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            base = SYSTEMS[name](folder)
            convert(base.sources, folder / "base", **base.options)
            found[name] = lora_of(base, folder), folder / "base"
        return found[name]

    return write


@torch.no_grad()
@pytest.mark.parametrize("name", SYSTEMS)
def test_beside_its_base_it_computes_what_it_does_merged(name: str, published, tmp_path: Path):
    layout, base = published(name)
    convert(layout.sources, tmp_path / "whole", **layout.options)
    convert_adapter(layout.sources[:1], tmp_path / "adapter", base=str(base))

    models = [
        load_model(folder)[0]
        for folder in (tmp_path / "whole", tmp_path / "adapter", merge_adapter(tmp_path / "adapter", tmp_path / "m"))
    ]

    video = models[0].config.parsed().branches["video"]
    pixels = torch.randn(video.media.num_frames, 3, 28, 28)
    slot = models[0].config.slot_ids()["video"]
    ids = torch.tensor([[1, *[slot] * video.num_tokens(tuple(pixels.shape)), 5, 6, 300]])
    whole, unmerged, merged = (model(input_ids=ids, media={"video": [pixels]}).logits for model in models)
    before = load_model(base)[0](input_ids=ids, media={"video": [pixels]}).logits
    assert torch.allclose(unmerged, whole, atol=1e-5)
    assert torch.allclose(merged, whole, atol=1e-5)
    assert not torch.allclose(before, whole, atol=1e-2)
    assert any(".lora_A." in name for name in models[1].state_dict())
    assert not any(".lora_" in name for name in models[2].state_dict())


def test_the_commands_write_inspect_and_ask_it(published, tmp_path: Path, capsys):
    layout, base = published("videollama2")
    out = str(tmp_path / "adapter")

    assert main(["convert", str(layout.sources[0]), "--base", str(base), "--out", out, "--dtype", "bf16"]) == 0
    assert "adapter_model.bin: a LoRA adapter; 1 tensors" in capsys.readouterr().out
    assert main(["inspect", out]) == 0
    told = capsys.readouterr().out
    assert "videollama2\n" in told
    assert f"adapter of {base}, unmerged: rank 2, alpha 6" in told
    assert "non_lora_trainables.bin (what was trained in full" in told
    clip = next((Path(avllm.__file__).parent / "nano" / "examples").glob("*.mp4"))
    assert main(["ask", str(clip), "What is this?", "--model", out, "--max-new-tokens", "2"]) == 0
    tensors = {
        **load_file(tmp_path / "adapter" / adapters.WEIGHTS),
        **load_file(tmp_path / "adapter" / adapters.TRAINED),
    }
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_inspect_finds_a_changed_weight_and_another_base(published, tmp_path: Path):
    layout, base = published("videollama2")
    out = tmp_path / "adapter"
    convert_adapter(layout.sources[:1], out, base=str(base))
    state = load_file(out / adapters.WEIGHTS)
    name = sorted(state)[0]
    save_file({**state, name: state[name] + 1}, out / adapters.WEIGHTS)

    assert inspect([out]).problems == [f"{name} in {adapters.WEIGHTS} has other bytes than were written"]

    settings = json.loads((out / adapters.ADAPTER).read_text())
    (out / adapters.ADAPTER).write_text(json.dumps({**settings, "base_model_name_or_path": "nano"}))
    assert any("wrong shape decoder.model.layers.1" in problem for problem in inspect([out]).problems)

    (out / adapters.ADAPTER).write_text(json.dumps({**settings, "base_model_name_or_path": "someone/something"}))
    assert "its base model is not here (someone/something)" in inspect([out]).to_table()


def changed(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    torch.save(change(torch.load(path, weights_only=True)), path)


LORA, BESIDE = "adapter_model.bin", "non_lora_trainables.bin"
FAULTS: dict[str, tuple[str, Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "layer": (LORA, lambda w: {k.replace("layers.1", "layers.7"): v for k, v in w.items()}, r"left over .*layers\.7"),
    "shape": (LORA, lambda w: {k: v[:, :20] if "_A" in k else v for k, v in w.items()}, r"expected \[32, 32\], got \["),
    "name": (
        LORA,
        lambda w: {k.replace("model.layers", "x.layers"): v for k, v in w.items()},
        "no name table .* knows",
    ),
    "half": (LORA, lambda w: {k: v for k, v in w.items() if "_A" in k}, "q_proj has only lora_A"),
    "rank": (LORA, lambda w: {k: torch.cat([v, v], int("_B" in k)) for k, v in w.items()}, "r 2; the weights have r 4"),
    "no linear layer": (
        LORA,
        lambda w: {k.replace("self_attn.q_proj", "input_layernorm"): v for k, v in w.items()},
        "norm",
    ),
    "not finite": (LORA, lambda w: {k: v * torch.inf for k, v in w.items()}, "q_proj.* not finite"),
    "half a projector": (BESIDE, lambda w: dict(list(w.items())[1:]), r"missing model\.mm_projector\."),
    "surplus": (BESIDE, lambda w: {**w, "base_model.model.model.x": torch.ones(1)}, r"left over model\.x"),
    "projector": (BESIDE, lambda w: {k: v[..., :1] for k, v in w.items()}, r"wrong shape model\.mm_projector\."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named_and_nothing_is_written(fault: str, published, tmp_path: Path):
    layout, base = published("videollama2")
    source = shutil.copytree(layout.sources[0], tmp_path / "lora")
    file, change, message = FAULTS[fault]
    changed(source / file, change)

    with pytest.raises(CheckpointError, match=message):
        convert_adapter([source], tmp_path / "out", base=str(base))

    assert list(tmp_path.iterdir()) == [source]


def test_a_weight_that_is_joined_with_others_here_can_only_be_merged(published, tmp_path: Path):
    layout, base = published("video_llava")
    source = shutil.copytree(layout.sources[0], tmp_path / "lora")
    module = "video_tower.video_tower.encoder.layers.0.temporal_attn"
    changed(source / LORA, lambda w: {k.replace("layers.1.self_attn", module): v[:, :24] for k, v in w.items()})

    with pytest.raises(CheckpointError, match=rf"{re.escape(module)}\.q_proj\.weight is adapted.*leave out --base"):
        convert_adapter([source], tmp_path / "out", base=str(base))


def test_another_base_is_refused_in_one_line(published, tmp_path: Path, capsys):
    (layout, base), (other, other_base) = published("videollama2"), published("video_llava")
    lora = str(layout.sources[0])
    convert_adapter([lora], tmp_path / "adapter", base=str(base))
    stc_v35 = _base_with(base, tmp_path / "v35", padding=0)
    for given, told in (
        ([lora, "--base", str(other_base)], "model_type 'videollama2_mistral' is none of video_llava"),
        ([str(other.sources[0]), "--base", str(base)], "model_type 'llava' is none of videollama2"),
        ([lora, "--base", str(stc_v35)], "mm_projector_type 'stc_connector', the base has another one"),
        ([lora, "--base", "nano"], "expected a converted model of"),
        ([lora, "--base", str(tmp_path / "adapter")], "is an adapter; make it a whole model first"),
        ([lora, "--base", str(layout.options["decoder"])], "avllm convert"),
        (
            [*map(str, layout.sources), "--base", str(base)],
            "is CLIP; with --base, expected the files of an adapter alone",
        ),
        ([str(layout.sources[0] / BESIDE), "--base", str(base)], "got 0 adapters and 1 files"),
        ([lora, "--base", str(base), "--decoder", "x"], "--decoder: does not go with --base"),
    ):
        assert main(["convert", *given, "--out", str(tmp_path / "out")]) == 1
        message = capsys.readouterr().err
        assert told in message
        assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def _base_with(base: Path, folder: Path, **connector: int) -> Path:
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    config["system"]["branches"]["video"]["connector"] |= connector
    (folder / "config.json").write_text(json.dumps(config))
    return folder
