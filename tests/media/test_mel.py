import numpy as np
import pytest

from avllm.errors import ConfigError, MediaError
from avllm.media import Audio, SegmentConfig, audio_segments, log_mel
from avllm.media.mel import segment_ranges
from tests.media.make import tone


def reference(waveform: np.ndarray, num_mel_bins: int) -> np.ndarray:
    """The same by transformers' own filter bank."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    bank = mel_filter_bank(
        257, num_mel_bins, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    return spectrogram(
        waveform,
        window_function(400, "hann", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        remove_dc_offset=True,
        mel_filters=bank,
        mel_floor=1.1920929e-07,
        log_mel="log",
    ).T


@pytest.mark.parametrize("num_mel_bins", [32, 64, 128])
def test_log_mel_equals_an_independent_one(num_mel_bins):
    waveform = (tone(0.4) + 0.05 * np.random.default_rng(0).standard_normal(6400)).astype(np.float32)

    assert np.abs(log_mel(waveform, 16000, num_mel_bins) - reference(waveform, num_mel_bins)).max() < 2e-3


def test_segments_have_the_shape_of_their_config():
    config = SegmentConfig(num_segments=5, segment_seconds=0.5, num_mel_bins=32, num_frames=50)
    segments = audio_segments(Audio(waveform=tone(3.0)[None], sample_rate=16000), config)

    assert segments.shape == (5, 1, 32, 50)
    padding = (0 - config.mean) / config.std
    assert np.allclose(segments[..., 48:], padding)  # 0.5 s is 48 complete frames
    assert not np.isclose(segments[..., :48], padding).all()


def test_the_mean_of_one_segment_does_not_leak_into_another():
    audio = Audio(waveform=tone(2.4)[None] + np.float32(0.2), sample_rate=16000)
    before = audio.waveform.copy()
    config = SegmentConfig()
    segments = audio_segments(audio, config)

    assert np.array_equal(audio.waveform, before)
    begin, end = segment_ranges(audio.waveform.shape[1], config)[5]
    alone = Audio(waveform=audio.waveform[:, begin:end], sample_rate=16000)
    one = audio_segments(alone, SegmentConfig(num_segments=1))
    assert np.abs(segments[5] - one[0]).max() < 1e-5


@pytest.mark.parametrize("num_samples", [1, 100, 399, 400])
def test_sounds_below_one_frame_are_filled_with_silence(num_samples):
    segments = audio_segments(Audio(waveform=np.ones((1, num_samples), np.float32), sample_rate=16000))

    assert segments.shape == (8, 1, 128, 204)
    assert np.isfinite(segments).all()
    assert not np.isclose(segments[0, 0, :, 0], 4.268 / 9.138).all()


def test_channels_first_or_mixed():
    stereo = np.stack([tone(0.5), -tone(0.5)])
    first = audio_segments(Audio(waveform=stereo, sample_rate=16000))
    mixed = audio_segments(Audio(waveform=stereo, sample_rate=16000), SegmentConfig(channels="mean"))

    assert first.max() > mixed[..., :48].max()  # the mix cancels out


def test_timing_of_git_reaches_the_end():
    published = segment_ranges(160000, SegmentConfig())
    git = segment_ranges(160000, SegmentConfig(timing="git"))

    assert published[0] == git[0] == (0, 32000)
    assert (published[-1], git[-1]) == ((112000, 144000), (128000, 160000))


def test_errors():
    with pytest.raises(MediaError, match="8000 Hz, expected 16000"):
        audio_segments(Audio(waveform=tone(1.0)[None], sample_rate=8000))
    with pytest.raises(MediaError, match="empty"):
        audio_segments(Audio(waveform=np.zeros((1, 0), np.float32), sample_rate=16000))
    with pytest.raises(ConfigError, match="num_segments"):
        SegmentConfig(num_segments=0)
