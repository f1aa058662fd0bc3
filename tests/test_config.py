from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from avllm.config import Choice, apply_overrides, find_file, load, parse, read_yaml, to_plain
from avllm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Small:
    width: int = 3
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Large:
    layers: tuple[int, ...] = (1, 2)
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float
    kind: Literal["adam", "sgd"] = "adam"
    is_fused: bool = False


@dataclass(frozen=True, kw_only=True)
class Outer:
    optim: Inner
    encoder: Annotated[object, Choice({"small": Small, "large": Large})]
    names: dict[str, Inner] | None = None
    seed: int = 0
    either: int | str = 1


GOOD = {"optim": {"lr": 0.1}, "encoder": {"kind": "small", "width": 8}}


def test_fills_nested_dataclasses_and_goes_back_to_plain_data():
    outer = parse(Outer, {**GOOD, "names": {"a": {"lr": 1, "kind": "sgd"}}})

    assert outer.optim == Inner(lr=0.1)
    assert outer.encoder == Small(width=8)
    assert outer.names == {"a": Inner(lr=1.0, kind="sgd")}
    assert parse(Outer, to_plain(outer)) == outer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": {"lr": "1e-4"}}, "optim.lr: expected a float, got the text '1e-4'; write 1.0e-04"),
        ({"optim": {"lr": "fast"}}, "optim.lr: expected a float, got the text 'fast'"),
        ({"optim": {"lr": True}}, "optim.lr: expected a float, got True"),
        ({"optim": {}}, "optim.lr: missing, expected a float"),
        ({"optim": {"lr": 0.1, "kind": "adamw"}}, "optim.kind: got the text 'adamw', allowed are: adam, sgd"),
        ({"optim": {"lr": 0.1, "is_fused": 1}}, "optim.is_fused: expected true or false, got 1"),
        ({"optim": {"lr": 0.1, "lr_": 2}}, "optim.lr_: unknown key; did you mean 'lr'"),
        ({"optim": [1]}, "optim: expected keys and values, got a list"),
        ({"encoder": {"kind": "smal"}}, "encoder.kind: 'smal' is unknown, known are: large, small"),
        ({"encoder": {"width": 3}}, "encoder.kind: missing, known are: large, small"),
        ({"encoder": {"kind": "large", "layers": [1, "b"]}}, "encoder.layers.1: expected an int, got the text 'b'"),
        ({"encoder": {"kind": "large", "size": [1]}}, "encoder.size: expected a list of 2, got 1 items"),
        ({"names": {"a": {"lr": None}}}, "names.a.lr: expected a float, got nothing"),
        ({"seed": 1.5}, "seed: expected an int, got 1.5"),
        ({"either": 1.5}, "either: expected an int or a text, got 1.5"),
    ],
)
def test_an_error_names_the_full_key_path_and_what_is_allowed(change, message):
    with pytest.raises(ConfigError) as error:
        parse(Outer, {**GOOD, **change})
    assert message in str(error.value)


def test_overrides_reach_nested_keys_and_list_items_without_changing_the_source():
    source = {"a": {"b": 1}, "data": [{"ratio": 1}, {"ratio": 2}]}

    changed = apply_overrides(source, ["a.b=2.5", "a.c.d=[1, 2]", "data.1.ratio=7", "x=text=with=signs"])

    assert changed["a"] == {"b": 2.5, "c": {"d": [1, 2]}}
    assert changed["data"][1]["ratio"] == 7
    assert changed["x"] == "text=with=signs"
    assert source == {"a": {"b": 1}, "data": [{"ratio": 1}, {"ratio": 2}]}


@pytest.mark.parametrize("override", ["a.b", "=3", "a.b.c=1", "data.9.ratio=1", "data.first=1"])
def test_a_wrong_override_is_refused(override):
    with pytest.raises(ConfigError, match="override"):
        apply_overrides({"a": {"b": 1}, "data": [{"ratio": 1}]}, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "key 'a' is written twice"),
        ("- 1\n", "expected keys and values at the top level, got a list"),
        ("a: [1\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_a_broken_yaml_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load(Outer, tmp_path / "nothing.yaml")


def test_overrides_apply_to_a_file(tmp_path):
    path = tmp_path / "outer.yaml"
    path.write_text("optim: {lr: 0.1}\nencoder: {kind: small}\n")
    assert load(Outer, path, ["optim.lr=1.0e-4", "encoder.width=9"]).encoder == Small(width=9)


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(ConfigError, match="video_llama_7b"):
        find_file("configs", "video_lama")
    assert find_file("configs", "video_llama_7b").name == "video_llama_7b.yaml"


def test_bare_off_and_on_are_the_words_where_words_are_wanted(tmp_path):
    @dataclass(frozen=True)
    class Sound:
        audio: Literal["auto", "off"] = "auto"

    path = tmp_path / "sound.yaml"
    path.write_text("audio: off\n")
    assert load(Sound, path).audio == "off"
    with pytest.raises(ConfigError, match="got True, allowed are: auto, off"):
        load(Sound, path, ["audio=on"])
