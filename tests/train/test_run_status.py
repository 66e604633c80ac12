"""``diffclip status``: how far, how fast, how well, what is saved, and the time left."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from diffclip_dist.cli.main import main
from diffclip_dist.train.monitor.run_status import run_status
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.run_files import CONFIG_FILE, FAULTS_FILE, METRICS_FILE, STOPPED_FILE
from shards.errors import BadInput

CONFIG = replace(PretrainConfig(), steps=100, global_batch=200, log_every=10)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as a run leaves it after 40 steps of 2 seconds; written by hand, no run was made."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(replace(CONFIG, run_dir=str(folder)).to_yaml())
    lines = [
        {"step": step, "loss": 2.0 - step / 100, "samples_per_s": 100.0, "samples_per_s_per_worker": 50.0,
         "data_wait_fraction": 0.02, "mfu": 0.3}
        for step in range(10, 50, 10)
    ]  # fmt: skip
    (folder / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 50, "lo')
    return folder


def status(monkeypatch: pytest.MonkeyPatch, run: Path) -> int:
    monkeypatch.setattr("sys.argv", ["diffclip", "status", str(run)])
    return main()


def test_a_run_that_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(monkeypatch, run) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["phase"] == "running"
    assert said["steps"] == "40 of 100 (40%)"  # the line that is not whole yet does not count
    assert said["loss"] == "1.6000"
    assert said["speed"].startswith("100 samples/s (50 a worker), data wait 2%, MFU 30%")
    assert said["time"] == "left   about 0:02:00"  # 60 steps of 2 s
    assert said["checkpoint"] == "none"


def test_the_newest_probe_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / METRICS_FILE).read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "probe": {"knn": 61.24, "linear": 70.0}})
    (run / METRICS_FILE).write_text("".join(f"{line}\n" for line in lines[:-1]))
    assert status(monkeypatch, run) == 0
    assert "probe       kNN 61.2 %, linear 70.0 % at step 20" in capsys.readouterr().out


def test_a_run_that_has_said_nothing_for_long_has_a_problem(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(run / METRICS_FILE, (time.time() - 3600, time.time() - 3600))
    assert status(monkeypatch, run) == 1
    said = capsys.readouterr().out
    assert "silent" in said
    assert "nothing was logged for 1:00:0" in said
    assert "--resume" in said
    assert "left" not in said


def test_a_run_that_cannot_go_on_says_why(run: Path) -> None:
    (run / STOPPED_FILE).write_text("the loss of step 41 is nan\n")
    (run / FAULTS_FILE).write_text("2026-01-01 00:00:00  lost rank 1: killed\n")
    found = run_status(run)
    assert found.phase == "stopped"
    assert found.problems == ("it cannot go on: the loss of step 41 is nan",)
    assert found.faults == ("2026-01-01 00:00:00  lost rank 1: killed",)


def test_a_damaged_checkpoint_is_a_problem(run: Path) -> None:
    folder = run / "checkpoints" / "attempt-0001" / "step-00000040-abcdef00"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{")
    (problem,) = run_status(run).problems
    assert "step-00000040" in problem


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected a run's folder, with its config\.yaml"):
        run_status(tmp_path)
