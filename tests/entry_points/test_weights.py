"""Every entry point for model folders reads their settings up to one size, and what is larger not at all."""

import shutil

import pytest

from avllm.checkpoints.load import find_model
from avllm.checkpoints.sources import MAX_JSON_BYTES
from avllm.errors import AvllmError
from avllm.model import untrusted
from tests.entry_points.weights import ENTRIES


def test_there_is_one_limit():
    assert untrusted.MAX_BYTES == MAX_JSON_BYTES


CASES = [(entry, more) for entry in ENTRIES for more in ((0, 1) if entry.takes_whole else (1,))]


@pytest.mark.parametrize(
    ("entry", "more"), CASES, ids=[f"{entry.name}-{'over' if more else 'under'}" for entry, more in CASES]
)
def test_a_config_of_a_byte_too_many_is_refused(entry, more, tmp_path):
    model, out = shutil.copytree(find_model("nano"), tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    path = model / "config.json"
    content = path.read_bytes()
    path.write_bytes(content + b" " * (MAX_JSON_BYTES + more - len(content)))
    try:
        told = entry.use(model, out)
    except AvllmError as error:
        told = str(error)

    told = told if isinstance(told, str) else ""
    assert (f"at most {MAX_JSON_BYTES}" in told) == bool(more), told
