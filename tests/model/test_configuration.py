"""Every system of `configs/` builds, and a wrong YAML is named."""

from pathlib import Path

import pytest
import torch

from avllm import config
from avllm.errors import ConfigError
from avllm.model import PROMPTS, AvllmConfig, AvllmForConditionalGeneration, System
from tests.model.tiny import TINY

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
PARAMETERS = {"video_llama_7b": 8593500032, "video_llama_13b": 14872523648}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_on_the_meta_device(path):
    configuration = AvllmConfig.from_yaml(path)
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(configuration)

    assert configuration.system["prompt"] in PROMPTS
    assert len(path.read_text().splitlines()) <= 60
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == PARAMETERS.get(path.stem, count)


def test_survives_saving(tmp_path):
    configuration = AvllmConfig.from_system(config.parse(System, TINY))
    configuration.save_pretrained(tmp_path)
    again = AvllmConfig.from_pretrained(tmp_path)
    assert again.parsed().branches == configuration.parsed().branches
    assert again.text_config.to_dict() == configuration.text_config.to_dict()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("branches.video.connector.kind=mpl", "branches.video.connector.kind: 'mpl' is unknown, known are: mlp, "),
        ("branches.video.media.frames=3", "branches.video.media.frames: unknown key"),
        ("decoder.model_type=lama", "decoder.model_type: 'lama' is no model of transformers"),
        ("published_quirks=[drift]", "published_quirks.0: got the text 'drift', allowed are"),
        ("branches.smell={}", "branches.smell: got the text 'smell', allowed are: video, audio"),
    ],
)
def test_names_the_wrong_key(override, message):
    with pytest.raises(ConfigError, match=message):
        config.parse(System, config.apply_overrides(TINY, [override]))
