"""The notebook runs from its first cell to its last, and is kept with what it showed."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "quickstart.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_it_is_kept_with_its_outputs_and_no_error():
    notebook = nbformat.read(NOTEBOOK, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    shown = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert {"text/html", "image/png", "image/gif"} <= shown
    assert NOTEBOOK.stat().st_size < 1_500_000


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:  # the same, shorter
        cell.source = cell.source.replace("FRAMES = 6000", "FRAMES = 600").replace("--episodes 100", "--episodes 4")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")]))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert (tmp_path / "play.gif").exists()
    assert any("text/html" in output.get("data", {}) for output in outputs(notebook))
