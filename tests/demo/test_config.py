import pytest
import yaml

from avllm.cli import main
from avllm.config import find_file, load
from avllm.demo.config import DemoConfig
from avllm.errors import ConfigError


@pytest.mark.parametrize("name", ["nano_withaudio", "nano_only_vl"])
def test_shipped_configs_are_read(name):
    config = load(DemoConfig, find_file("eval_configs", name))

    assert (config.model, config.host, config.port) == ("nano", "127.0.0.1", None)


SYSTEMS = {
    "video_llama_withaudio": ("video_llama_7b", "audio"),
    "video_llama_only_vl": ("video_llama_7b", None),
    "videochat": ("videochat_7b", None),
    "video_llava": ("video_llava_7b", None),
    "video_llava_hf": ("video_llava_7b_hf", None),
    "videollama2": ("videollama2_7b", None),
    "videollama2_1": ("videollama2_1_7b_16f", None),
    "videollama2_1_av": ("videollama2_1_7b_av", "audio"),
}


def test_every_system_has_a_config():
    shipped = {path.stem for path in find_file("eval_configs", "videochat").parent.glob("*.yaml")}

    assert shipped >= {*SYSTEMS, "nano_withaudio", "nano_only_vl"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_config_asks_for_branches_that_its_system_has(name):
    folder, sound = SYSTEMS[name]
    config = load(DemoConfig, find_file("eval_configs", name))
    system = yaml.safe_load(find_file("configs", folder).read_text())

    assert config.model.startswith("./models/")  # a name without ./ would be looked for on the hub
    assert set(config.media.branches) <= set(system["branches"])
    assert ("audio" in config.media.branches) == (sound is not None)
    assert config.page.examples is None


def test_a_config_without_its_model_tells_how_to_convert(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["demo", "--cfg-path", "video_llama_withaudio"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "avllm convert SOURCE... --out ./models/video-llama-7b" in line


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
        ("generation.num_beams=9", "num_beams: got 9, more than max_beams 5"),
        ("generation.seed=-1", "seed: expected 0.."),
        ("page.new_media=replace", "page.new_media: got the text 'replace', allowed are: reset, add"),
        ("page.max_concurrent=0", "max_concurrent: expected a number above 0"),
        ("port=70000", "port: expected 1..65535, got 70000"),
    ],
)
def test_wrong_values_are_named(override, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("(", r"\(")):
        load(DemoConfig, find_file("eval_configs", "nano_withaudio"), [override])
