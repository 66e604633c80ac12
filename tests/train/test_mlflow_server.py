"""What a run logs comes to an MLflow server on loopback, from which MLflow's own client reads it back."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import pretrain_command

from diffclip_dist.train.cluster.local_ray import LocalRay
from diffclip_dist.train.monitor.loggers import send_metrics
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.run_files import CONFIG_FILE, METRICS_FILE

STEPS = 12
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server with an SQLite store; it listens on loopback alone."""
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    pytest.importorskip("sqlalchemy", reason="needs what MLflow's server keeps its store with (extra dev)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'store.db'}",
        "--default-artifact-root", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "OMP_NUM_THREADS": "1",
    }
    log = tmp_path / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 200
        while not answers(f"{address}/health"):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        assert listening(process.pid) == {"127.0.0.1"}
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310 our own server
            return True
    except (urllib.error.URLError, OSError):
        return False


def listening(pid: int) -> set[str]:
    """The addresses on which a process and those that it started listen."""
    parent = psutil.Process(pid)
    return {
        connection.laddr.ip
        for process in (parent, *parent.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def numbers_of(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The figures of a line of metrics.jsonl by their names, nested ones with a slash."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            found |= numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found[f"{prefix}{name}"] = value
    return found


def test_a_server_has_every_figure_once(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = tmp_path / "run"
    folder.mkdir()
    given = {"run_dir": str(folder), "steps": STEPS, "archive": str(tmp_path / "archive")}
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 1 / step, "lr": 0.001, "loss_by_modality": {"masked/hsi": 0.5 / step}, "grad_norm": None}
        for step in range(1, STEPS + 1)
    ]
    with send_metrics(resolve_config(None, given, ["logger=mlflow"])):
        (folder / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))

    figures, params = sent_to(server, "run")
    assert figures == figures_of(lines)
    assert {"loss", "lr", "loss_by_modality/masked/hsi"} == figures.keys()
    assert params["steps"] == str(STEPS)


def test_a_run_on_ray_is_sent_by_its_driver(
    tmp_path: Path, server: str, ray_head: LocalRay, generated_archive: Path
) -> None:
    folder = tmp_path / "on-ray"
    arguments = ("--steps", str(STEPS), "--workers", "2")
    ended = subprocess.run(
        pretrain_command(folder, generated_archive, arguments, ("logger=mlflow",)),
        env={**ray_head.environment, "MLFLOW_TRACKING_URI": server}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, STEPS + 1)]
    figures, params = sent_to(server, "on-ray")
    assert figures == figures_of(lines)
    assert {"loss", "mfu", "loss_by_modality/masked/hsi"} <= figures.keys()
    assert (params["workers"], params["steps"]) == ("2", str(STEPS))
    assert server not in ended.stdout + (folder / CONFIG_FILE).read_text()


def sent_to(server: str, name: str) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str]]:
    """Figures by step and settings of the server's only run, which has this name and is finished."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("diffclip").experiment_id])
    assert (run.info.run_name, run.info.status) == (name, "FINISHED")
    figures = {
        figure: sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, figure))
        for figure in run.data.metrics
    }
    return figures, run.data.params


def figures_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Figures by step, as metrics.jsonl has them."""
    figures: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in numbers_of(line).items():
            figures.setdefault(name, []).append((line["step"], value))
    return figures
