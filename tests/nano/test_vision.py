import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avllm.connectors.qformer import FrameQFormer
from avllm.encoders.eva_clip import EvaClip
from avllm.errors import NumericError
from avllm.model.configuration import System
from avllm.nano.audio_space import imagebind_config
from avllm.nano.audio_space_pool import MEAN as AUDIO_MEAN
from avllm.nano.audio_space_pool import NUM_FRAMES, NUM_MEL_BINS, SEGMENT_S
from avllm.nano.audio_space_pool import STD as AUDIO_STD
from avllm.nano.fitting import fit
from avllm.nano.vision import (
    ENCODER,
    FRAME_QFORMER,
    FrameWriter,
    encoder_config,
    frame_qformer_config,
    train_vision,
)
from avllm.nano.vision_frames import MEAN, NO_NAME, NOTHING, STD, draw_frames, frame_truth
from avllm.nano.world import COLOURS, HELD_OUT, THINGS, Scene, Thing

ENCODER_CONFIG = EvaClip.Config(image_size=24, patch_size=8, width=16, depth=1, num_heads=2, mlp_ratio=2.0)
QFORMER_CONFIG = FrameQFormer.Config(
    num_queries=4, width=16, depth=1, num_heads=2, mlp_width=32, cross_every=1, dropout=0.0
)


def train(out_dir, **options):
    return train_vision(out_dir, batch=16, encoder=ENCODER_CONFIG, frame_qformer=QFORMER_CONFIG, **options)


def test_truth_lists_things_from_left_to_right_while_they_are_seen():
    scene = Scene(
        things=(
            Thing(name="drum", colour="red", rgb=COLOURS["red"], x=0.75),
            Thing(name="bell", colour=None, rgb=(9, 200, 40), x=0.25, appears_s=2.0),
        ),
        duration_s=4.0,
    )

    early, late = frame_truth(scene, 1.0), frame_truth(scene, 3.0)

    assert early[0].tolist() == [THINGS.index("drum"), NOTHING]
    assert late[0].tolist() == [THINGS.index("bell"), THINGS.index("drum")]
    assert late[1].tolist() == [NO_NAME, list(COLOURS).index("red")]
    assert late[2][:, 0].tolist() == pytest.approx([-0.5, 0.5])


def test_training_frames_never_call_a_held_out_pair_and_never_count_it_as_wrong():
    batch = draw_frames(np.random.default_rng(0), 400, size=16)

    for thing, colour in HELD_OUT:
        index = THINGS.index(thing)
        is_colour = batch.colour == list(COLOURS).index(colour)
        assert is_colour.any()
        assert not (is_colour & (batch.thing == index)).any()
        assert batch.unseen[is_colour][:, index].all()


def test_the_right_answer_is_never_masked():
    batch = draw_frames(np.random.default_rng(1), 200, size=16)
    assert not batch.unseen.gather(2, batch.thing[..., None]).any()


def test_patches_under_the_thing_get_its_name():
    batch = draw_frames(np.random.default_rng(2), 8, size=24, two=0.0, empty=0.0, damage=False)
    model = FrameWriter(ENCODER_CONFIG, QFORMER_CONFIG)
    with torch.no_grad():
        model.patch.weight.zero_()
        model.patch.bias.zero_()
    tokens = torch.zeros(8, 9, 16)

    uniform = model.patch_losses(tokens, batch, batch.thing < NOTHING)["patch_thing"]
    with torch.no_grad():
        model.patch.bias[NOTHING] = 5.0
    all_empty = model.patch_losses(tokens, batch, batch.thing < NOTHING)["patch_thing"]

    assert uniform.item() == pytest.approx(2 * np.log(NOTHING + 1), rel=0.05)
    assert all_empty > uniform  # so some patches are of things


def test_a_few_steps_lower_the_loss_and_write_the_weights(tmp_path):
    rows = []
    metrics = train(tmp_path, steps=60, lr=3e-3, progress=lambda done, total, row: rows.append(row))

    weights = load_file(tmp_path / "vision.safetensors")
    first, last = (sum(v for k, v in rows[i].items() if k not in ("step", "seconds")) for i in (0, -1))
    assert last < first - 0.5
    assert {"thing_one", "held_out_thing_one", "x_r2", "present"} <= set(metrics)
    for prefix, part in ((ENCODER, ENCODER_CONFIG.build()), (FRAME_QFORMER, QFORMER_CONFIG.build(context_width=16))):
        own = {k.removeprefix(f"{prefix}."): v for k, v in weights.items() if k.startswith(prefix)}
        part.load_state_dict(own)
    assert {p.suffix for p in tmp_path.iterdir()} == {".csv", ".png", ".json", ".safetensors", ".checkpoint"}


def test_a_resumed_run_gives_the_same_weights(tmp_path):
    def stop(done, total, row):
        if done == 4:
            raise KeyboardInterrupt

    model = [torch.nn.Linear(3, 1) for _ in range(2)]
    model[1].load_state_dict(model[0].state_dict())

    def losses_of(module):
        return lambda step: {
            "loss": module(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().mean()
        }

    options = {"steps": 6, "lr": 0.1, "checkpoint_every": 3, "log_every": 1}
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    fit("x", model[0], losses_of(model[0]), out_dir=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fit("x", model[1], losses_of(model[1]), out_dir=tmp_path / "broken", progress=stop, **options)
    fit("x", model[1], losses_of(model[1]), out_dir=tmp_path / "broken", **options)

    assert torch.equal(model[0].weight, model[1].weight)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    module = torch.nn.Linear(1, 1)
    with pytest.raises(NumericError, match="loss is nan at step 0"):
        fit("x", module, lambda step: {"loss": module.weight.sum() * torch.nan}, out_dir=tmp_path, steps=1, lr=0.1)


def test_sizes_are_those_of_the_system():
    branches = System.from_yaml("nano").branches
    assert branches["video"].encoder == encoder_config()
    assert branches["video"].connector.frame_qformer == frame_qformer_config()
    assert branches["audio"].encoder == imagebind_config()
    audio, video = branches["audio"].media, branches["video"].media
    assert (audio.num_mel_bins, audio.num_frames, audio.segment_seconds) == (NUM_MEL_BINS, NUM_FRAMES, SEGMENT_S)
    assert (audio.mean, audio.std, video.mean, video.std) == (AUDIO_MEAN, AUDIO_STD, MEAN, STD)
