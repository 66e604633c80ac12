"""benchmarks/scaling.py: real worker groups, the contract's JSON, memory by the formula, and a labelled projection."""

import json
import subprocess
import sys
from pathlib import Path

import projection
import pytest
import scaling
import scaling_rows
from cost_model import Link
from scaling_probe import Probe, StageProbe

from diffclip_dist.cli.commandline import run_command
from diffclip_dist.data.schema import ModalitySchema

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
    assert rows[0]["predicted_communication_percent"] == 0.0
    for row in rows:
        assert 0.0 <= row["communication_percent"] <= 100.0
        assert row["predicted_step_s"] > 0.0
    assert rows[1]["communication_percent"] > 0.0


def test_efficiency_is_what_a_worker_keeps_of_its_rate_alone() -> None:
    def probe(workers: int, *step_s: float) -> Probe:
        stage = StageProbe(1, step_s, wait_s=(0.1,) * len(step_s), communication_share=0.25, traffic=())
        links = dict.fromkeys(("all_reduce", "all_gather"), Link(bytes_per_s=1e9, call_s=0.0))
        return Probe(workers, (1.0,), (0.1,), links, (stage,), held={}, held_parameters=0)

    sample = scaling_rows.Sample((ModalitySchema("hsi", 4),), bytes=10.0)
    alone, both = scaling_rows.scaling_rows([probe(1, 2.0, 1.0, 4.0), probe(2, 4.0, 6.0, 5.0)], sample, windows=40)
    assert (alone["efficiency_percent"], alone["samples_per_s_per_worker"]) == (100.0, 20.0)
    assert (both["efficiency_percent"], both["samples_per_s_per_worker"]) == (40.0, 8.0)
    assert (both["communication_percent"], both["data_wait_percent"]) == (25.0, pytest.approx(2.0))
    turns = [scaling_rows.pooled([probe(1, 1.0), probe(1, 2.0, 1.0, 4.0)]), scaling_rows.pooled([probe(2, 2.5)])]
    alone, both = scaling_rows.scaling_rows(turns, sample, windows=40)
    assert (alone["step_s"], both["efficiency_percent"]) == (1.5, 60.0)  # the median over all turns


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
        (preset, gpus) for preset, _ in projection.Assumptions().utilisation for gpus in projection.GPUS
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
