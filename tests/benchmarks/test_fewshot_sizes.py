"""benchmarks/fewshot_sizes.py: studies really run, and the contract's JSON."""

import json
import subprocess
import sys
from pathlib import Path

import fewshot_size_rows
import pytest

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "fewshot_sizes.py"


@pytest.mark.slow
def test_each_scene_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out)], capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    assert "generated scenes" in ended.stdout
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    small, repeated = report["rows"]
    assert small["height_pixels"] == fewshot_size_rows.QUICK.scene.height
    pixels = repeated["height_pixels"] * repeated["width_pixels"]
    assert pixels == pytest.approx(fewshot_size_rows.QUICK.megapixels[0] * 1e6, rel=0.01)
    for row in report["rows"]:
        assert row["models"] == 2 * fewshot_size_rows.QUICK.seeds
        assert row["mapped"]
        assert row["cpu_seconds"] > 0
        assert row["peak_memory_mib"] > 100
