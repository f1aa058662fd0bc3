"""A model folder cannot have code run, kernels or other files fetched: not by any of its settings, nor by any door."""

import ast
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from avllm import config as yaml_config
from avllm.checkpoints import hub
from avllm.checkpoints.load import find_model, load_config, load_model
from avllm.checkpoints.save import save_model
from avllm.checkpoints.tokenizers import open_tokenizer
from avllm.cli import main
from avllm.errors import AvllmError, CheckpointError, ConfigError
from avllm.evaluation.answering import processor_of
from avllm.model import AvllmForConditionalGeneration, AvllmProcessor, System
from avllm.model.untrusted import SETTINGS
from avllm.nano.build import finish
from avllm.nano.data import DATASETS
from avllm.training.stage import read_stage
from avllm.training.start import open_branches, open_start
from tests.checkpoints.test_reading import FORGED
from tests.evaluation.fake import benchmark
from tests.model.tiny import TINY, tiny_model, tiny_processor

PACKAGE = Path(__file__).parents[2] / "avllm"
CLASSES = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoProcessor", "AutoTokenizer", "AutoFeatureExtractor")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = tiny_model()
    return save_model(model, tiny_processor(model), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture
def canary(monkeypatch, tmp_path):
    """A file that code of the folder would write, where every question is answered with yes."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "y")
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of the folder ran"
    assert not asked, "consent was asked for"


def change(path: Path, **entries) -> None:
    """Adds entries to a JSON file, which may not be there yet."""
    data = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**data, **entries}))


def plant(folder: Path, canary: Path, file: str) -> None:
    """Code that writes the canary, and an entry that names it for every class."""
    code = f"open({str(canary)!r}, 'w').close()\n" + "\n".join(f"class {name}: pass" for name in CLASSES)
    (folder / "canary.py").write_text(code)
    names = {**{name: f"canary.{name}" for name in CLASSES}, "AutoTokenizer": [None, "canary.AutoTokenizer"]}
    change(folder / file, auto_map=names)


def _open_branches(folder):
    stage, _ = read_stage("nano/video_stage1", [f"init={folder}", "output=never"], datasets=DATASETS)
    return open_branches(stage)


def _open_start(folder):
    stage, _ = read_stage("nano/video_stage1", [f"init={folder}", "output=never"], datasets=DATASETS)
    return open_start(stage)


# Every way into a model folder, by Python and by the command line.
DOORS = {
    "load": load_model,
    "processor": AvllmProcessor.from_pretrained,
    "model": AvllmForConditionalGeneration.from_pretrained,
    "auto processor": AutoProcessor.from_pretrained,
    "auto model": AutoModelForImageTextToText.from_pretrained,
    "evaluation": lambda folder: processor_of(benchmark(folder.parent, model=str(folder))),
    "nano": lambda folder: finish(folder, folder.parent / "finished"),
    "features": _open_branches,
    "training": _open_start,
}
COMMANDS = {
    "ask": ["FOLDER/../picture.png", "What?", "--model", "FOLDER"],
    "chat": ["--model", "FOLDER"],
    "data": ["check", "nano/video_stage1", "--model", "FOLDER"],
    "train": ["nano/video_stage1", "init=FOLDER", "output=never"],
}


@pytest.mark.parametrize("file", [name for name in SETTINGS if name != "adapter_config.json"])
def test_s13_code_that_any_settings_name_is_refused_whatever_is_answered(folder, canary, file):
    plant(folder, canary, file)
    with pytest.raises(CheckpointError, match=rf"{file}: auto_map asks for code to run"):
        load_model(folder)


@pytest.mark.parametrize("door", DOORS)
def test_s13_every_way_into_a_folder_refuses_its_code(folder, canary, door):
    for file in ("processor_config.json", "tokenizer_config.json", "config.json"):
        plant(folder, canary, file)
    with pytest.raises(ValueError, match="auto_map asks for code to run"):
        DOORS[door](folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_s13_every_command_refuses_code_in_one_line(folder, canary, monkeypatch, capsys, command):
    for file in ("processor_config.json", "tokenizer_config.json"):
        plant(folder, canary, file)
    Image.new("RGB", (8, 8)).save(folder.parent / "picture.png")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    code = main([command, *(word.replace("FOLDER", str(folder)) for word in COMMANDS[command])])
    told = capsys.readouterr().err
    assert code == 1
    assert told.count("\n") == 1
    assert "processor_config.json: auto_map asks for code to run" in told


def test_consent_cannot_be_given_by_an_argument(folder):
    for door in ("load", "processor", "model"):
        with pytest.raises(ConfigError, match="never runs code of a model folder"):
            DOORS[door](folder, trust_remote_code=True)


def test_s13_a_published_tokenizer_is_read_without_its_code(folder, canary, tmp_path):
    plant(folder, canary, "tokenizer_config.json")
    change(folder / "tokenizer_config.json", tokenizer_file="/etc/passwd", vocab_file="/etc/passwd")
    assert len(open_tokenizer(folder, {"model_type": "llama"})) == len(tiny_processor(tiny_model()).tokenizer)


@pytest.mark.parametrize("kind", ["llama", "clip", "bert"])
def test_s13_a_decoder_of_a_yaml_or_a_folder_cannot_name_code(folder, canary, tmp_path, kind):
    names = {"auto_map": {name: f"{folder}--canary.{name}" for name in CLASSES}, "model_type": kind}
    with pytest.raises(AvllmError, match="auto_map"):
        yaml_config.parse(System, {**TINY, "decoder": {**TINY["decoder"], **names}})
    data = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", text_config={**data["text_config"], **names})
    plant(folder, canary, "other.json")
    with pytest.raises(CheckpointError, match=r"config\.json: auto_map asks for code"):
        load_model(folder)
    with pytest.raises(CheckpointError, match=r"config\.json: auto_map asks for code"):
        load_config(folder)


ASKED_FOR = {
    "attn_implementation": ("someone/kernel", "asks for a kernel"),
    "_attn_implementation": ("kernels-community/flash-attn2", "asks for a kernel"),
    "_attn_implementation_internal": ("flash_attention_2", "asks for a kernel"),
    "experts_implementation": ("someone/kernel", "asks for a kernel"),
    "kernel_config": ({"RMSNorm": "someone/kernel:RMSNorm"}, "asks for a kernel"),
    "transformers_weights": ("other.bin", "asks for files of another place"),
    "quantization_config": ({"quant_method": "mxfp4"}, "is of 'mxfp4'; expected bitsandbytes"),
}


@pytest.mark.parametrize("key", ASKED_FOR)
@pytest.mark.parametrize("where", ["top", "text_config"])
def test_a_configuration_cannot_choose_kernels_or_other_weights(folder, key, where):
    value, message = ASKED_FOR[key]
    data = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", **({key: value} if where == "top" else {where: {**data[where], key: value}}))
    with pytest.raises(CheckpointError, match=f"config.json: {key} {message}"):
        load_model(folder)


def test_which_attention_runs_is_for_the_caller_to_say(folder):
    change(folder / "config.json", attn_implementation="eager")
    assert load_model(folder)[0].config._attn_implementation == "sdpa"
    assert load_model(folder, attn_implementation="eager")[0].config._attn_implementation == "eager"


def test_a_processor_cannot_name_another_model(folder):
    entry = {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "someone/model"}
    change(folder / "processor_config.json", audio_tokenizer=entry)
    with pytest.raises(CheckpointError, match=r"processor_config\.json: audio_tokenizer asks for files"):
        AvllmProcessor.from_pretrained(folder)


def test_a_model_beside_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/model"}))
    with pytest.raises(CheckpointError, match=r"a whole model and an adapter; expected one"):
        load_model(folder)


def sharded(folder: Path, name: str, *, index: str = "model.safetensors.index.json") -> None:
    """The weights in a shard of this name, which the index names."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shard = folder / name
    shard.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(state, shard, metadata={"format": "pt"})
    else:
        torch.save(state, shard)
    save_file({}, folder / "other.safetensors")
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, name)}))


def test_shards_of_the_own_folder_are_read(folder):
    sharded(folder, "model-00001-of-00001.safetensors")
    (folder / "other.safetensors").unlink()
    assert load_model(folder)[0].config.model_type == "avllm"


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "below/shard.safetensors", "ABSOLUTE", "shard.bin", "x.pth"]
)
def test_s11_an_index_names_safetensors_of_its_own_folder_alone(folder, name):
    name = str(folder.parent / "outside.safetensors") if name == "ABSOLUTE" else name
    sharded(folder, name)
    for door in ("load", "model"):
        with pytest.raises(CheckpointError, match=r"index\.json: '.*' is no (file of this|safetensors)"):
            DOORS[door](folder)


@pytest.mark.parametrize(
    "forged", ["pickle in a zip", "bare pickle", "zip bomb", "header of 2^62 bytes", "tensor of 2^40 values"]
)
@pytest.mark.parametrize("command", ["ask", "merge"])
def test_s11_a_forged_file_in_a_folder_is_refused_in_one_line(folder, canary, capsys, command, forged):
    if command == "merge":
        for path in folder.iterdir():
            path.unlink()
        change(folder / "adapter_config.json", base_model_name_or_path="nano", peft_type="LORA", r=2, lora_alpha=2)
    FORGED[forged](folder / ("model.safetensors" if command == "ask" else "adapter_model.safetensors"), canary)
    Image.new("RGB", (8, 8)).save(folder.parent / "picture.png")
    given = {
        "ask": [str(folder.parent / "picture.png"), "What?", "--model", str(folder)],
        "merge": [str(folder), "--out", str(folder.parent / "out")],
    }
    assert main([command, *given[command]]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "model.safetensors: " in told
    assert not (folder.parent / "out").exists()


def test_s11_pickled_weights_of_a_model_folder_are_never_read(folder, tmp_path):
    sharded(folder, "pytorch_model.bin", index="pytorch_model.bin.index.json")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(folder)


def test_links_of_the_hub_and_of_users_are_followed(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    for target in (snapshot, blobs):
        target.mkdir(parents=True)
    for number, file in enumerate(folder.iterdir()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert load_model(snapshot)[0].config.model_type == "avllm"
    (tmp_path / "linked").symlink_to(snapshot)
    assert load_model(tmp_path / "linked")[0].config.model_type == "avllm"
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    assert load_model(folder)[0].config.model_type == "avllm"
    (tmp_path / "elsewhere.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(folder)


@pytest.fixture
def no_hub(monkeypatch):
    """What was asked of the hub, which cannot be reached."""
    asked = []

    def refuse(repo, **options):
        asked.append((repo, options["allow_patterns"]))
        raise ConnectionError("[Errno 111] Connection refused\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    hub._say.cache_clear()
    return asked


def test_s25_what_is_fetched_from_the_hub_is_said_and_its_absence_told_in_one_line(no_hub, caplog, capsys, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    assert main(["ask", str(tmp_path / "picture.png"), "What?", "--model", "someone/something"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "the hub does not give it ([Errno 111] Connection refused); check the name and the network" in told
    assert "hf download someone/something --local-dir FOLDER" in told
    said = [record.getMessage() for record in caplog.records if record.name == "avllm.checkpoints.hub"]
    assert len(said) == 1
    assert "someone/something is no folder here; it is taken from the Hugging Face hub: its weights (*.safet" in said[0]
    assert [patterns for _, patterns in no_hub] == [[*hub.SETTINGS, "*.safetensors"]]


@pytest.mark.parametrize(
    "name", ["models/typo", "./x/y", "../x", "/x/y", "models/tiny/config.json", "models/tiny/below/it"]
)
def test_a_misspelt_folder_is_not_asked_of_the_hub(no_hub, folder, monkeypatch, name):
    monkeypatch.chdir(folder.parent)
    shutil.copytree(folder, folder.parent / "models" / "tiny")
    with pytest.raises(CheckpointError, match=r"no such folder: .* has no |is a file; expected the folder"):
        find_model(name)
    assert not no_hub


def test_the_nearest_name_is_told(no_hub, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CheckpointError, match=r"no such folder: \. has no copi; did you mean 'copy'\?"):
        find_model("./copi")


def unsaid(source: str, file: str) -> list[str]:
    """Calls of a file that could run or fetch something and do not say that they must not."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        name, where = called.rpartition(".")[2], f"{file}:{node.lineno}: {called}"
        if name in ("from_pretrained", "pipeline") or (name == "from_config" and called.startswith("Auto")):
            if called == "PeftModel.from_pretrained" and "config" in options:
                continue  # has no such option; its settings were checked
            faults += [where] if options.get("trust_remote_code") != "False" else []
        if name in ("hf_hub_download", "snapshot_download", "cached_file", "load_state_dict_from_url"):
            faults += [where] if file != "hub.py" or "allow_patterns" not in options else []
        if called in ("torch.load", "yaml.unsafe_load", "eval", "exec", "__import__"):
            faults += [where] if options.get("weights_only") != "True" else []
        if called in ("pickle.load", "pickle.loads") and file != "child.py":  # that reads what its own parent sends
            faults.append(where)
    return faults


def test_s13_calls_that_could_run_or_fetch_something_say_that_they_do_not():
    files = sorted(PACKAGE.rglob("*.py"))
    assert not [fault for path in files for fault in unsaid(path.read_text(encoding="utf-8"), path.name)]


@pytest.mark.parametrize(
    "call",
    [
        *("AutoProcessor.from_pretrained(x)", "A.from_pretrained(x, trust_remote_code=None)", "pipeline('x')"),
        *("AutoModel.from_config(x)", "snapshot_download('x', allow_patterns=y)", "torch.load(x)", "eval('x')"),
    ],
)
def test_a_call_that_does_not_say_it_is_seen(call):
    assert unsaid(call, "x.py")
