"""LoRA and whole models of the port of Video-LLaVA, by the names of transformers before 4.52 and since."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoLlavaForConditionalGeneration

from avllm.checkpoints.convert import convert
from avllm.checkpoints.load import load_model
from avllm.checkpoints.unmerged import convert_adapter
from avllm.errors import CheckpointError
from tests.checkpoints.published import video_llava_hf_layout

peft = pytest.importorskip("peft", reason="adapters need avllm[train]")
IDS = torch.tensor([[1, 5, 6, 7, 300]])
ADAPTER, WHOLE = "adapter_model.safetensors", "model.safetensors"


def _before_4_52(name: str) -> str:
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.video_tower.", "video_tower.vision_model."),
        ("model.image_tower.", "image_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        name = name.replace(f"base_model.model.{new}", f"base_model.model.{old}")
    return name


def _undressed(name: str) -> str:
    """As a state dict of the wrapped model itself has it."""
    name = name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")
    return name.replace("multi_modal_projector.", "multi_modal_projector.modules_to_save.default.")


def _since_4_52(name: str) -> str:
    if name.startswith("language_model."):
        return name.removeprefix("language_model.") if "lm_head" in name else f"model.{name.replace('.model.', '.', 1)}"
    return f"model.{name}"


SPELLINGS = {"as saved": str, "before 4.52": _before_4_52, "undressed": _undressed}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """`whole` and `whole_new` of one model under both names, `adapter`, the logits with it, and `base` of ours."""
    root = tmp_path_factory.mktemp("port")
    source = video_llava_hf_layout(root).sources[0]
    model = VideoLlavaForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    shutil.copytree(source, root / "whole")
    model.save_pretrained(root / "whole")
    shutil.copytree(root / "whole", root / "whole_new")
    weights = load_file(root / "whole" / WHOLE)
    save_file({_since_4_52(name): weight for name, weight in weights.items()}, root / "whole_new" / WHOLE)
    projector = "multi_modal_projector"
    settings = {"target_modules": "all-linear", "modules_to_save": [projector], "exclude_modules": f".*{projector}.*"}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, **settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter += 0.05 * torch.randn_like(parameter)
        save_file({"logits": adapted.eval()(input_ids=IDS).logits}, root / "expected.safetensors")
    adapted.save_pretrained(root / "adapter")
    convert([root / "whole"], root / "base")
    return root


def _respelled(root: Path, tmp_path: Path, change) -> Path:
    folder = shutil.copytree(root / "adapter", tmp_path / "adapter")
    weights = load_file(folder / ADAPTER)
    save_file({change(name): weight for name, weight in weights.items()}, folder / ADAPTER)
    return folder


def test_a_whole_model_is_the_same_by_either_names(root, tmp_path):
    convert([root / "whole_new"], tmp_path / "new")

    old, new = load_file(root / "base" / WHOLE), load_file(tmp_path / "new" / WHOLE)
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


@torch.no_grad()
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_adapter_computes_the_same_by_either_names_merged_and_not(root, tmp_path, spelling):
    adapter = _respelled(root, tmp_path, SPELLINGS[spelling])
    convert_adapter([adapter], tmp_path / "unmerged", base=str(root / "base"))
    convert([adapter, root / "whole"], tmp_path / "merged")
    convert([adapter, root / "whole_new"], tmp_path / "merged_new")

    models = [load_model(tmp_path / name)[0] for name in ("unmerged", "merged", "merged_new")]

    expected = load_file(root / "expected.safetensors")["logits"]
    base = load_model(root / "base")[0](input_ids=IDS).logits
    assert not torch.allclose(base, expected, atol=0.1)
    branch = models[0].config.parsed().branches["video"]
    pixels = torch.randn(branch.media.num_frames, 3, branch.media.size, branch.media.size)
    slots = [models[0].config.slot_ids()["video"]] * branch.num_tokens(tuple(pixels.shape))
    seen = torch.tensor([[1, *slots, 5, 6, 300]])
    first = models[0](input_ids=seen, media={"video": [pixels]}).logits
    for model in models:
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)
        # The towers are adapted and the projector is trained in full, which shows with a clip alone.
        assert torch.allclose(model(input_ids=seen, media={"video": [pixels]}).logits, first, atol=1e-4)
    without = load_model(root / "base")[0](input_ids=seen, media={"video": [pixels]}).logits
    assert not torch.allclose(without, first, atol=0.1)


@pytest.mark.parametrize("part", ["lora_magnitude_vector.weight", "base_layer.weight", "lora_B.bias"])
def test_what_is_no_plain_lora_is_named(root, tmp_path, part):
    adapter = _respelled(root, tmp_path, str)
    weights = load_file(adapter / ADAPTER)
    name = f"base_model.model.model.language_model.layers.0.self_attn.q_proj.{part}"
    save_file({**weights, name: torch.zeros(2)}, adapter / ADAPTER)

    for run in (
        lambda: convert_adapter([adapter], tmp_path / "out", base=str(root / "base")),
        lambda: convert([adapter, root / "whole"], tmp_path / "out"),
    ):
        with pytest.raises(CheckpointError, match=f"q_proj.{part} is no part of a plain LoRA"):
            run()
