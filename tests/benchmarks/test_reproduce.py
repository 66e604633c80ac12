"""benchmarks/reproduce.py on small generated stand-ins, through the code that the paper's sets go through."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reproduce_rows
from accuracy_jobs import Measurement

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce.py"
ROWS, COLS = 24, 30
STAND_IN = """
name: {name}
modalities:
  hsi: {{files: hsi.npy, wavelengths: [450, 550, 650, 850, 1600, 2200]}}
  lidar: {{files: height.npy, surface_height: true}}
labels:
  files: labels.npy
  ignore: [0]
  classes: {{1: healthy grass, 2: road, 3: water}}
"""
SPECTRA = np.array(
    [[0.03, 0.09, 0.04, 0.5, 0.2, 0.1], [0.12, 0.14, 0.16, 0.2, 0.25, 0.22], [0.06, 0.05, 0.03, 0.01, 0, 0]]
)


def stand_in(folder: Path, name: str, official: bool, seed: int) -> Path:
    """A generated scene in bands of three classes; its official maps are its left and its right half."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    truth = np.repeat(np.arange(1, 4), ROWS // 3)[:, None].repeat(COLS, axis=1)
    values = SPECTRA[truth - 1] + rng.normal(0, 0.02, (ROWS, COLS, 6))
    np.save(folder / "hsi.npy", np.maximum(values, 0.001).astype(np.float32))
    np.save(folder / "height.npy", rng.normal(0, 0.2, (ROWS, COLS)).astype(np.float32))
    np.save(folder / "labels.npy", truth.astype(np.uint8))
    text = STAND_IN.format(name=name)
    if official:
        left = np.arange(COLS) < COLS // 2
        np.save(folder / "train.npy", (truth * left).astype(np.uint8))
        np.save(folder / "test.npy", (truth * ~left).astype(np.uint8))
        text += "  split: {train: train.npy, test: test.npy}\n"
    (folder / "scene.yaml").write_text(text)
    return folder


def run(*words: object, timeout: int = 500) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COMMAND), *map(str, words)], capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_stand_ins_go_through_the_whole_protocol_and_are_called_so(tmp_path: Path) -> None:
    with_split, without = stand_in(tmp_path / "a", "a", True, 0), stand_in(tmp_path / "b", "b", False, 1)
    limits = (
        "--shots",
        "2,3",
        "--repeats",
        2,
        "--steps",
        2,
        "--epochs",
        2,
        "--windows",
        30,
        "--keep",
        tmp_path / "keep",
    )
    words = ("--scene", with_split, "--scene", without, *limits)
    ended = run(*words, "--json", tmp_path / "out.json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    figures = [row for row in report["rows"] if row["part"] == "figures"]
    settings = {row["scene"]: row["setting"] for row in figures}
    assert settings == {"a": "official", "b": "random"}
    classifiers = {"published", "default", "published, without pretraining", "default, without pretraining"}
    for scene in settings:
        for shots in (2, 3):
            here = {row["classifier"] for row in figures if (row["scene"], row["shots"]) == (scene, shots)}
            assert here == {*classifiers, reproduce_rows.ALIGNMENT}
    assert all("stand-in" in row["note"] for row in report["rows"])
    assert "stand-in" in ended.stdout
    assert "+10.65" in ended.stdout
    jobs = {job: job.stat().st_mtime_ns for job in (tmp_path / "keep" / "jobs").iterdir()}
    # another repeat of the same command measures nothing anew, and one job that is missing alone
    next(iter(jobs)).unlink()
    again = run(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(" of 20: ") == 1


def test_where_a_set_cannot_be_fetched_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a package that is not there, as on a machine without the extra
    (tmp_path / "rs_fusion_datasets.py").write_text("raise ImportError('none')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{COMMAND.parents[1]}")
    ended = run("--keep", tmp_path / "keep")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "diffclip-dist[public]" in ended.stderr
    (tmp_path / "rs_fusion_datasets.py").write_text("def fetch_houston2013():\n    raise OSError('no route to host')\n")
    ended = run("--keep", tmp_path / "keep")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "houston2013" in ended.stderr
    assert "--scene" in ended.stderr
    assert not (tmp_path / "keep" / "archives" / "houston2013").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--shots", "two"), "--shots"),
        (("--presets", "paper"), "--presets"),
        (("--repeats", "1"), "--repeats"),
        (("--text", "clip"), "--text"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(words: tuple[str, str], named: str) -> None:
    ended = run(*words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {named}")


def test_differences_are_paired_and_averaged_over_the_sets() -> None:
    def of(row: str, scene: str, *oa: float) -> Measurement:
        return Measurement(row, scene, "random", "unlabelled pixels", 2, oa, oa, (0.1,) * len(oa))

    found = [
        of("default", "a", 70.0, 80.0), of(reproduce_rows.ALIGNMENT, "a", 60.0, 68.0),
        of("default", "b", 50.0, 50.0), of(reproduce_rows.ALIGNMENT, "b", 49.0, 47.0),
    ]  # fmt: skip
    rows = reproduce_rows.difference_rows(found, {"a": "generated", "b": "generated"}, ("default",))
    assert {row["scene"]: row["oa_gain_percent"] for row in rows} == pytest.approx({"a": 11, "b": 2, "all scenes": 6.5})
