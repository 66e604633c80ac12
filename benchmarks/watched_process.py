"""Runs a command in a process of its own, and watches its time and memory."""

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from process_memory import peak_mib

from shards.errors import FailedRun

SAMPLING_S: Final = 0.1


@dataclass(frozen=True)
class Watched:
    """What a command took.

    Attributes:
        seconds: from start to end.
        cpu_seconds: of all its cores, its own and the system's for it.
        peak_memory_mib: the most memory that it held.
    """

    seconds: float
    cpu_seconds: float
    peak_memory_mib: float


def watch(command: Sequence[str]) -> Watched:
    """Runs a command to its end.

    Raises:
        FailedRun: it ended with another status than 0.
    """
    start, cpu_before = time.perf_counter(), _children_cpu_s()
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 our own arguments
        # what wait4 tells of a child's memory begins with this process's own
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            time.sleep(SAMPLING_S)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise FailedRun(f"{' '.join(command)}: ended with status {process.returncode}")
    return Watched(seconds, _children_cpu_s() - cpu_before, peak)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
