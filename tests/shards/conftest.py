"""The shard command run as a user runs it, and one plain scene."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_scenes import Outcome, ShardCommand, pixels, write_scene

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def shard_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ShardCommand:
    """Runs launch/shard.py with these arguments, in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["shard.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / "launch" / "shard.py"), run_name="__main__")
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def plain_scene(tmp_path: Path) -> Path:
    """A scene of two modalities and labels in .npy files, 20x30 pixels."""
    folder = tmp_path / "plain"
    folder.mkdir()
    np.save(folder / "hsi.npy", pixels(20, 30, 5, "int16"))
    np.save(folder / "lidar.npy", pixels(20, 30, 1, "float32", seed=1)[..., 0])
    labels = np.zeros((20, 30), np.uint8)
    labels[2:6, 3:9], labels[10:15, 20:28] = 1, 3
    np.save(folder / "gt.npy", labels)
    classes = {"files": "gt.npy", "classes": {1: "grass", 3: "roof"}, "descriptions": {1: "short green lawn"}}
    return write_scene(folder, {"hsi": {"files": "hsi.npy"}, "lidar": {"files": "lidar.npy"}}, classes)


@pytest.fixture
def shared_case(tmp_path: Path) -> Callable[[str], Path]:
    """Writes one of the shared cases by its name; gives its folder. The test skips where the cases are absent."""
    cases = Path(os.environ.get("DIFFCLIP_CASES", REPOSITORY.parent / "shared" / "cases"))
    if not cases.is_dir():
        pytest.skip(f"the shared cases are not at {cases}; set DIFFCLIP_CASES to their folder")

    def write(name: str) -> Path:
        folder = tmp_path / name
        subprocess.run([sys.executable, cases / name / "make.py", folder], check=True)
        return folder

    return write
