"""The README's lines for Python, run as they stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_study import HEIGHT, WIDTH, write_small_scene

README = Path(__file__).resolve().parents[2] / "README.md"


def readme_lines() -> str:
    found = re.search(r"## From Python.*?```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_the_readmes_lines_go_from_files_to_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_small_scene(tmp_path / "potsdam", "potsdam", labels=False)
    truth = 1 + np.arange(WIDTH) // 5 % 3
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[::15, :15] = truth[:15]
    np.save(folder / "labels.npy", labels)
    monkeypatch.chdir(folder)
    assert len([line for line in readme_lines().splitlines() if line and not line.startswith("import")]) <= 10
    held: dict[str, np.ndarray] = {}
    exec(compile(readme_lines(), str(README), "exec"), held)  # noqa: S102  our own lines
    assert np.mean(held["class_map"] == truth) > 0.8
    assert held["probabilities"].shape == (HEIGHT, WIDTH, 3)
    with rasterio.open("map.tif") as read:
        assert np.array_equal(read.read(1), held["class_map"])
        assert read.tags()["CLASS_2"] == "pavement"
