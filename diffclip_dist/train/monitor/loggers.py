"""Sends what a run logs to MLflow or Weights & Biases, as it stands in ``metrics.jsonl``.

The driver does so, in a thread of its own: workers wait for no server, and get no address and no key of one. The
libraries find those where they always do, in the driver's environment or in the user's files. Nothing here reads or
writes them.
"""

import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from diffclip_dist.log_lines import cause_of, log
from diffclip_dist.train.monitor.new_lines import NewLines
from diffclip_dist.train.pretrain_config import PretrainConfig, flat_settings
from diffclip_dist.train.run_files import METRICS_FILE
from shards.errors import BadInput
from shards.extras import install_line, installed

_EVERY_S: Final = 5.0
_PROJECT: Final = "diffclip"
_AT_ONCE: Final = 200  # steps in one message
# places, which may name hosts, users and keys of a store
_PLACES: Final = ("archive", "run_dir", "storage_path", "probe.archive", "offload.folder")


class Logger(Protocol):
    """One run at a service."""

    def send(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Sends logged steps, in their order."""

    def end(self, done: bool) -> None:
        """Ends the run there, as done or as failed."""


def check_logger(config: PretrainConfig) -> None:
    """Raises BadInput where the run's logger is not installed."""
    if config.logger != "none" and not installed(config.logger):
        raise BadInput(f"logger={config.logger}: {install_line(config.logger)}")


@contextmanager
def send_metrics(config: PretrainConfig) -> Iterator[None]:
    """Sends logged steps until the block ends. A service that stops answering does not end the run.

    Raises:
        BadInput: the service does not take the run, before the block.
    """
    if config.logger == "none":
        yield
        return
    try:
        logger: Logger = _MlflowRun(config) if config.logger == "mlflow" else _WandbRun(config)
    except Exception as error:
        said = _without_secrets(cause_of(error))
        raise BadInput(f"logger={config.logger}: cannot begin a run there: {said}") from None
    sender = _Sender(config, logger)
    thread = threading.Thread(target=sender.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sender.stop.set()
        thread.join()
        sender.attempt(lambda: logger.end(sender.sent == config.steps))


class _Sender:
    """Reads new lines of the metrics and sends each step once."""

    def __init__(self, config: PretrainConfig, logger: Logger) -> None:
        self.stop = threading.Event()
        self._config = config
        self._logger = logger
        self._lines = NewLines(Path(config.run_dir) / METRICS_FILE)
        self.sent = 0  # the last step that was sent
        self._read = 0
        self._told = False

    def run(self) -> None:
        """Sends until `stop` is set."""
        waiting: list[dict[str, Any]] = []
        ended = False
        while not ended:
            ended = self.stop.wait(_EVERY_S)
            for line in self._lines.read():
                step = json.loads(line)
                if step["step"] > self._read:  # workers that start anew take steps again
                    waiting.append(step)
                    self._read = step["step"]
            while waiting:
                part = waiting[:_AT_ONCE]
                if not self.attempt(lambda part=part: self._logger.send(part)):
                    break
                self.sent = part[-1]["step"]
                del waiting[:_AT_ONCE]

    def attempt(self, call: Any) -> bool:
        """Calls the service; whether it answered. The first fault is told."""
        try:
            call()
        except Exception as error:
            if not self._told:
                told = f"logger={self._config.logger}: {_without_secrets(cause_of(error))}; the run goes on"
                log(told, logging.WARNING)
            self._told = True
            return False
        self._told = False
        return True


class _MlflowRun:
    """A run at the MLflow server, or in the store, of ``MLFLOW_TRACKING_URI``."""

    def __init__(self, config: PretrainConfig) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # it prints the server's address at the end, with the password where it has one, among lines that may be JSON
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        found = self._client.get_experiment_by_name(_PROJECT)
        experiment = self._client.create_experiment(_PROJECT) if found is None else found.experiment_id
        self._run = self._client.create_run(experiment, run_name=Path(config.run_dir).name).info.run_id
        for name, value in _settings(config).items():
            self._client.log_param(self._run, name, value)

    def send(self, steps: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(_mlflow_name(name), value, 0, step["step"])
            for step in steps
            for name, value in _figures(step).items()
        ]
        for start in range(0, len(metrics), 1000):  # the server takes no more at a time
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def end(self, done: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if done else "FAILED")


class _WandbRun:
    """A run at Weights & Biases; with ``WANDB_MODE=offline`` in a folder of the run, for ``wandb sync``."""

    def __init__(self, config: PretrainConfig) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        # no command line, no environment, no source and no terminal's output goes there
        private = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True)
        folder = Path(config.run_dir)
        self._run = wandb.init(
            project=_PROJECT, name=folder.name, dir=str(folder), config=_settings(config), settings=private
        )

    def send(self, steps: Sequence[Mapping[str, Any]]) -> None:
        for step in steps:
            self._run.log(_figures(step), step=step["step"])

    def end(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


def _settings(config: PretrainConfig) -> dict[str, Any]:
    """The run's settings by full name, without places."""
    return {name: value for name, value in flat_settings(config).items() if name not in _PLACES}


def _figures(step: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """A logged step's numbers, such as ``loss_by_modality/masked/hsi`` and ``probe/knn``."""
    figures = {}
    for name, value in step.items():
        if isinstance(value, Mapping):
            figures.update(_figures(value, f"{prefix}{name}/"))
        elif isinstance(value, int | float) and name != "step":
            figures[prefix + name] = float(value)
    return figures


def _mlflow_name(name: str) -> str:
    """A name as MLflow takes it: modalities may have any."""
    return re.sub(r"[^\w./ -]", "_", name)


def _without_secrets(text: str) -> str:
    """A message without what stands before the host of an address, and without its query."""
    return re.sub(r"(\w+://\S*?)\?\S*", r"\1", re.sub(r"://[^/\s@]+@", "://", text))
