"""How far a pretraining run is, how fast, and whether it is well: from what it has written into its folder."""

import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from diffclip_dist.train.checkpoint.stored_checkpoint import StoredCheckpoint, checkpoint_store, newest_checkpoint
from diffclip_dist.train.pretrain_config import PretrainConfig, read_run_config
from diffclip_dist.train.run_files import CONFIG_FILE, FAULTS_FILE, METRICS_FILE, STOPPED_FILE
from shards.errors import BadInput, FailedRun

RunPhase = Literal["starting", "running", "silent", "stopped", "finished"]

# Of the metrics file's end: some hundred logged steps
_TAIL_BYTES: Final = 2**18
# Logged steps whose median speed tells the time left
_RECENT: Final = 20
# A run is silent after so many times the usual time between logged steps, but no sooner than so many seconds:
# checkpoints and new workers take their time
_SILENT_TIMES, _SILENT_S = 10.0, 300.0


@dataclass(frozen=True)
class RunStatus:
    """What a run's folder tells.

    Attributes:
        run_dir: the run's folder.
        phase: ``starting`` before the first logged step; ``silent`` where no step was logged for long; ``stopped``
            where the run has said that it cannot go on.
        step: of the last logged step; 0 before the first.
        steps: of the whole run.
        metrics: of the last logged step, as `StepMetrics` has them; None before the first.
        probed: the last logged step that the encoder was probed at; None where it was not.
        age_s: seconds since something was logged; since the run was begun, before the first step.
        left_s: seconds that the other steps take at the speed of the last ones; None where it is unknown.
        checkpoint: the newest complete one; None where there is none.
        encoder: the exported encoder's folder; None where there is none.
        faults: the last lines of ``faults.log``.
        problems: what is not as it should be, a line each; a healthy run has none.
    """

    run_dir: Path
    phase: RunPhase
    step: int
    steps: int
    metrics: dict[str, Any] | None
    probed: dict[str, Any] | None
    age_s: float
    left_s: float | None
    checkpoint: StoredCheckpoint | None
    encoder: Path | None
    faults: tuple[str, ...]
    problems: tuple[str, ...]


def run_status(run_dir: Path, now: float | None = None) -> RunStatus:
    """Reads a run's folder, and where its checkpoints lie; changes nothing.

    Args:
        run_dir: the run's folder.
        now: seconds since the epoch; None asks the clock.

    Raises:
        BadInput: the folder holds no run.
    """
    file = run_dir / CONFIG_FILE
    if not file.is_file():
        raise BadInput(f"{run_dir}: expected a run's folder, with its {CONFIG_FILE}, found none")
    config = read_run_config(file)
    logged = _last_metrics(run_dir / METRICS_FILE)
    last = logged[-1] if logged else None
    probed = next((line for line in reversed(logged) if "probe" in line), None)
    step = int(last["step"]) if last else 0
    written = run_dir / METRICS_FILE if last else file
    age = max((time.time() if now is None else now) - written.stat().st_mtime, 0.0)
    stopped = run_dir / STOPPED_FILE
    encoder = run_dir / "encoder"
    problems = []
    checkpoint = None
    try:
        checkpoint = newest_checkpoint(checkpoint_store(config))
    except (FailedRun, OSError) as error:
        problems.append(" ".join(str(error).split()))
    seconds = _seconds_a_step(config, logged)
    phase: RunPhase
    if stopped.is_file():
        phase = "stopped"
        problems.append(f"it cannot go on: {' '.join(stopped.read_text().split())}")
    elif encoder.is_dir() and step >= config.steps:
        phase = "finished"
    elif age > max(_SILENT_S, _SILENT_TIMES * config.log_every * (seconds or 0.0)):
        phase = "silent"
        problems.append(
            f"nothing was logged for {duration(age)}: look whether its job is still there; if not, go on with the "
            "command that began it and --resume"
        )
    else:
        phase = "running" if last else "starting"
    if last is not None and not math.isfinite(last["loss"]):
        problems.append(f"the loss of step {step:,} is {last['loss']}: lower the learning rate, and begin anew")
    left = seconds * (config.steps - step) if seconds is not None and phase == "running" else None
    return RunStatus(
        run_dir, phase, step, config.steps, last, probed, age, left, checkpoint, encoder if encoder.is_dir() else None,
        tuple(_tail(run_dir / FAULTS_FILE)[-3:]), tuple(problems),
    )  # fmt: skip


def describe_status(status: RunStatus) -> str:
    """The status as lines for a terminal."""
    return "\n".join(f"{name:<11} {said}" for name, said in status_lines(status))


def status_lines(status: RunStatus) -> list[tuple[str, str]]:
    """The status line by line: what is told, and what is said of it."""
    lines = [("run", str(status.run_dir)), ("phase", status.phase)]
    lines.append(("steps", f"{status.step:,} of {status.steps:,} ({status.step / status.steps:.0%})"))
    if (last := status.metrics) is not None:
        lines.append(("loss", f"{last['loss']:.4f}"))
        lines.append(
            (
                "speed",
                f"{last['samples_per_s']:,.0f} samples/s ({last['samples_per_s_per_worker']:,.0f} a worker), data wait "
                f"{last['data_wait_fraction']:.0%}, MFU {last['mfu']:.0%}",
            )
        )
        lines.append(("last step", f"logged {duration(status.age_s)} ago"))
    else:
        lines.append(("last step", f"none yet; begun {duration(status.age_s)} ago"))
    if (probed := status.probed) is not None:
        lines.append(("probe", f"{describe_accuracy(probed['probe'])} at step {probed['step']:,}"))
    if status.left_s is not None:
        lines.append(("time left", f"about {duration(status.left_s)}"))
    kept = status.checkpoint
    lines.append(("checkpoint", "none" if kept is None else f"step {kept.state.step:,}: {kept}"))
    if status.encoder is not None:
        lines.append(("encoder", str(status.encoder)))
    lines += [("fault", line) for line in status.faults]
    lines += [("problem", line) for line in status.problems]
    return lines


def describe_accuracy(probe: Mapping[str, float]) -> str:
    """``kNN 71.2 %, linear 80.3 %``."""
    return f"kNN {probe['knn']:.1f} %, linear {probe['linear']:.1f} %"


def duration(seconds: float) -> str:
    """``0:12:05``, in whole seconds."""
    return str(timedelta(seconds=round(seconds)))


def _seconds_a_step(config: PretrainConfig, logged: list[dict[str, Any]]) -> float | None:
    """The usual time of the last steps; None where none was logged."""
    speeds = [line["samples_per_s"] for line in logged[-_RECENT:] if line["samples_per_s"] > 0]
    return config.global_batch / statistics.median(speeds) if speeds else None


def _last_metrics(file: Path) -> list[dict[str, Any]]:
    """The last logged steps, in their order.

    Raises:
        BadInput: a line is not a step's.
    """
    try:
        return [json.loads(line) for line in _tail(file)]
    except json.JSONDecodeError as error:
        raise BadInput(f"{file}: expected a JSON object a line: {error}") from None


def _tail(file: Path) -> list[str]:
    """The complete lines at a file's end; none where it does not exist."""
    if not file.is_file():
        return []
    with file.open("rb") as lines:
        size = lines.seek(0, 2)
        start = max(size - _TAIL_BYTES, 0)
        lines.seek(start)
        text = lines.read().decode(errors="replace")
    complete = text[: text.rfind("\n") + 1].splitlines()
    return complete[1:] if start else complete
