"""Logs of commands: plain or JSON, progress without carriage returns, and one line of cause at the end of a failure."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_study import command, write_small_scene

from diffclip_dist.cli.commandline import run_command
from diffclip_dist.cli.progress import progress
from diffclip_dist.log_lines import LogFormat, log, start_log
from diffclip_dist.train.monitor.progress import follow_metrics
from diffclip_dist.train.monitor.rank_log import RankFault, at_step, log_of_rank, rank_log, rank_log_file
from shards.errors import BadInput, FailedRun


@pytest.fixture(autouse=True)
def plain_again() -> object:
    """The form is the process's, and tests share one."""
    yield
    start_log("plain", "stdout")


def failing(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


def unexpected() -> int:
    return int(str({}["step"]))  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "status", "cause", "traced"),
    [
        (failing(BadInput("scene.yaml:\n no modalities")), 2, "error: scene.yaml: no modalities", False),
        (failing(FailedRun("run: lost")), 1, "failed: run: lost", False),
        (failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/map.tif")), 1,
         "failed: /x/map.tif: No space left on device", False),
        (failing(PermissionError(errno.EACCES, "Permission denied", "/x")), 1, "failed: /x: Permission denied", False),
        (failing(MemoryError()), 1, "failed: out of memory: MemoryError", False),
        (failing(RuntimeError("first\nadvice\nmore advice")), 1,
         "failed: RuntimeError: first (a fault of this program; its traceback is above)", True),
        (unexpected, 1, "failed: KeyError: 'step' (a fault of this program; its traceback is above)", True),
    ],
)  # fmt: skip
def test_a_failure_ends_with_one_line_of_cause(
    body: Callable[[], int], status: int, cause: str, traced: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(body) == status
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == cause
    assert (len(lines) > 1) == traced == ("Traceback" in lines[0])


def test_as_json_the_cause_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    start_log("json", "stderr", run="mine")
    assert run_command(failing(FailedRun("lost\nrank 1"))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said.pop("time")
    assert said == {"level": "error", "run": "mine", "kind": "failed", "message": "lost rank 1"}


def test_a_plain_line_has_time_run_rank_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    start_log("plain", "stdout", run="mine")
    log("saved", rank=3, step=40, bytes=7)
    (line,) = capsys.readouterr().out.splitlines()
    day, clock, rest = line.split(maxsplit=2)
    assert (len(day), len(clock)) == (10, 8)
    assert rest == "mine  rank 3  step 40  saved"


def test_on_a_terminal_a_plain_line_is_the_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start_log("plain", "stdout", run="mine")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    log("saved", step=40)
    assert capsys.readouterr().out == "saved\n"


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_where_there_is_no_terminal_progress_comes_in_whole_lines(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress(log_format, "pixels") as show:
        for done in range(0, 1001, 10):
            show("mapping", done, 1000, "part 1")
            now += 1.0
    written = capsys.readouterr()
    assert not written.out
    assert "\r" not in written.err
    lines = written.err.splitlines()
    assert 8 <= len(lines) <= 12
    if log_format == "json":
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        assert (first["task"], first["done"], first["total"], first["left_s"]) == ("mapping", 100, 1000, 90.0)
        assert (last["done"], last["left_s"]) == (1000, 0.0)
    else:
        assert lines[0].endswith("mapping 100/1,000 pixels (10%), part 1, 0:01:30 left")
        assert lines[-1].endswith("mapping 1,000/1,000 pixels (100%), part 1")


def test_commands_take_the_format(tmp_path: Path) -> None:
    scene = write_small_scene(tmp_path / "scene", "striped")
    built = command("shard.py", scene, "--out", tmp_path / "archive", "--log-format", "json")
    assert built.status == 0, built.errors
    last = json.loads(built.errors.splitlines()[-1])
    assert last["task"] == "striped"
    assert last["done"] == last["total"] > 0


def test_a_run_followed_without_a_terminal_says_run_step_and_lost_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"step": 5, "loss": 1.5, "samples_per_s": 9.0, "samples_per_s_per_worker": 9.0, "data_wait_fraction": 0.0,
               "mfu": 0.1, "probe": {"knn": 61.0, "linear": 70.0}}  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    (tmp_path / "faults.log").write_text("2026-01-01 00:00:00  lost rank 1: step 3: RuntimeError: gone\n")
    start_log("json", "stdout", run="mine")
    with follow_metrics(tmp_path, 10, log_format="json"):
        pass
    start, fault, step = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert start["message"] == "starting workers"
    assert (fault["level"], fault["lost_rank"], fault["message"]) == (
        "error", 1, "lost rank 1: step 3: RuntimeError: gone",
    )  # fmt: skip
    assert (step["run"], step["step"], step["steps"], step["loss"]) == ("mine", 5, 10, 1.5)
    assert step["probe"] == {"knn": 61.0, "linear": 70.0}


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_rank_keeps_its_traceback_and_raises_its_cause(tmp_path: Path, log_format: LogFormat) -> None:
    def run() -> None:
        with rank_log(tmp_path / "mine", 2, log_format):
            log_of_rank("begun")
            at_step(7)
            log_of_rank("checkpoint")
            raise RuntimeError("CUDA error: device-side assert\nCompile with TORCH_USE_CUDA_DSA")

    with pytest.raises(RankFault, match=r"^step 7: RuntimeError: CUDA error: device-side assert$"):
        run()
    text = rank_log_file(tmp_path / "mine", 2).read_text()
    if log_format == "json":
        begun, saved, fault = (json.loads(line) for line in text.splitlines())
        assert (begun["run"], begun["rank"], "step" in begun) == ("mine", 2, False)
        assert (saved["step"], saved["message"]) == (7, "checkpoint")
        assert fault["level"] == "error"
        assert "TORCH_USE_CUDA_DSA" in fault["traceback"]
    else:
        begun, saved, *trace = text.splitlines()
        assert begun.endswith("mine  rank 2  begun")
        assert saved.endswith("mine  rank 2  step 7  checkpoint")
        assert "Traceback" in trace[1]
        assert trace[-1] == "Compile with TORCH_USE_CUDA_DSA"
