"""benchmarks/scaling.py: real worker groups, the contract's JSON, memory by the formula, and a labelled projection."""

import json
import subprocess
import sys
from pathlib import Path

import projection
import pytest
import scaling
import scaling_rows

from diffclip_dist.cli.commandline import run_command
from diffclip_dist.model.presets import PRESETS

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict], Path]:
    """What `--quick --project` printed, its rows, and its picture."""
    folder = tmp_path_factory.mktemp("scaling")
    out, picture = folder / "figures.json", folder / "scaling.png"
    run = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out), "--project", str(picture)],
        capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    return run.stdout, report["rows"], picture


def rows_of(rows: list[dict], measurement: str) -> list[dict]:
    return [row for row in rows if row["measurement"] == measurement]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weak_scaling_is_measured_beside_its_prediction(ended: tuple[str, list[dict], Path]) -> None:
    rows = rows_of(ended[1], "weak scaling")
    assert [row["workers"] for row in rows] == [1, 2]
    assert rows[0]["efficiency_percent"] == pytest.approx(100.0)
    assert rows[0]["predicted_communication_percent"] == 0.0
    for row in rows:
        assert row["samples_per_s_per_worker"] == pytest.approx(row["windows_per_worker"] / row["step_s"])
        assert 0.0 <= row["communication_percent"] <= 100.0
        assert row["predicted_step_s"] > 0.0
    assert rows[1]["efficiency_percent"] == pytest.approx(100.0 * rows[0]["step_s"] / rows[1]["step_s"])
    assert rows[1]["communication_percent"] > 0.0


@pytest.mark.slow
def test_the_model_counts_the_bytes_that_deepspeed_sends(ended: tuple[str, list[dict], Path]) -> None:
    rows = rows_of(ended[1], "collectives")
    assert {row["kind"] for row in rows} == {"all_reduce", "all_gather"}
    for row in rows:
        assert row["modelled_mb"] == pytest.approx(row["logged_mb"], rel=0.02)


@pytest.mark.slow
def test_a_worker_holds_what_the_formula_says(ended: tuple[str, list[dict], Path]) -> None:
    rows = rows_of(ended[1], "memory of a worker")
    (sharded,) = rows
    assert (sharded["zero_stage"], sharded["workers"]) == ("3", 2)
    for name in ("parameters", "gradients", "optimizer"):
        assert sharded[f"{name}_mib"] == pytest.approx(sharded[f"{name}_formula_mib"], rel=0.1)


@pytest.mark.slow
def test_the_projection_covers_the_presets_and_says_what_it_is(ended: tuple[str, list[dict], Path]) -> None:
    out, rows, picture = ended
    projected = rows_of(rows, "projection, not measured")
    assert {(row["preset"], row["gpus"]) for row in projected} == {
        (preset, gpus) for preset in PRESETS for gpus in projection.GPUS
    }
    assert (projection.GPUS[0], projection.GPUS[-1]) == (8, 1024)
    assert all(0.0 < row["efficiency_percent"] <= 100.0 for row in projected)
    assert "Projected, not measured" in out
    assert "assumed: " in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--json", "--project"])
def test_a_missing_folder_is_refused_before_anything_runs(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(scaling_rows, "probe", lambda plan: pytest.fail(f"ran {plan}"))
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--quick", option, str(tmp_path / "absent" / "file")])
    assert run_command(scaling.main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line
