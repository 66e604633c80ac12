"""Memory and open files of processes over time: samples, the slope of each kind of process, and a picture."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import psutil

SAMPLE_S = 3.0
WARM_S = 120.0  # a process's first seconds, in which it is still loading, do not count for its slope


@dataclass(frozen=True)
class Sample:
    """One process at one time.

    Attributes:
        at_s: seconds since the sampling began.
        kind: what the process is.
        pid: its id.
        age_s: how long it has run.
        memory_mib: that is no file's: its own, and its share of what it shares. Pages of libraries are left out: how
            many count for a process depends on who else has them open.
        open_files: descriptors.
    """

    at_s: float
    kind: str
    pid: int
    age_s: float
    memory_mib: float
    open_files: int


class Sampler(threading.Thread):
    """Samples processes every few seconds until it is stopped.

    Args:
        processes: finds them.
        kinds: what a process is, by a text of its command line; the first that fits.
        rest: what any other is.
    """

    def __init__(self, processes: Callable[[], Sequence[psutil.Process]], kinds: Mapping[str, str], rest: str) -> None:
        super().__init__(daemon=True)
        self._processes, self._kinds, self._rest = processes, kinds, rest
        self._ended, self._start_s = threading.Event(), time.time()
        self.samples: list[Sample] = []

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for process in self._processes():
                try:
                    self.samples.append(self._sample(process))
                except (psutil.Error, OSError):
                    continue  # it has ended meanwhile

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _sample(self, process: psutil.Process) -> Sample:
        now, line = time.time(), " ".join(process.cmdline())
        kind = next((kind for part, kind in self._kinds.items() if part in line), self._rest)
        age_s = now - process.create_time()
        return Sample(now - self._start_s, kind, process.pid, age_s, memory_mib(process.pid), process.num_fds())


def memory_mib(pid: int) -> float:
    """Memory of a process that is no file's, as `Sample` has it."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return (kib["Pss_Anon"] + kib["Pss_Shmem"]) / 1024


def slope_per_hour(samples: Sequence[Sample], value: Callable[[Sample], float]) -> tuple[float, float] | None:
    """How fast a value grows in processes that may be replaced: one slope for all, a level of its own for each.

    Returns:
        The slope by least squares and its standard error, per hour; None with fewer than three samples of a process.
    """
    times, values, processes = [], [], 0
    for pid in {sample.pid for sample in samples}:
        own = [sample for sample in samples if sample.pid == pid and sample.age_s >= WARM_S]
        if len(own) >= 3:
            at_h, found = np.array([one.at_s / 3600 for one in own]), np.array([value(one) for one in own])
            times.append(at_h - at_h.mean())
            values.append(found - found.mean())
            processes += 1
    if not times:
        return None
    x, y = np.concatenate(times), np.concatenate(values)
    slope = float(x @ y / (x @ x))
    variance = float(((y - slope * x) ** 2).sum()) / max(len(x) - processes - 1, 1)
    return slope, (variance / float(x @ x)) ** 0.5


def slope_rows(samples: Sequence[Sample]) -> list[dict[str, str | int | float | None]]:
    """A row for each kind of process."""
    rows: list[dict[str, str | int | float | None]] = []
    for kind in sorted({sample.kind for sample in samples}):
        own = [sample for sample in samples if sample.kind == kind]
        memory = slope_per_hour(own, lambda one: one.memory_mib)
        files = slope_per_hour(own, lambda one: one.open_files)
        rows.append(
            {
                "part": "growth", "processes": kind, "lives": len({one.pid for one in own}), "samples": len(own),
                "median_mib": round(float(np.median([one.memory_mib for one in own])), 1),
                "growth_mib_per_h": None if memory is None else round(memory[0], 2),
                "growth_standard_error_mib_per_h": None if memory is None else round(memory[1], 2),
                "growth_open_files_per_h": None if files is None else round(files[0], 2),
            }
        )  # fmt: skip
    return rows


def draw(samples: Sequence[Sample], events: Sequence[tuple[float, str]], file: Path) -> None:
    """Memory and open files of each process over time, a colour for each kind; events (s) as lines."""
    figure = matplotlib.figure.Figure(figsize=(10, 6), layout="constrained")
    memory, files = figure.subplots(2, 1, sharex=True)
    for number, kind in enumerate(sorted({sample.kind for sample in samples})):
        label: str | None = kind
        for pid in sorted({sample.pid for sample in samples if sample.kind == kind}):
            own = [sample for sample in samples if (sample.pid, sample.kind) == (pid, kind)]
            minutes = [one.at_s / 60 for one in own]
            memory.plot(minutes, [one.memory_mib for one in own], color=f"C{number}", label=label)
            files.plot(minutes, [one.open_files for one in own], color=f"C{number}")
            label = None
    for at_s, name in events:
        for axes in (memory, files):
            axes.axvline(at_s / 60, color="0.8", zorder=0)
        place = {"rotation": 90, "va": "top", "fontsize": 7, "transform": memory.get_xaxis_transform()}
        memory.text(at_s / 60, 0.99, name, **place)
    memory.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    memory.set_ylabel("memory, MiB")
    files.set_ylabel("open files")
    files.set_xlabel("minutes")
    figure.savefig(file, dpi=110)
