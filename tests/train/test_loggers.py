"""MLflow and W&B get what metrics.jsonl has, once, and neither keys nor places; a silent service does not end a run."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_runs import Refused

from diffclip_dist.log_lines import start_log
from diffclip_dist.train.monitor import loggers
from diffclip_dist.train.monitor.loggers import send_metrics
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from shards.errors import BadInput

SECRET = "-".join(["key", "that", "nobody", "may", "see"])


def config(run_dir: Path, logger: str) -> PretrainConfig:
    given = {"run_dir": str(run_dir), "steps": 300, "archive": f"s3://user:{SECRET}@store/archive"}
    return resolve_config(None, given, [f"logger={logger}", f"storage_path=s3://store/run?token={SECRET}"])


def write_metrics(run_dir: Path, first: int, last: int) -> None:
    with (run_dir / "metrics.jsonl").open("a") as metrics:
        for step in range(first, last + 1):
            line: dict[str, Any] = {"step": step, "loss": 1.0 / step, "grad_norm": None, "mfu": 0.25}
            line["loss_by_modality"] = {"masked/hsi @ 2m": 0.5}
            if step % 100 == 0:
                line["probe"] = {"knn": step / 10, "linear": 80.0}
            metrics.write(json.dumps(line) + "\n")


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loggers, "_EVERY_S", 0.05)
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client library, with a store in a folder."""
    library = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return library


def sent_to(tracking: Any) -> tuple[Any, Any]:
    """A client of the store, and the only run in it."""
    client = tracking.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("diffclip").experiment_id])
    return client, run


def test_mlflow_has_every_step_once(run_dir: Path, tmp_path: Path, tracking: Any) -> None:
    with send_metrics(config(run_dir, "mlflow")):
        write_metrics(run_dir, 1, 250)
        write_metrics(run_dir, 201, 300)  # workers that start anew take steps again
    client, run = sent_to(tracking)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((one.step, one.value) for one in losses) == [(step, 1.0 / step) for step in range(1, 301)]
    probes = client.get_metric_history(run.info.run_id, "probe/knn")
    assert sorted((one.step, one.value) for one in probes) == [(100, 10.0), (200, 20.0), (300, 30.0)]
    assert "loss_by_modality/masked/hsi _ 2m" in run.data.metrics
    assert run.data.params["model.depth"] == str(PretrainConfig().model.depth)
    assert not {"archive", "storage_path", "run_dir"} & run.data.params.keys()
    written = [file.read_text() for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert written
    assert not any(SECRET in text or str(run_dir) in text for text in written)


def test_a_run_that_ends_early_is_failed(run_dir: Path, tracking: Any) -> None:
    with send_metrics(config(run_dir, "mlflow")):
        write_metrics(run_dir, 1, 3)
    _, run = sent_to(tracking)
    assert run.info.status == "FAILED"


def test_wandb_offline_has_the_run_and_no_secret(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 8 + SECRET.replace("-", "0") + "0" * 11)
    monkeypatch.setattr(sys, "argv", ["pretrain.py", SECRET])
    with send_metrics(config(run_dir, "wandb")):
        write_metrics(run_dir, 1, 300)
    (stored,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"loss_by_modality/masked/hsi @ 2m" in content
    assert content.count(b"probe/knn") >= 3
    for file in (run_dir / "wandb").rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
            assert SECRET.replace("-", "0").encode() not in file.read_bytes(), file


class Stubborn:
    """A service that answers every second call."""

    def __init__(self, _: PretrainConfig) -> None:
        self.calls = 0
        self.steps: list[int] = []

    def send(self, steps: list[dict[str, Any]]) -> None:
        self.calls += 1
        if self.calls % 2:
            raise ConnectionError(f"https://user:{SECRET}@host/api?token={SECRET} does not answer\nadvice")
        self.steps += [step["step"] for step in steps]

    def end(self, done: bool) -> None:
        assert done


@contextmanager
def replaced(monkeypatch: pytest.MonkeyPatch, made: type) -> Iterator[list[Any]]:
    kept: list[Any] = []

    def make(given: PretrainConfig) -> Any:
        kept.append(made(given))
        return kept[-1]

    monkeypatch.setattr(loggers, "_WandbRun", make)
    yield kept


def test_a_service_that_fails_now_and_then_loses_no_step_and_ends_no_run(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_log("plain", "stdout")  # a test before may have chosen another
    with replaced(monkeypatch, Stubborn) as made, send_metrics(config(run_dir, "wandb")):
        write_metrics(run_dir, 1, 300)
        while made[0].steps != [*range(1, 301)]:
            pass
    said = capsys.readouterr().out
    assert "logger=wandb: ConnectionError: https://host/api does not answer; the run goes on" in said
    assert SECRET not in said


def test_a_service_that_takes_no_run_is_told_before_it_begins(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def __init__(self, _: PretrainConfig) -> None:
            raise ConnectionError(f"https://user:{SECRET}@host: refused")

    with replaced(monkeypatch, Absent), pytest.raises(BadInput) as refused, send_metrics(config(run_dir, "wandb")):
        pytest.fail("the run was begun")
    assert str(refused.value) == "logger=wandb: cannot begin a run there: ConnectionError: https://host: refused"


def test_a_missing_library_is_told_with_its_install_line(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "installed", lambda _: False)
    said = refused(tmp_path / "run", settings=("logger=mlflow",))
    assert "pip install 'diffclip-dist[mlflow]'" in said
    assert not (tmp_path / "run").exists()
