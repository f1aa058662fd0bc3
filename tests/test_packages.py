"""What avllm imports is what pyproject.toml declares, and what only an extra brings is asked for before any work."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from avllm import config, extras
from avllm.cli import main
from avllm.extras import EXTRAS, MissingPackage, missing, require

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "avllm" / "nano" / "examples" / "rocket.mp4"
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "protobuf": "google", "python-multipart": "python_multipart"}
# Read by transformers where it opens a tokenizer; without them it fails there.
NOT_IMPORTED_BY_US = {"sentencepiece", "google"}
# Modules that only what they are for imports: the page of the demo, and lmms-eval, which is no dependency.
_OF_THE_DEMO = ("gradio", "starlette", "uvicorn", "python_multipart")
OWN_MODULES = {**dict.fromkeys(_OF_THE_DEMO, "avllm/demo/"), "lmms_eval": "avllm/evaluation/lmms_"}


def _names(requirements):
    heads = (text.split(";")[0].split("[")[0] for text in requirements)
    plain = ("".join(c for c in head.split(">")[0].split("<")[0].split("=")[0] if c not in " ") for head in heads)
    return {IMPORTED_AS.get(name.lower(), name) for name in plain}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def imports():
    """Package -> (file, whether the import of the module needs it)."""
    found = {}
    for path in sorted((ROOT / "avllm").rglob("*.py")):
        tree, file = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            for name in _imported(node):
                found.setdefault(name.partition(".")[0], []).append((file, node in tree.body))
    return {name: places for name, places in found.items() if name not in sys.stdlib_module_names and name != "avllm"}


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.level == 0 else []
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module"
    is_plain = is_call and node.args and isinstance(node.args[0], ast.Constant)
    return [node.args[0].value] if is_plain else []


def test_every_import_is_declared(project, imports):
    core = _names(project["dependencies"])
    optional = {name for packages in EXTRAS.values() for name in packages} | {"lmms_eval"}
    assert not {name: places for name, places in imports.items() if name not in core | optional}


def test_what_an_extra_brings_is_imported_where_it_is_used(project, imports):
    core = _names(project["dependencies"])
    eager = [
        (name, file)
        for name, places in imports.items()
        for file, is_eager in places
        if is_eager and name not in core and not file.startswith(OWN_MODULES.get(name, "-"))
    ]
    assert not eager


def test_everything_declared_is_used(project, imports):
    assert not _names(project["dependencies"]) - set(imports) - NOT_IMPORTED_BY_US


def test_the_extras_are_those_of_the_project(project):
    declared = {extra: _names(project["optional-dependencies"][extra]) for extra in EXTRAS}
    assert {extra: set(packages) for extra, packages in EXTRAS.items()} == declared


def test_the_package_says_that_it_is_typed():
    assert (config.PACKAGE / "py.typed").is_file()


@pytest.fixture
def without(monkeypatch):
    def take(*names):
        found = extras.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name in names else found(name))
        if "ray" in names:  # imported at once where it is used
            monkeypatch.setitem(sys.modules, "ray", None)

    return take


def test_a_package_that_is_missing_is_named_with_its_extra(without):
    without("peft", "accelerate")
    with pytest.raises(MissingPackage, match=r"^training needs accelerate and peft; install with: pip install 'avllm"):
        require("train", purpose="training")
    require("train", "matplotlib", purpose="drawing")
    error = ModuleNotFoundError("No module named 'peft.utils'", name="peft.utils")
    assert missing(error) == "the package 'peft' is not installed; install it with: pip install 'avllm[train]'"


def test_a_package_that_is_there_and_broken_is_no_missing_one():
    line = missing(ModuleNotFoundError("No module named 'torch._gone'", name="torch._gone"))
    assert line.startswith("ModuleNotFoundError: No module named 'torch._gone' (avllm ")


@pytest.mark.parametrize(
    ("args", "absent", "extra"),
    [
        (("nano", "build", "--out", "built"), "accelerate", "train"),
        (("nano", "build", "--out", "built"), "matplotlib", "train"),
        (("train", "nano/video_stage1", "output=trained"), "accelerate", "train"),
        (("train", "nano/own", "output=trained"), "peft", "train"),
        (("demo",), "gradio", "demo"),
        (("data", "check", "none.jsonl", "--histogram", "x.png"), "matplotlib", "train"),
        (("eval", "mmbench", "data.folder=none", "out=ev"), "openpyxl", "eval"),
        (("eval", "nano", "judge.url=http://127.0.0.1:1/v1", "judge.model=m", "out=ev"), "httpx", "eval"),
        (("merge", "adapter", "--out", "merged"), "peft", "train"),
        (("ask", str(EXAMPLE), "What?", "--model", "adapter"), "peft", "train"),
        (("features", "nano/own", "--out", "store", "--engine", "ray"), "ray", "ray"),
    ],
)
def test_extras_are_asked_for_before_any_work(args, absent, extra, without, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "nano"}', encoding="utf-8")
    without(absent)
    assert main(args) == 1
    error = capsys.readouterr().err
    assert f"pip install 'avllm[{extra}]'" in error
    assert absent in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]  # nothing was begun
