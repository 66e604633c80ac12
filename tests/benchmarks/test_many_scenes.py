"""benchmarks/many_scenes.py: encoders really pretrained and tested, a second run that only reads, and the page."""

import json
import subprocess
import sys
from pathlib import Path

import many_scenes_rows
import pretraining_page
import pytest

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "many_scenes.py"


def run(keep: Path, out: Path) -> dict[str, list[dict[str, object]]]:
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--keep", str(keep), "--json", str(out)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    report: dict[str, list[dict[str, object]]] = json.loads(out.read_text())
    return report


@pytest.mark.slow
def test_a_run_is_kept_and_a_second_one_measures_nothing_anew(tmp_path: Path) -> None:
    first = run(tmp_path / "keep", tmp_path / "first.json")
    assert first.keys() == {"machine", "config", "rows"}
    scenes = [row for row in first["rows"] if row["part"] == "scenes"]
    assert {row["place"] for row in scenes} == {"inside", "outside", "other sensor"}
    assert {row["readout"] for row in scenes} == set(many_scenes_rows.READOUTS)
    encoders = list((tmp_path / "keep").glob("encoders/*/encoder/model.safetensors"))
    assert len(encoders) == len(many_scenes_rows.QUICK.encoders)
    written = [file.stat().st_mtime_ns for file in encoders]
    assert run(tmp_path / "keep", tmp_path / "second.json")["rows"] == first["rows"]
    assert [file.stat().st_mtime_ns for file in encoders] == written


def test_means_are_over_all_draws_of_the_scenes_of_a_kind() -> None:
    same = {
        "part": "scenes", "objective": "contrast of parts", "pretraining_scenes": 3, "windows": 10, "place": "outside",
        "readout": "kernel head", "shots": 1, "random_oa_percent": 50.0,
    }  # fmt: skip
    one = {**same, "scene": "a", "oa_percent": 54.0, "gain_oa_percent": 4.0, "gains_by_draw": "[3.0, 5.0]"}
    two = {**same, "scene": "b", "oa_percent": 48.0, "gain_oa_percent": -2.0, "gains_by_draw": "[-1.0, -3.0]"}
    (mean,) = many_scenes_rows.mean_rows([one, two])
    assert (mean["scenes"], mean["ahead_scenes"], mean["gain_oa_percent"]) == (2, 1, 1.0)
    assert float(str(mean["lowest_gain_oa_percent"])) < -1.0 < 3.0 < float(str(mean["highest_gain_oa_percent"]))


def test_the_page_is_what_its_figures_give() -> None:
    assert pretraining_page.PAGE.read_text() == pretraining_page.page()
