"""The notebooks run as they are committed: without outputs, from an empty folder, with pictures at the end."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from pages import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_says_that_its_scene_is_generated(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "generated" in notebook.cells[0].source


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """What a notebook prints, and how many pictures it shows."""
    monkeypatch.setenv("TMPDIR", str(folder))
    notebook: Any = nbformat.read(DOCS / "notebooks" / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_files_and_polygons_become_a_map_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, pictures = run("geotiffs-to-map.ipynb", tmp_path, monkeypatch)
    assert pictures == 2
    right = re.search(r"right: ([\d.]+) % of [\d,]+ pixels \(generated\)", printed)
    assert right is not None
    assert float(right[1]) > 90
    assert "EPSG:32622" in printed
    (made,) = tmp_path.glob("valley-*")
    assert (made / "valley.tif").is_file()
    assert (made / "valley.png").is_file()


@pytest.mark.slow
def test_an_archive_is_learned_from_in_a_loop_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, pictures = run("own-pytorch-loop.ipynb", tmp_path, monkeypatch)
    assert pictures == 1
    losses = re.search(r"loss ([\d.]+) at first, ([\d.]+) at last", printed)
    assert losses is not None
    assert float(losses[2]) < float(losses[1]) / 4
