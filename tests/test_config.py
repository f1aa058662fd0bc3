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
        ("a: !!python/object/apply:os.system ['touch CANARY']\n", "not valid YAML"),
        ("a: !!python/object/new:subprocess.Popen [['touch', 'CANARY']]\n", "not valid YAML"),
        ("a: !!python/name:os.system\n", "not valid YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n", "alias *a; write the value out"),
        ("a: &a [*a]\n", "alias *a; write the value out"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "alias *a; write the value out"),
        ("1: a\n", "key 1 is no text; put it in quotes"),
        ("null: a\n", "key None is no text"),
        ("on: a\n", "key True is no text"),
        ("? [a, b]\n: c\n", "key ['a', 'b'] is no text"),
        ("? {a: b}\n: c\n", "key {'a': 'b'} is no text"),
        ("a:\n\tb: 1\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: " + "[" * 1_000_000, "nested too deeply"),
        ("a: " + "{b: " * 100_000, "nested too deeply"),
        ("a: " + "9" * 5000 + "\n", "a value cannot be read"),
        ("a: 2020-99-99\n", "a value cannot be read"),
        ("a: !!int ''\n", "a value cannot be read"),
        ("a: \0\n", "not valid YAML"),
        ("x" * 4_000_001, "a YAML of at most 4000000 is read"),
    ],
    ids=lambda text: text[:30] if text.isprintable() else repr(text[:30]),
)
def test_s13_a_yaml_that_is_no_plain_data_is_one_clear_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert [item.name for item in tmp_path.iterdir()] == ["bad.yaml"]


def test_s13_code_in_a_value_is_a_text_like_any_other(tmp_path):
    path = tmp_path / "code.yaml"
    path.write_text("optim: {lr: 0.1}\nencoder: {kind: \"eval(open('CANARY', 'w'))\"}\n")
    with pytest.raises(ConfigError, match=r"encoder\.kind: .*eval.* is unknown, known are"):
        load(Outer, path)
    assert apply_overrides({}, ["x=eval(1 + 1)"]) == {"x": "eval(1 + 1)"}


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 1_000_000, "9" * 5000, "{1: 2}", "!!python/name:os.system"])
def test_s13_an_override_is_as_strict_as_a_file(value):
    with pytest.raises(ConfigError, match="the value is not valid YAML") as error:
        apply_overrides({}, [f"a={value}"])
    assert len(str(error.value)) < 700


def test_a_yaml_just_under_the_limit_is_read(tmp_path):
    (tmp_path / "large.yaml").write_text("a: " + "x" * 3_999_990)
    assert len(read_yaml(tmp_path / "large.yaml")["a"]) == 3_999_990
    assert read_yaml(_written(tmp_path / "deep.yaml", "a: " + "[" * 50 + "]" * 50))["a"]


def _written(path, text):
    path.write_text(text)
    return path


def test_odd_numbers_are_named():
    with pytest.raises(ConfigError, match=r"optim\.lr: expected a float, got a number too large for one"):
        parse(Outer, {**GOOD, "optim": {"lr": 10**400}})
    with pytest.raises(ConfigError, match=r"expected an item number below 1, got '²'"):
        apply_overrides({"data": [1]}, ["data.²=1"])
    with pytest.raises(ConfigError) as error:
        parse(Outer, {**GOOD, "seed": "x" * 100_000, "k" * 100_000: 1})
    assert len(str(error.value)) < 700


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


def test_an_override_below_an_empty_item_makes_it_and_below_a_plain_one_is_refused():
    assert apply_overrides({"a": [None, 3]}, ["a.0.b=1"]) == {"a": [{"b": 1}, 3]}
    for override in ("a.1.b=1", "a.1.b.c=1"):
        with pytest.raises(ConfigError, match=r"override: a\.1 is the value 3, it has no keys below it"):
            apply_overrides({"a": [None, 3]}, [override])
