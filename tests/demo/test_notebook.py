"""The notebook runs from its first cell to its last, and is stored with what it printed."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook needs avllm[notebook]")
nbclient = pytest.importorskip("nbclient", reason="the notebook needs avllm[notebook]")
NOTEBOOK = Path(__file__).parents[2] / "demo.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_is_stored_with_its_outputs_and_without_an_error():
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error"]
    assert "/tmp" not in str(outputs)


@pytest.mark.slow
def test_runs_and_answers_right(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs = []
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(NOTEBOOK.parent))
    said = "".join(output.text for cell in code_cells(notebook) for output in cell.outputs if "text" in output)
    pairs = [line.split("truth:") for line in said.splitlines() if "truth:" in line]
    right = [answer.strip().endswith(truth.strip()) for answer, truth in pairs]
    assert sum(right) >= 0.6 * len(right) > 0
