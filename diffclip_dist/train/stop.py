"""Stops a run early: the driver asks through a file, and all ranks agree on the step after which they leave."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist

_FILE: Final = "stop-request.txt"
_EVERY_S: Final = 0.5  # about as often rank 0 looks and tells the others
_MOST_STEPS: Final = 1000  # between two looks


class StopFile:
    """A file in the run's folder, which every node sees; it is empty until the run is asked to stop.

    It exists from the start and is opened anew at each look: NFS clients remember for half a minute that a file is
    absent, and ask for its content whenever it is opened.

    Args:
        run_dir: of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / _FILE

    def prepare(self) -> None:
        """Takes an earlier request back; called by the driver before the workers start."""
        self._file.write_text("")

    def ask(self) -> None:
        """Asks the run to stop, if its workers may have been started."""
        if self._file.exists():
            self._file.write_text("stop\n")

    def asked(self) -> bool:
        """Whether the run is to stop."""
        with self._file.open() as file:
            return bool(file.read(1))

    def remove(self) -> None:
        """Removes the file after the run."""
        self._file.unlink(missing_ok=True)


class AgreedStop:
    """Tells every rank after the same step that the run is to stop.

    Rank 0 looks about every half second and broadcasts what it found, and the step after which it looks next. So most
    steps have no collective more than before, and a look costs far less than the time until the next one.

    Args:
        asked: whether the run is to stop; called on rank 0.
        device: of this rank.
    """

    def __init__(self, asked: Callable[[], bool], device: torch.device) -> None:
        self._asked = asked
        self._device = device
        self._next_look = 0
        self._last_look = 0
        self._since = time.monotonic()

    def after(self, done: int) -> bool:
        """Whether the run stops after so many steps; every rank must call after each step and gets the same answer."""
        if done < self._next_look:
            return False
        answer = [0, 0]
        if dist.get_rank() == 0:
            now = time.monotonic()
            steps_per_s = (done - self._last_look) / max(now - self._since, 1e-9)
            ahead = min(max(1, int(steps_per_s * _EVERY_S)), _MOST_STEPS)
            answer = [int(self._asked()), ahead]
            self._last_look, self._since = done, now
        told = torch.tensor(answer, device=self._device)
        dist.broadcast(told, src=0)
        stop, ahead = told.tolist()
        self._next_look = done + ahead
        return bool(stop)
