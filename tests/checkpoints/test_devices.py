"""A model whose parts lie in several places answers as it does in one."""

import pytest
import torch

from avllm.checkpoints.load import find_model, load_model
from avllm.model import AvllmForConditionalGeneration

pytest.importorskip("accelerate", reason="device maps need avllm[train]")
# Parts of one chain on both sides of every border; "disk" stands for the second device.
MAPS = {
    "decoder elsewhere": {"branches": "cpu", "decoder": "disk"},
    "branches elsewhere": {"branches": "disk", "decoder": "cpu"},
    "layers dealt out": {
        "branches.video": "cpu",
        "branches.audio": "disk",
        "decoder.model.embed_tokens": "cpu",
        "decoder.model.rotary_emb": "cpu",
        "decoder.model.layers.0": "cpu",
        "decoder.model.layers.1": "disk",
        "decoder.model.layers.2": "cpu",
        "decoder.model.layers.3": "disk",
        "decoder.model.norm": "cpu",
        "decoder.lm_head": "cpu",
    },
}


def answer(model, processor):
    slots = [i for name in ("video", "audio") for i in [processor.slot_ids[name]] * (12 if name == "video" else 8)]
    torch.manual_seed(0)
    media = {"video": torch.randn(1, 8, 3, 48, 48), "audio": torch.randn(1, 10, 1, 64, 48)}
    return model.generate(torch.tensor([[1, *slots, 5, 6, 7]]), media=media, max_new_tokens=6, do_sample=False)


@pytest.mark.parametrize("name", MAPS)
def test_a_model_in_pieces_answers_as_the_whole_one(name, tmp_path):
    whole, processor = load_model("nano")
    split = AvllmForConditionalGeneration.from_pretrained(
        find_model("nano"), dtype=torch.float32, device_map=MAPS[name], offload_folder=str(tmp_path)
    )
    assert any(parameter.is_meta for parameter in split.parameters())  # not all of it is in memory
    assert torch.equal(answer(split.eval(), processor), answer(whole, processor))


def test_auto_places_a_model_where_there_is_room():
    whole, processor = load_model("nano")
    placed, _ = load_model("nano", device_map="auto", dtype="fp32")
    assert torch.equal(answer(placed, processor), answer(whole, processor))


@pytest.mark.gpu
def test_on_a_gpu_in_bf16_and_over_two_devices():
    whole, processor = load_model("nano", device="cuda", dtype="fp32")
    split, _ = load_model("nano", device_map={"branches": "cpu", "decoder": 0}, dtype="fp32")
    inputs = answer(load_model("nano")[0], processor)
    assert torch.equal(answer(split, processor).cpu(), inputs)
    assert whole.device.type == "cuda"
