import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avllm.encoders.eva_clip import EvaClip
from avllm.encoders.imagebind import AudioConfig, ImageBind, VisionConfig
from avllm.media import log_mel
from avllm.nano.audio_space import ENCODER, SharedSpace, named, train_audio_space
from avllm.nano.audio_space_pool import (
    MEAN,
    NUM_FRAMES,
    SAMPLE_RATE,
    STD,
    draw_segments,
    draw_tracks,
    right_answers,
    track_mel,
)
from avllm.nano.vision_frames import NOTHING
from avllm.nano.world import THINGS, Scene, Sound

CONFIG = ImageBind.Config(
    width=16,
    vision=VisionConfig(image_size=24, patch_size=8, clip_frames=2, width=16, depth=1, num_heads=2),
    audio=AudioConfig(
        num_mel_bins=64, num_frames=48, kernel_size=16, stride=16, width=16, depth=1, num_heads=2, logit_scale=1.0
    ),
)


@pytest.mark.parametrize(
    ("start_s", "expected"),
    [
        (0.0, {"nothing"}),
        (0.46, {"nothing"}),
        (0.48, {"nothing", "bell"}),
        (0.6, {"nothing", "bell"}),
        (0.69, {"bell"}),
        (1.3, {"bell"}),
        (1.85, {"nothing", "bell", "drum"}),
        (2.0, {"drum"}),
    ],
)
def test_a_segment_is_of_the_sound_that_fills_a_third_of_it(start_s, expected):
    scene = Scene(sounds=(Sound(name="bell", start_s=1.0, seconds=1.0), Sound(name="drum", start_s=2.3, seconds=1.0)))
    assert {(*THINGS, "nothing")[answer] for answer in right_answers(scene, start_s)} == expected


def test_every_right_answer_of_an_edge_is_free():
    right = torch.tensor([[True, False, True]])
    assert named(torch.tensor([[1.0, -1.0, 1.0]]), right).item() == pytest.approx(0.0, abs=1e-4)
    assert named(torch.tensor([[-1.0, 1.0, -1.0]]), right).item() > 1.0


def test_frames_in_a_row_are_the_segment_cut_there():
    wave = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)

    whole = track_mel(wave)[20 : 20 + NUM_FRAMES]
    alone = (log_mel(wave[3200 : 3200 + 8000], SAMPLE_RATE, 64) - MEAN) / STD

    assert alone.shape == (NUM_FRAMES, 64)
    np.testing.assert_allclose(whole.numpy(), alone, atol=1e-4)


def test_segments_are_as_the_encoder_takes_them():
    tracks = draw_tracks("test", 0, 3)
    segments, answers = draw_segments(np.random.default_rng(0), tracks, 20)
    assert segments.shape == (20, 1, 64, NUM_FRAMES)
    assert answers.shape == (20, NOTHING + 1)
    assert answers.any(1).all()


def test_vision_starts_as_the_encoder_it_was_given():
    encoder = EvaClip.Config(image_size=24, patch_size=8, width=16, depth=1, num_heads=2, mlp_ratio=4.0).build()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model = SharedSpace(CONFIG)
    model.start_from(encoder.state_dict())
    vision = model.imagebind.vision
    assert vision is not None
    frame = torch.randn(2, 1, 3, 24, 24)

    tokens = vision.tokens(frame[:, 0, :, None].expand(-1, -1, 2, -1, -1))

    torch.testing.assert_close(vision.run_blocks(tokens), encoder(frame)[:, 0])


def test_a_few_steps_bring_sounds_to_their_names(tmp_path):
    rows = []
    train_audio_space(
        tmp_path,
        steps=50,
        num_pictures=16,
        num_segments=32,
        num_tracks=8,
        lr=3e-3,
        config=CONFIG,
        progress=lambda done, total, row: rows.append(row),
    )

    assert rows[-1]["audio"] < rows[0]["audio"]
    assert rows[-1]["audio_pull"] < rows[0]["audio_pull"]
    weights = load_file(tmp_path / "audio_space.safetensors")
    CONFIG.build().load_state_dict({k.removeprefix(f"{ENCODER}."): v for k, v in weights.items()})
