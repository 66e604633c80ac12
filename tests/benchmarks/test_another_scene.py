"""benchmarks/another_scene.py: maps really made, by both ways, and the contract's JSON."""

import json
import subprocess
import sys
from pathlib import Path

import another_scene_rows
import pytest

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "another_scene.py"


@pytest.mark.slow
def test_both_ways_are_measured_on_the_same_pairs(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "generated scenes" in ended.stdout
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    different, similar, turned = report["rows"]
    assert [row["pairs"] for row in report["rows"]] == ["different", "similar", "turned round"]
    assert turned["share_that_differs_percent"] == pytest.approx(60, abs=15)
    assert different["share_that_differs_percent"] > similar["share_that_differs_percent"]
    for row in report["rows"]:
        assert row["places"] == another_scene_rows.QUICK.pairs
        assert row["oa_percent"] - row["oa_kept_percent"] == pytest.approx(row["oa_gain_percent"])
