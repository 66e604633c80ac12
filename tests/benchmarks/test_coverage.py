"""benchmarks/coverage.py: both ways really measured, and the contract's JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"


@pytest.mark.slow
def test_both_ways_are_measured_on_every_kind_of_cover(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "generated scenes" in ended.stdout
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    rows = report["rows"]
    covers = {(row["places"], row["covered_percent"], row["labels"]) for row in rows}
    assert {places for places, *_ in covers} == {"all", "random", "blocks"}
    assert {labels for *_, labels in covers} == {"everywhere", "covered part"}
    for row in rows:
        assert row["oa_adapted_percent"] - row["oa_alone_percent"] == pytest.approx(row["gain_percent"])
        assert row["lowest_gain_percent"] <= row["gain_percent"] <= row["highest_gain_percent"]
    few, most = (
        next(
            row["oa_alone_percent"]
            for row in rows
            if row["covered_percent"] == share and row["shots"] == 5 and row["labels"] == "everywhere"
        )
        for share in (10, 100)
    )
    assert most > few
