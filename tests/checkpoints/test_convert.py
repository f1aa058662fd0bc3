import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

import avllm
from avllm.checkpoints.convert import convert
from avllm.checkpoints.families import equal_in_keys
from avllm.checkpoints.inspect import inspect
from avllm.cli import main
from avllm.errors import CheckpointError, DiskError
from avllm.model import System
from tests.checkpoints.published import LAYOUTS, Layout
from tests.checkpoints.test_reading import evil_zip

CONTAINERS = ("model", "state_dict")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory):
    """Layouts on disk, each written once; not to be changed."""
    found: dict[str, Layout] = {}

    def write(name: str) -> Layout:
        if name not in found:
            found[name] = LAYOUTS[name](tmp_path_factory.mktemp(name))
        return found[name]

    return write


def converted(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_published_layout_becomes_the_model_it_was_made_of(name: str, written, tmp_path: Path):
    layout = written(name)

    convert(layout.sources, tmp_path / "out", **layout.options)

    found = converted(tmp_path / "out")
    assert found.keys() == layout.state.keys()
    exact = name not in ("lora", "delta")
    for key, tensor in layout.state.items():
        torch.testing.assert_close(found[key], tensor, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6, msg=key)
    assert inspect([tmp_path / "out"]).ok
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").model_type == "avllm"
    assert type(AutoProcessor.from_pretrained(tmp_path / "out")) is avllm.AvllmProcessor
    own = model.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in found.items())


def tensors_of(path: Path) -> tuple[dict, dict[str, Tensor]]:
    if path.suffix == ".safetensors":
        weights = load_file(path)
        return weights, weights
    data = torch.load(path, weights_only=True)
    inner = next((key for key in CONTAINERS if isinstance(data.get(key), dict)), None)
    return data, data if inner is None else data[inner]


def weight_files(layout: Layout) -> list[Path]:
    """Files whose every weight is needed, in the order of their names."""
    files = [path for name, path in sorted(layout.files.items()) if name != "languagebind_image_and_video"]
    return [
        file
        for path in files
        for file in ([path] if path.is_file() else sorted([*path.glob("*.bin"), *path.glob("*.safetensors")]))
    ]


def transposed(tensor: Tensor) -> Tensor | None:
    return tensor.t().contiguous() if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1] else None


def reshaped(tensor: Tensor) -> Tensor | None:
    return tensor.reshape(-1, 1, 1, 1, 1, 1) if tensor.numel() > 1 else None


def not_finite(tensor: Tensor) -> Tensor | None:
    damaged = tensor.clone()
    damaged.view(-1)[-1] = float("nan")
    return damaged


def damage(weights: dict[str, Tensor], kind: str, key: str) -> bool:
    """Damages one weight; whether it could be done."""
    if kind == "dropped":
        del weights[key]
    elif kind == "renamed":
        weights[f"{key}_more"] = weights.pop(key)
    elif kind == "surplus":
        weights[f"{key}.surplus"] = torch.ones(3)
    else:
        change = {"transposed": transposed, "reshaped": reshaped, "not finite": not_finite}[kind](weights[key])
        if change is None:
            return False
        weights[key] = change
    return True


@pytest.mark.parametrize("kind", ["dropped", "renamed", "transposed", "reshaped", "surplus", "not finite"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_damaged_weight_of_any_layout_is_refused_and_named(name: str, kind: str, written, tmp_path: Path):
    chooser = random.Random(f"{name} {kind}")
    original = written(name)
    root = Path(os.path.commonpath([*original.sources, *original.files.values()]))
    copy = shutil.copytree(root if root.is_dir() else root.parent, tmp_path / "src")
    moved = {path: copy / path.relative_to(root) for path in [*original.sources, *original.files.values()]}
    layout = Layout([moved[p] for p in original.sources], dict(original.options), {}, {})
    layout.options |= {key: moved[v] for key, v in original.options.items() if isinstance(v, Path)}
    layout.files = {key: moved[path] for key, path in original.files.items()}
    file, key = break_one(chooser, layout, kind, steps_back=name == "video_llava")

    with pytest.raises(CheckpointError, match=re.escape(key.removeprefix("base_model.model.").split(".lora_")[0])):
        convert(layout.sources, tmp_path / "out", **layout.options)

    assert not (tmp_path / "out").exists(), file


def break_one(chooser: random.Random, layout: Layout, kind: str, *, steps_back: bool) -> tuple[Path, str]:
    """Damages one weight of one file on disk."""
    files = weight_files(layout)
    if steps_back and kind != "surplus":  # towers that a checkpoint replaces
        files = [file for file in files if "LanguageBind" not in str(file)]
    while True:
        file = chooser.choice(files)
        data, weights = tensors_of(file)
        dropped = ("inv_freq", "position_ids", "t5_proj", "depth", "text", "blocks.2.", "norm.weight", "post_layernorm")
        keys = [k for k in weights if not any(word in k for word in dropped) and not _in_a_dropped_block(k)]
        key = chooser.choice(keys)
        if layout.files.get("blip2") == file and key.startswith("ln_vision"):
            continue
        if damage(weights, kind, key):
            break
    if file.suffix == ".safetensors":
        save_file(weights, file)
    else:
        torch.save(data, file)
    index = file.parent / "pytorch_model.bin.index.json"
    if index.is_file():
        where = {k: f for k, f in json.loads(index.read_text())["weight_map"].items() if f != file.name}
        index.write_text(json.dumps({"weight_map": where | dict.fromkeys(weights, file.name)}))
    return file, key


def _in_a_dropped_block(key: str) -> bool:
    """The towers of CLIP and SigLIP run all blocks but the last, and BEATs files repeat one table."""
    return bool(
        re.search(r"(vision_model|_tower)\..*layers\.2\.|vision_model\.head|logit|layers\.1\..*relative_att", key)
    )


def test_a_flipped_bit_in_any_tensor_of_a_converted_folder_is_found(written, tmp_path: Path):
    layout = written("videollama2_mistral")
    convert(layout.sources, tmp_path / "out", **layout.options, shard_bytes=50_000)
    chooser = random.Random(0)
    for file in sorted((tmp_path / "out").glob("*.safetensors")):
        good = file.read_bytes()
        header = int.from_bytes(good[:8], "little")
        entries = {k: v for k, v in json.loads(good[8 : 8 + header]).items() if k != "__metadata__"}
        name, entry = chooser.choice(sorted(entries.items()))
        bad = bytearray(good)
        bad[8 + header + chooser.randrange(*entry["data_offsets"])] ^= 1 << chooser.randrange(8)
        file.write_bytes(bad)

        assert inspect([tmp_path / "out"]).problems == [f"{name} in {file.name} has other bytes than were written"]

        file.write_bytes(good)
    assert inspect([tmp_path / "out"]).ok


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "processor_config.json"])
def test_changed_settings_of_a_converted_folder_are_found(file: str, written, tmp_path: Path):
    layout = written("videollama2_mistral")
    convert(layout.sources, tmp_path / "out", **layout.options)
    path = tmp_path / "out" / file
    path.write_text(path.read_text() + " ")

    assert inspect([tmp_path / "out"]).problems == [f"{file} has other bytes than were written"]


def test_a_file_that_is_not_there_is_asked_for(written, tmp_path: Path):
    layout = written("videochat")
    rest = [path for path in layout.sources if path != layout.files["blip2"]]

    report = inspect(rest)
    with pytest.raises(CheckpointError, match=r"missing blip2_pretrained_flant5xxl\.pth"):
        convert(rest, tmp_path / "out", **layout.options)

    assert report.ok
    assert [name.split()[0] for name in report.missing] == ["blip2_pretrained_flant5xxl.pth"]


def test_a_delta_without_its_base_is_refused(written, tmp_path: Path):
    layout = written("delta")
    others = [path for name, path in layout.files.items() if name != "base"]

    report = inspect([layout.files["delta"]])
    with pytest.raises(CheckpointError, match=r"a delta.*LLaMA, as one more source"):
        convert(others, tmp_path / "out", **layout.options)

    assert report.parts[0].kind == "delta"


def test_the_type_of_stored_weights_can_be_chosen(written, tmp_path: Path):
    layout = written("videollama2_mistral")

    convert(layout.sources, tmp_path / "out", dtype=torch.bfloat16)

    assert {tensor.dtype for tensor in converted(tmp_path / "out").values()} == {torch.bfloat16}
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_a_value_too_large_for_float16_is_named(written, tmp_path: Path):
    folder = shutil.copytree(written("videollama2_mistral").sources[0], tmp_path / "src")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][3, 4] = 1e6
    save_file(weights, folder / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"lm_head\.weight has values too large for float16"):
        convert([folder], tmp_path / "out", dtype=torch.float16)


def test_a_folder_that_exists_is_left_alone(written, tmp_path: Path):
    (tmp_path / "out").mkdir()

    with pytest.raises(CheckpointError, match="exists already"):
        convert(written("videollama2_mistral").sources, tmp_path / "out")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["Ctrl-C", "disk"])
def test_an_interrupted_conversion_leaves_nothing(stop: BaseException, written, tmp_path: Path):
    def progress(done: int, total: int) -> None:
        if done > total // 2:
            raise stop

    with pytest.raises((KeyboardInterrupt, DiskError)):
        convert(written("videollama2_mistral").sources, tmp_path / "out", progress=progress)

    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from avllm.checkpoints.convert import convert
def progress(done, total):
    if done >= total * float(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
convert([sys.argv[1]], sys.argv[2], progress=progress)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("share", ["0.1", "1.0"])
def test_a_killed_conversion_leaves_no_folder_that_loads(share: str, written, tmp_path: Path):
    source = str(written("videollama2_mistral").sources[0])
    done = subprocess.run([sys.executable, "-c", KILLED, source, str(tmp_path / "out"), share], check=False)

    assert done.returncode == -signal.SIGKILL
    for folder in tmp_path.iterdir():
        with pytest.raises(CheckpointError):
            avllm.load(folder)
    convert([source], tmp_path / "out")  # and what it left is in nobody's way
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["video_llama", "videochat", "video_llava", "videollama2_mistral"])
def test_the_commands_convert_inspect_and_ask_work_together(name: str, written, tmp_path: Path, capsys):
    layout = written(name)
    options = [text for key, value in layout.options.items() for text in (f"--{key}", str(value))]
    clip = next((Path(avllm.__file__).parent / "nano" / "examples").glob("*.mp4"))

    assert main(["convert", *map(str, layout.sources), "--out", str(tmp_path / "out"), *options]) == 0
    assert main(["inspect", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert report["complete"]
    assert main(["ask", str(clip), "What is this?", "--model", str(tmp_path / "out"), "--max-new-tokens", "2"]) == 0


def test_what_keys_leave_open_is_told_and_an_override_settles_it(written, tmp_path: Path, capsys):
    layout = written("video_llama")
    given = [*map(str, layout.sources), "--system", str(layout.options["system"])]

    assert main(["inspect", *given]) == 0
    assert "for another Vicuna add prompt=vicuna" in capsys.readouterr().out
    assert main(["convert", "prompt=vicuna", *given, "--out", str(tmp_path / "out")]) == 0
    assert "add prompt" not in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["system"]["prompt"] == "vicuna"
    assert main(["inspect", "promt=vicuna", *given]) == 1
    assert main(["inspect", "prompt=vicuna"]) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [("videollama2_7b", "connector STC: .*padding=0"), ("videollama2_1_7b_16f", r"connector STC v3\.5: .*padding=1")],
)
def test_stc_without_a_configuration_is_told_to_be_a_guess(name: str, told: str):
    (note,) = equal_in_keys(System.from_yaml(name), [])

    assert re.match(told, note)
    assert not equal_in_keys(System.from_yaml("video_llava_7b"), [])


def test_names_of_files_and_folders_do_not_count(written, tmp_path: Path):
    layout = written("video_llama")
    sources = []
    for number, path in enumerate(layout.files.values()):
        copy = tmp_path / f"{number}.{'d' if path.is_dir() else 'bin'}"
        sources.append(shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy))

    convert(sources, tmp_path / "out", **layout.options)

    assert converted(tmp_path / "out").keys() == layout.state.keys()


@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_a_malicious_file_is_refused_in_one_line(command: str, tmp_path: Path, capsys):
    path, canary = tmp_path / "evil.pth", tmp_path / "canary"
    evil_zip(path, canary)

    code = main([command, str(path), *(["--out", str(tmp_path / "out")] if command == "convert" else [])])

    message = capsys.readouterr().err
    assert code == 1
    assert message.count("\n") == 1
    assert "is not run to find out" in message
    assert sorted(tmp_path.iterdir()) == [path]


def test_parts_of_two_systems_are_not_mixed(written, tmp_path: Path):
    sources = [written("video_llama").files["vl"], written("videollama2_mistral").sources[0]]

    with pytest.raises(CheckpointError, match="different systems"):
        convert(sources, tmp_path / "out")


def test_weights_without_decoder_are_told_what_they_are(written):
    report = inspect([written("videollama2_base").files["mm_projector"]])

    assert report.system == "videollama2"
    assert [part.kind for part in report.parts] == ["projector"]
    assert any("CLIP or SigLIP" in file for file in report.missing)
    assert any("language model" in file for file in report.missing)
