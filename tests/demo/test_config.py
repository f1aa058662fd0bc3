import pytest

from avllm.config import find_file, load
from avllm.demo.config import DemoConfig
from avllm.errors import ConfigError


@pytest.mark.parametrize("name", ["nano_withaudio", "nano_only_vl"])
def test_shipped_configs_are_read(name):
    config = load(DemoConfig, find_file("eval_configs", name))

    assert (config.model, config.host, config.port) == ("nano", "127.0.0.1", None)


def test_only_vl_reads_no_sound():
    config = load(DemoConfig, find_file("eval_configs", "nano_only_vl"))

    assert config.media.branches == ("video",)
    assert config.media.audio == "off"


def test_overrides_reach_nested_keys():
    path = find_file("eval_configs", "nano_withaudio.yaml")

    config = load(DemoConfig, path, ["media.frames=4", "media.audio=require", "generation.temperature=0.7"])

    assert (config.media.frames, config.media.audio, config.generation.temperature) == (4, "require", 0.7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("media.frame=4", "media.frame: unknown key; did you mean 'frames'"),
        ("media.frames=0", "media: frames: expected a number above 0, got 0"),
        ("media.audio=loud", "media.audio: got the text 'loud', allowed are: auto, require, off"),
        ("media.branches=[audio]", "expected video, or video and audio"),
        ("media.branches=[video]", 'branches has no audio; write audio: "off"'),
        ("generation.max_new_tokens=500", "more than max_new_tokens_limit 96"),
        ("generation.temperature=3.0", "expected temperature in 0..2"),
        ("page.max_concurrent=0", "max_concurrent: expected a number above 0"),
        ("port=70000", "port: expected 1..65535, got 70000"),
    ],
)
def test_wrong_values_are_named(override, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("(", r"\(")):
        load(DemoConfig, find_file("eval_configs", "nano_withaudio"), [override])
