import logging
import random

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from avllm.errors import ConfigError, MediaError
from avllm.media import Audio, FbankConfig, fbank_of, log_mel
from avllm.media.fbank import waveform_of
from avllm.media.resample import resample_fft
from tests.media.make import tone

SMALL = FbankConfig(seconds=4.0, num_clips=3, clip_seconds=0.5, num_mel_bins=16)


def sound(*channels: np.ndarray, rate: int = 16000) -> Audio:
    return Audio(waveform=np.stack(channels).astype(np.float32), sample_rate=rate)


def clock(seconds: float, rate: int = 16000) -> np.ndarray:
    """Samples whose values are their times in seconds."""
    return np.arange(round(seconds * rate), dtype=np.float32) / rate


def test_log_mel_with_kaldi_s_own_window_equals_an_independent_one():
    waveform = (tone(0.4) + 0.05 * np.random.default_rng(0).standard_normal(6400)).astype(np.float32) * 32768
    theirs = spectrogram(
        waveform,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        remove_dc_offset=True,
        mel_filters=mel_filter_bank(
            257, 128, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
        ),
        mel_floor=1.1920929e-07,
        log_mel="log",
    ).T

    assert np.abs(log_mel(waveform, 16000, 128, window="povey") - theirs).max() < 2e-3


@pytest.mark.parametrize("rates", [(8000, 16000), (44100, 16000), (11025, 16000), (16000, 44100)])
def test_resampling_through_the_spectrum_counts_as_published(rates: tuple[int, int]):
    from_rate, to_rate = rates

    assert len(resample_fft(tone(0.25, from_rate), from_rate, to_rate)) == -(
        -len(tone(0.25, from_rate)) * to_rate // from_rate
    )


@pytest.mark.parametrize("num_out", [40, 41, 99, 101, 150, 200])
def test_resampling_through_the_spectrum_is_exact_for_slow_waves(num_out: int):
    given, expected = (np.cos(2 * np.pi * 17 * np.arange(n) / n + 0.3) for n in (100, num_out))

    assert np.abs(resample_fft(given.astype(np.float32), 100, num_out) - expected).max() < 1e-6


@pytest.mark.parametrize(("num_in", "num_out", "cycles"), [(100, 50, 25), (50, 100, 25)])
def test_a_wave_of_the_highest_frequency_keeps_its_size(num_in: int, num_out: int, cycles: int):
    given, expected = (np.cos(2 * np.pi * cycles * np.arange(n) / n) for n in (num_in, num_out))

    assert np.abs(resample_fft(given.astype(np.float32), num_in, num_out) - expected).max() < 1e-6


def test_a_short_sound_is_followed_by_silence():
    picture = fbank_of(sound(tone(1.0)), SMALL)

    assert picture.shape == (1, *SMALL.frame_shape) == (1, 1, 16, 398)
    silence = (np.log(np.float32(1.1920929e-07)) - SMALL.mean) / SMALL.std
    assert np.allclose(picture[..., 100:], silence, atol=1e-5)
    assert (picture[..., :98] > silence + 0.1).mean() > 0.9


def test_values_are_those_of_samples_of_16_bits():
    raw = fbank_of(sound(tone(4.0)), FbankConfig(seconds=4.0, num_clips=1, num_mel_bins=16, mean=0.0, std=1.0))

    assert np.allclose(raw[0, 0].T, log_mel(tone(4.0) * 32768, 16000, 16, window="povey"), atol=1e-5)
    assert np.allclose(fbank_of(sound(tone(4.0)), SMALL), (raw - SMALL.mean) / SMALL.std, atol=1e-5)


def test_of_a_file_the_first_channel_is_heard_and_of_a_video_all():
    left, right = tone(2.0), tone(2.0, hertz=900.0)

    first = waveform_of(sound(left, right), SMALL)
    mixed = waveform_of(sound(left, right), FbankConfig(seconds=4.0, num_clips=1, channels="mean"))
    video = waveform_of(sound(left, right), FbankConfig(seconds=4.0, num_clips=1, clip_seconds=2.0), is_video=True)

    assert np.array_equal(first[:32000], left)
    assert np.allclose(mixed[:32000], (left + right) / 2, atol=1e-6)
    assert np.allclose(video[:32000], (left + right) / 2, atol=1e-6)


def test_the_clips_of_a_video_follow_each_other():
    heard = waveform_of(sound(clock(3.5)), SMALL, is_video=True)

    assert np.allclose(heard[[0, 8000, 16000]], [0.0, 1.0, 2.0])  # i * (3.5 - 0.5) / 3
    assert heard[7999] < 0.5
    assert not heard[24000:].any()


def test_the_clips_of_a_short_video_are_all_of_it():
    heard = waveform_of(sound(clock(0.3)), SMALL, is_video=True)

    assert np.array_equal(heard[:4800], heard[4800:9600])
    assert not heard[3 * 4800 :].any()


def test_a_video_of_another_rate_is_resampled():
    heard = waveform_of(sound(tone(4.0, 48000), rate=48000), SMALL, is_video=True)

    assert np.abs(heard[200:7000] - tone(4.0)[200:7000]).max() < 5e-3


def test_of_a_long_sound_the_end_is_heard_too(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        heard = waveform_of(sound(clock(10.5)), SMALL)

    starts = heard[::8000]
    assert len(heard) == 64000
    assert np.allclose(starts, np.arange(8) * 10 / 7, atol=1e-4)
    assert heard[-1] == pytest.approx(10.5, abs=1e-3)
    assert "10.5 s long; heard are 8 clips of 0.5 s" in caplog.text


def test_the_published_random_part_can_be_had_back():
    random.seed(3)
    heard = waveform_of(sound(clock(10.5)), SMALL, crops_at_random=True)
    random.seed(3)
    start = random.randint(0, round(6.5 * 16000))

    assert np.allclose(heard, clock(10.5)[start : start + 64000])


def test_a_sound_of_its_own_rate_gives_nearly_the_same_picture():
    smooth = [tone(2.0, rate) * np.hanning(2 * rate) for rate in (44100, 16000)]

    own, same = (fbank_of(sound(wave, rate=len(wave) // 2), SMALL) for wave in smooth)

    assert own.shape == same.shape
    loud = same > -0.5
    assert np.abs(own - same)[loud].mean() < 0.01


def test_an_empty_sound_is_an_error():
    with pytest.raises(MediaError, match="the sound is empty"):
        fbank_of(sound(np.zeros(0)), SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 0.0}, "seconds: expected a number above 0"),
        ({"num_clips": 20, "seconds": 30.0}, "20 clips of 2 s are longer than 30 s"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        FbankConfig(**changes)  # type: ignore[arg-type]


def test_the_published_picture_has_2998_frames():
    assert FbankConfig().frame_shape == (1, 128, 2998)
