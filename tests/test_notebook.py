"""The notebook runs from its first cell to its last, and says what it says there."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "quick_start.ipynb"


def texts(notebook):
    """What each cell printed."""
    return [
        [output["text"] for output in cell.get("outputs", []) if output.get("name") == "stdout"]
        for cell in notebook.cells
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the notebook's own libraries
def test_the_notebook_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    shown = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(shown)
    run = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(run, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for cell in run.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
    assert any("honest Dice" in text for printed in texts(run) for text in printed)
    assert [bool(printed) for printed in texts(run)] == [bool(printed) for printed in texts(shown)]
    assert texts(run)[2] == texts(shown)[2]
