"""Faults of a run's workers and checkpoints, written to a file and shown on the driver's terminal."""

import time
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from diffclip_dist.train.monitor.rank_log import rank_log_file
from diffclip_dist.train.run_files import FAULTS_FILE


class FaultLog(UserCallback):
    """Appends a line to ``RUN/faults.log`` for each worker that fails or is lost.

    Args:
        run_dir: of the run, which every node sees.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray when workers have failed, before it starts new workers or ends the run."""
        del run_context
        for rank, error in sorted(worker_exceptions.items()):
            append_fault(self._run_dir, f"lost rank {rank} ({rank_log_file(self._run_dir, rank)}): {cause(error)}")


def append_fault(run_dir: Path, fault: str) -> None:
    """Appends a line with the time to ``RUN/faults.log``; the driver shows it."""
    with (run_dir / FAULTS_FILE).open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {fault}\n")


def newest_fault(run_dir: Path) -> str | None:
    """The first fault of those that came last together, without its time; None where there was none."""
    file = run_dir / FAULTS_FILE
    lines = [line.partition("  ") for line in file.read_text().splitlines()] if file.is_file() else []
    return next((fault for at, _, fault in lines if at == lines[-1][0]), None)


def cause(error: BaseException) -> str:
    """The innermost message, which names the fault, without tracebacks."""
    text = str(error)
    if "worker process has died" in text:  # Ray goes on for some hundred words
        return "its process died: killed, by the kernel for want of memory perhaps, or crashed"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
