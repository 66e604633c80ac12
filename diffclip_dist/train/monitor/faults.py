"""Faults of a run's workers and checkpoints, written to a file and shown on the driver's terminal."""

import time
from pathlib import Path
from typing import Any

from ray.train import UserCallback

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
            append_fault(self._run_dir, f"lost rank {rank}: {cause(error)}")


def append_fault(run_dir: Path, fault: str) -> None:
    """Appends a line with the time to ``RUN/faults.log``; the driver shows it."""
    with (run_dir / FAULTS_FILE).open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {fault}\n")


def cause(error: BaseException) -> str:
    """The innermost message, which names the fault, without tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
