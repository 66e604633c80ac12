"""Faults of a run's workers, written to a file by Ray's controller and shown on the driver's terminal."""

import time
from pathlib import Path
from typing import Any, Final

from ray.train import UserCallback

FAULTS_FILE: Final = "faults.log"


class FaultLog(UserCallback):
    """Appends a line to ``RUN/faults.log`` for each worker that fails or is lost.

    Args:
        run_dir: of the run, which every node sees.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / FAULTS_FILE

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray when workers have failed, before it starts new workers or ends the run."""
        del run_context
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = [f"{now}  lost rank {rank}: {cause(error)}\n" for rank, error in sorted(worker_exceptions.items())]
        with self._file.open("a") as file:
            file.write("".join(lines))


def cause(error: BaseException) -> str:
    """The innermost message, which names the fault, without tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
