"""Odd values in the settings of a folder: one line for each, nothing is allocated, and nothing but our own errors."""

import json
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avllm import config as yaml_config
from avllm.checkpoints.inspect import inspect
from avllm.checkpoints.load import load_config, load_model
from avllm.checkpoints.save import save_model
from avllm.cli import main
from avllm.errors import AvllmError, CheckpointError, ConfigError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from avllm.model.sizes import MAX_MODULES, MAX_SIZE
from avllm.model.untrusted import check_folder
from tests.checkpoints.published import LAYOUTS
from tests.model.tiny import TINY, tiny_model, tiny_processor

ODD = ("text", -1, 10**18, 1e308, float("nan"), float("-inf"), None, [], {}, [[[]]], True, "9" * 5000, 1.5, ["x"] * 3)
SURELY_ODD = ("text", -1, 10**18, float("nan"), [[[]]])
# Of a decoder's configuration, what has no part in how its model is built.
FREE = ("architectures", "transformers_version", "_name_or_path", "id2label", "label2id", "problem_type", "dtype")
FREE += ("chunk_size_feed_forward", "pretraining_tp")
MIB = 1024  # of what the system counts in


@pytest.fixture
def folder(tmp_path):
    model = tiny_model()
    return save_model(model, tiny_processor(model), tmp_path / "tiny")


def key_paths(node: Any, at: tuple = ()) -> Iterator[tuple]:
    """The path of every key and item."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from key_paths(value, (*at, key))


def changed(text: str, path: tuple, value: Any) -> str:
    """The JSON with another value at a path."""
    data = json.loads(text)
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return json.dumps(data)


def faults_of(file: Path, run, *, of: int) -> list[str]:
    """Runs with an odd value at one key of so many in a file; what was raised that is not ours, or is not one line.

    All keys with all values take minutes: `of=1` and a loop over `ODD`.
    """
    text, faults = file.read_text(), []
    for path in key_paths(json.loads(text)):
        number = zlib.crc32(repr(path).encode())
        if number % of:
            continue
        value = ODD[number // of % len(ODD)]
        file.write_text(changed(text, path, value))
        try:
            run()
        except AvllmError as error:
            told = str(error)
            faults += [f"{path} {value!r:.40}: {told:.200}"] if "\n" in told or len(told) > 1500 else []
        except Exception as error:
            faults.append(f"{path} {value!r:.40}: {type(error).__name__} {error!s:.200}")
    file.write_text(text)
    return faults


@pytest.mark.parametrize(
    ("file", "of"),
    [("config.json", 12), ("processor_config.json", 6), ("generation_config.json", 1), ("tokenizer_config.json", 1)],
)
def test_an_odd_value_at_a_key_of_a_folder_is_one_line(folder, file, of):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not faults_of(folder / file, lambda: load_model(folder), of=of)
    assert load_model(folder)[0].config.model_type == "avllm"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * MIB


def test_an_odd_value_at_a_key_of_a_published_configuration_is_one_line(tmp_path):
    layout = LAYOUTS["videollama2_mistral"](tmp_path)
    file = next(path for path in tmp_path.rglob("config.json") if "mm_projector_type" in path.read_text())
    assert not faults_of(file, lambda: inspect(layout.sources), of=1)


def test_a_number_that_none_can_be_is_refused_at_every_key_of_a_system():
    """Before anything is built, whatever the key."""
    text, accepted = json.dumps(AvllmConfig.from_system(yaml_config.parse(System, TINY)).to_dict()), []
    configuration = json.loads(text)
    numbers = [path for path in key_paths(configuration) if type(_at(configuration, path)) in (int, float)]
    assert len(numbers) > 60
    for path in numbers:
        if path[0] not in ("system", "text_config") or path[1] in FREE:
            continue
        for value in SURELY_ODD:
            if value == -1 and ("layer" in path or "mean" in path or str(path[-1]).endswith("_token_id")):
                continue  # counted from the end, below the mean, none
            if "rope_parameters" in path and not isinstance(value, float):
                continue  # told when the model is built
            try:
                AvllmConfig.from_dict(json.loads(changed(text, path, value))).parsed()
            except (CheckpointError, ConfigError):
                continue
            accepted.append((path, value))
    assert not accepted


def _at(node: Any, path: tuple) -> Any:
    for key in path:
        node = node[key]
    return node


@pytest.mark.parametrize(
    ("key", "limit"),
    [
        ("decoder.vocab_size", MAX_SIZE),
        ("decoder.num_hidden_layers", MAX_MODULES),
        ("branches.video.encoder.depth", 1024),
    ],
)
def test_a_size_just_under_its_limit_is_taken_and_one_over_it_refused(key, limit):
    yaml_config.parse(System, yaml_config.apply_overrides(TINY, [f"{key}={limit}"]))
    with pytest.raises(ConfigError, match=rf"{key}: expected a number .* to {limit}, got {limit + 1}"):
        yaml_config.parse(System, yaml_config.apply_overrides(TINY, [f"{key}={limit + 1}"]))


def test_an_unknown_key_of_a_decoder_is_named_in_a_yaml_and_has_no_effect_in_a_folder(folder):
    with pytest.raises(ConfigError, match=r"decoder\.num_hiden_layers: unknown key of llama; did you mean 'num_hid"):
        yaml_config.parse(System, yaml_config.apply_overrides(TINY, ["decoder.num_hiden_layers=3"]))
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(changed(changed(text, ("extra",), 1), ("text_config", "to_dict"), 1))
    assert not hasattr(load_model(folder)[0].config, "extra")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[" * 100_000, '{"a":' * 100_000, "\0", "9" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json"])
def test_a_file_that_is_no_settings_is_one_line(folder, file, content):
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError) as told:
        load_model(folder)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 1500


@pytest.mark.parametrize("path", [("model", "vocab", "a"), ("added_tokens", 0, "id"), ("model", "merges"), ("model",)])
@pytest.mark.parametrize("value", ["text", -1, [[[]]], 10**18, None])
def test_an_odd_tokenizer_is_one_line(folder, path, value):
    file = folder / "tokenizer.json"
    file.write_text(changed(file.read_text(), path, value))
    with pytest.raises(CheckpointError) as told:
        load_model(folder)
    assert "\n" not in str(told.value)


def test_settings_larger_than_any_are_not_read(folder):
    with (folder / "config.json").open("ab") as file:
        file.truncate(64_000_001)
    with pytest.raises(CheckpointError, match="at most 64000000 are read"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="at most 64000000 are read"):
        load_config(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("num_beams", 65),
            ("num_beams", 10**18),
            ("temperature", float("nan")),
            ("top_p", "0.9"),
            ("max_length", -1),
        ),
        *(("penalty_alpha", 0.6), ("dola_layers", "high"), ("cache_implementation", "x"), ("eos_token_id", ["</s>"])),
        *(("pad_token_id", 10**18), ("do_sample", 1), ("watermarking_config", {"greenlist_ratio": 0.5})),
    ],
)
def test_settings_of_generation_are_checked(folder, key, value):
    text = (folder / "generation_config.json").read_text()
    (folder / "generation_config.json").write_text(changed(text, (key,), value))
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {key}: .* is not what it can be"):
        check_folder(folder)
    usual = {"num_beams": 64, "temperature": 0.7, "top_p": 0.9, "do_sample": True, "eos_token_id": [2, 3]}
    (folder / "generation_config.json").write_text(json.dumps({**json.loads(text), **usual}))
    check_folder(folder)


def test_settings_that_do_not_go_together_are_refused(folder):
    text = (folder / "processor_config.json").read_text()
    (folder / "processor_config.json").write_text(
        changed(text, ("system", "branches", "video", "media", "num_frames"), 5)
    )
    with pytest.raises(CheckpointError, match=r"config\.json and processor_config\.json differ in branches"):
        load_model(folder)


def test_sizes_that_make_no_model_are_one_line(capsys):
    for override in (
        "decoder.num_attention_heads=0",
        "decoder.hidden_act=eval(1)",
        "branches.video.encoder.num_heads=7",
    ):
        assert main(["plan", "nano", override]) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "InternalError" not in told
        assert "Traceback" not in told
    with torch.device("meta"), pytest.raises(ConfigError, match="no model can be built of these sizes"):
        AvllmForConditionalGeneration(AvllmConfig.from_yaml("nano", ("branches.video.encoder.num_heads=7",)))
