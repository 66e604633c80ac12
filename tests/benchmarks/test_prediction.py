"""benchmarks/prediction.py: maps really made, the contract's JSON, and figures that agree with each other."""

import json
import subprocess
import sys
from pathlib import Path

import prediction_rows
import pytest

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "prediction.py"


@pytest.mark.slow
def test_each_stride_is_measured_on_the_same_scene(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "generated scene" in ended.stdout
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    strides = [row for row in report["rows"] if row["part"] == "strides"]
    assert [row["stride_pixels"] for row in strides] == list(prediction_rows.QUICK.strides)
    assert strides[0]["same_class_as_first_percent"] == 100.0
    for row in strides:
        windows = (-(-prediction_rows.QUICK.side // row["stride_pixels"])) ** 2
        assert row["pixels_per_s"] / row["windows_per_s"] == pytest.approx(prediction_rows.QUICK.side**2 / windows)
    square, tall = (row for row in report["rows"] if row["part"] == "heights")
    assert tall["height_pixels"] == 2 * square["height_pixels"]
    (size,) = (row for row in report["rows"] if row["part"] == "sizes")
    pixels = size["height_pixels"] * size["width_pixels"]
    assert pixels == pytest.approx(prediction_rows.QUICK.megapixels[0] * 1e6, rel=0.01)
    assert size["pixels_per_s"] == pytest.approx(pixels / size["seconds"])
    assert size["peak_memory_mib"] > 100
