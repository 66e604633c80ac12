"""benchmarks/names_alone.py: names tell more than shuffled names, and the contract's JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "names_alone.py"


@pytest.mark.slow
def test_names_tell_more_than_shuffled_names_on_a_generated_scene(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"DIFFCLIP_DATA": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    (row,) = report["rows"]
    assert row["scene"] == "synthetic (generated)"
    assert row["oa_percent"] > 2 * row["shuffled_oa_percent"]
