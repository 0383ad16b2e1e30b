"""The tutorial's notebook runs from its first cell to its last, and prints what it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shown_output import matches

NOTEBOOK = Path(__file__).parents[2] / "docs/tutorial/from-requests-to-rollback.ipynb"
VARIES = "varies"
"""The tag of a cell that may print other words where training rounds otherwise."""
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=900, resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, "ran.ipynb")
"""


def cells_of(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    streams = [one for one in cell["outputs"] if one.get("name") == "stdout"]
    return "".join("".join(one["text"]) for one in streams)


def test_every_cell_runs_and_prints_what_the_notebook_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-c", RUN, str(NOTEBOOK)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for shown, real in zip(cells_of(NOTEBOOK), cells_of(tmp_path / "ran.ipynb"), strict=True):
        if VARIES in shown["metadata"].get("tags", []):
            assert printed(real)
        else:
            assert matches(printed(shown), printed(real), any_number=True), printed(real)


def test_only_what_cells_print_is_kept() -> None:
    for cell in cells_of(NOTEBOOK):
        assert cell["execution_count"] is None
        assert {one.get("name") for one in cell["outputs"]} <= {"stdout"}
        assert str(Path.home()) not in json.dumps(cell)
