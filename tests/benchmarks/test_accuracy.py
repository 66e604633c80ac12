"""benchmarks/accuracy.py: the contract's JSON, a plot, finished jobs that are not done again, honest comparisons."""

import json
import subprocess
import sys
from pathlib import Path

import accuracy_rows
import pytest
from accuracy_jobs import Measurement

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy.py"


def run(keep: Path, out: Path) -> dict[str, list[dict[str, object]]]:
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--keep", str(keep), "--json", str(out)],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    read: dict[str, list[dict[str, object]]] = json.loads(out.read_text())
    return read


@pytest.mark.slow
def test_a_quick_run_measures_every_kind_of_row_and_does_no_job_twice(tmp_path: Path) -> None:
    report = run(tmp_path / "keep", tmp_path / "first.json")
    assert report.keys() == {"machine", "config", "rows"}
    figures = [row for row in report["rows"] if row["part"] == "figures"]
    rows = {row["classifier"] for row in figures}
    compared = {(row["classifier"], row["against"]) for row in report["rows"] if row["part"] == "gains"}
    assert compared == {pair for pair in accuracy_rows.COMPARED if "published" not in pair[0]}
    assert rows >= {"SVM, spectra", "LDA, all modalities", "default, linear probe", "default, kernel head, hsi alone"}
    assert all(row["generated"] for row in figures)
    assert (tmp_path / "keep" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    jobs = sorted((tmp_path / "keep" / "jobs").iterdir())
    written = [job.stat().st_mtime_ns for job in jobs]
    assert run(tmp_path / "keep", tmp_path / "second.json")["rows"] == report["rows"]
    assert [job.stat().st_mtime_ns for job in jobs] == written


def test_a_comparison_is_paired_by_seed() -> None:
    def of(row: str, *oa: float) -> Measurement:
        return Measurement(row, "synthetic", 2, oa, oa, (0.1,) * len(oa))

    better = of("default, kernel head", 50.0, 61.0, 72.0, 83.0)
    others = [of("random weights, kernel head", 40.0, 50.0, 60.0, 70.0), of("SVM, spectra", 10.0, 90.0, 10.0, 90.0)]
    rows = accuracy_rows.gain_rows([better, *others, of("LDA, spectra", 9.0, 9.0, 9.0, 9.0)])
    assert [row["against"] for row in rows] == ["random weights, kernel head", accuracy_rows.BEST_CLASSICAL]
    assert (rows[0]["gain_oa_percent"], rows[0]["sign_test_fraction"]) == (11.5, 0.125)
    assert rows[1]["against_row"] == "SVM, spectra"


def test_gains_are_averaged_over_scenes_and_never_over_shots() -> None:
    gains = [
        {"classifier": "ours", "against": "theirs", "scene": scene, "shots": shots, "gain_oa_percent": gain}
        for scene, shots, gain in (("one", 1, 4.0), ("two", 1, 8.0), ("one", 2, 3.0))
    ]
    rows = [(row["shots"], row["scenes"], row["gain_oa_percent"]) for row in accuracy_rows.mean_gain_rows(gains)]
    assert rows == [(1, 2, 6.0), (2, 1, 3.0)]


def test_fewer_labels_are_held_against_ten_times_as_many() -> None:
    def of(row: str, shots: int, oa: float) -> Measurement:
        return Measurement(row, "synthetic", shots, (oa, oa), (oa, oa), (0.1, 0.1))

    ours = [of("default, kernel head", shots, 60.0) for shots in (1, 2)]
    rows = accuracy_rows.fewer_label_rows([*ours, of("SVM, spectra", 10, 55.0), of("1-NN, spectra", 10, 65.0)])
    assert [(row["shots"], row["classical"], row["classical_oa_percent"]) for row in rows] == [
        (1, "1-NN, spectra", 65.0)
    ]


def test_the_important_rows_come_first_and_ablations_change_one_thing() -> None:
    jobs = accuracy_rows.job_list(("synthetic", "synthetic-hard"), quick=False)
    assert [job.label for job in jobs[:2]] == ["default", "default"]
    for job in (job for job in jobs if job.label.startswith("ablation: window")):
        changed = [name for name, value in vars(job.model).items() if value != getattr(accuracy_rows.DEFAULT, name)]
        assert changed == ["window"] or job.model == accuracy_rows.DEFAULT
