"""benchmarks/throughput.py: a real run, the contract's JSON, and figures worked out by hand."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import throughput
import throughput_rows

from diffclip_dist.cli.commandline import run_command
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "throughput.py"


@pytest.mark.slow
def test_a_row_is_a_real_run(generated_archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--archive", str(generated_archive), "--json", str(out)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    elapsed = time.perf_counter() - start
    assert ended.returncode == 0, ended.stderr
    assert "small (generated)" in ended.stdout
    assert "samples/s" in ended.stdout
    report = json.loads(out.read_text())
    assert report.keys() == {"machine", "config", "rows"}
    assert [(row["precision"], row["window_pixels"]) for row in report["rows"]] == [("float32", 11)]
    for row in report["rows"]:
        assert row["scenes"] == "small (generated)"
        assert row["repeats"] == throughput_rows.QUICK.repeats
        # the measured stretches took place within the command
        assert row["repeats"] * throughput_rows.QUICK.samples / row["samples_per_s"] < elapsed
        assert 0.0 <= row["data_wait_percent"] < 100.0
        assert row["mfu_percent"] > 0.0


def test_a_row_is_worked_out_from_a_line_of_the_runs_metrics() -> None:
    logged = {
        "samples_per_s": 300.0, "samples_per_s_per_worker": 100.0, "data_wait_fraction": 0.02, "mfu": 0.25,
        "memory_bytes": 3 * 2**20,
    }  # fmt: skip
    row = throughput_rows.figures(throughput_rows.Setup(workers=3), logged, flops=2_000_000_000)
    assert (row["samples_per_s"], row["samples_per_s_per_worker"], row["workers"]) == (300.0, 100.0, 3)
    assert (row["data_wait_percent"], row["mfu_percent"], row["memory_mib_per_worker"]) == (2.0, 25.0, 3.0)
    # 100 samples of 2 GFLOP a second are 200 GFLOP/s, a quarter of 800
    assert (row["model_gflop_per_sample"], row["matrix_gflop_per_s_per_worker"]) == (2.0, 800.0)


def test_the_published_configuration_comes_first_and_other_rows_change_one_thing() -> None:
    first, *others = throughput_rows.setups(bfloat16=True)
    assert (first.precision, first.micro_batch, first.window, first.workers) == ("float32", 128, 11, 1)
    for other in others:
        changed = [name for name, value in vars(other).items() if value != getattr(first, name)]
        assert len(changed) == 1, other
    assert all(setup.precision == "float32" for setup in throughput_rows.setups(bfloat16=False))
    assert {name for other in others for name in vars(other) if vars(other)[name] != vars(first)[name]} >= {
        "precision", "micro_batch", "window",
    }  # fmt: skip


def test_the_generated_scene_has_the_bands_of_the_published_one(tmp_path: Path) -> None:
    scenes, schemas = throughput_rows.described(throughput_rows.build_generated(tmp_path / "archive", 8))
    assert "(generated)" in scenes
    assert [schema.bands for schema in schemas] == [144, 1]


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--quick", *arguments])
    assert run_command(throughput.main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(throughput_rows, "pretrain", lambda config: pytest.fail(f"ran {config}"))
    narrow, mixed = tmp_path / "narrow", tmp_path / "mixed"
    spec = GeneratedSceneSpec(name="one", height=24, width=24, bands=4)
    build_archive([GeneratedScene(spec)], narrow, ArchiveSettings(tile_size=8, halo=2))
    other = GeneratedSceneSpec(name="two", height=24, width=24, bands=5)
    build_archive([GeneratedScene(spec), GeneratedScene(other)], mixed, ArchiveSettings(tile_size=8))
    assert "nowhere" in refusal(monkeypatch, capsys, "--archive", str(tmp_path / "nowhere"))
    assert "model.window: expected at most 5" in refusal(monkeypatch, capsys, "--archive", str(narrow))
    assert "one combination of modalities, found 2" in refusal(monkeypatch, capsys, "--archive", str(mixed))
    assert "--json" in refusal(monkeypatch, capsys, "--json", str(tmp_path / "absent" / "figures.json"))
