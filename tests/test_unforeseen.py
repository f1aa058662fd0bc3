"""A fault that nobody foresaw is one line with the releases that matter; its traceback is for those who ask for it."""

import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from avllm.cli import main
from avllm.errors import DataError, InternalError, in_one_line, own_message

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "avllm" / "nano" / "examples" / "rocket.mp4"
LINE = re.compile(r"avllm \w+: \w+: .+\(avllm \S+, Python \S+, torch \S+, transformers \S+, av \S+, pillow \S+\)")
# In a module of its own, as a process that is spawned imports it anew and so meets the same fault.
FAULT = """
import sys
import avllm.{module} as module

def fault(*args, **options):
    raise {error}

module.{name} = fault
if __name__ == "__main__":
    from avllm.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def avllm(tmp_path):
    """Runs a command in which one function is broken."""

    def run(broken, error, *args):
        module, _, name = broken.rpartition(".")
        script = tmp_path / "broken.py"
        script.write_text(FAULT.format(module=module, name=name, error=error), encoding="utf-8")
        command = [sys.executable, str(script), *map(str, args)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=None, check=False)

    return run


def test_one_line_without_a_traceback(avllm):
    done = avllm("chat.ask.ask", "KeyError('past_key_values')", "ask", CLIP, "What?")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert LINE.fullmatch(done.stderr.strip().removesuffix("; --verbose shows where")), done.stderr
    assert "KeyError: 'past_key_values'" in done.stderr
    assert done.stderr.endswith("; --verbose shows where\n")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_verbose_shows_where_wherever_it_stands(avllm, place):
    args = ["probe", CLIP, "--json"]
    args.insert(place, "--verbose")
    done = avllm("media.probe", "ZeroDivisionError('a slip')", *args)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in fault" in done.stderr
    assert LINE.fullmatch(done.stderr.strip().splitlines()[-1])


def test_in_a_process_of_a_build(avllm, tmp_path):
    out = tmp_path / "built"
    done = avllm("nano.decoder.train_decoder", "AttributeError('float8')", "nano", "build", "--out", out)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "AttributeError: float8 (avllm " in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("avllm nano: words stopped")


def test_in_a_thread(monkeypatch, capsys):
    def command(_):
        thread = threading.Thread(target=lambda: [][1], name="sweeper")
        thread.start()
        thread.join()

    monkeypatch.setattr("avllm.cli.data._check", command)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    records = []
    monkeypatch.setattr(logging.getLogger(), "handlers", [_Kept(records)])
    assert main(["data", "check", "x"]) == 0
    assert [record.getMessage() for record in records] == ["the thread sweeper ended"]
    assert "Traceback" not in capsys.readouterr().err


class _Kept(logging.Handler):
    def __init__(self, records):
        super().__init__()
        self.emit = records.append


def _fails(item):
    raise item


@pytest.mark.parametrize("error", [DataError("a row\nof two lines"), KeyError("gone")])
def test_the_message_of_a_worker_of_a_dataloader_is_its_last_lines(error):
    with pytest.raises(type(error)) as caught:
        list(DataLoader([error], num_workers=1, collate_fn=lambda items: _fails(items[0])))
    assert "Traceback" in str(caught.value)
    assert own_message(caught.value) == ("a row of two lines" if isinstance(error, DataError) else "'gone'")


def test_the_root_of_a_chain_is_told_too():
    try:
        try:
            raise ModuleNotFoundError("No module named 'torch.distributed.hf_storage'")
        except ModuleNotFoundError as root:
            raise ImportError("Could not import module 'LlamaForCausalLM'") from root
    except ImportError as error:
        line = in_one_line(error)
    assert line.startswith(
        "ImportError: Could not import module 'LlamaForCausalLM', as of ModuleNotFoundError: No module named 'torch."
    )


def test_a_fault_keeps_its_line_and_its_traceback_on_the_way_to_another_process():
    import pickle

    try:
        raise TypeError("a slip")
    except TypeError as error:
        fault = pickle.loads(pickle.dumps(InternalError.of(error)))
    assert in_one_line(fault) == str(fault)
    assert str(fault).startswith("TypeError: a slip (avllm ")
    assert "test_unforeseen.py" in fault.__notes__[0]
