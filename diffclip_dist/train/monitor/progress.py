"""Progress on the terminal, read from the run's metrics and faults while it writes them."""

import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diffclip_dist.log_lines import LogFormat, log
from diffclip_dist.train.monitor.new_lines import NewLines
from diffclip_dist.train.run_files import FAULTS_FILE, METRICS_FILE

_POLL_S = 0.5
_LINE_EVERY_S = 10.0


@contextmanager
def follow_metrics(
    run_dir: Path, steps: int, compiles: bool = False, log_format: LogFormat = "plain"
) -> Iterator[None]:
    """Shows progress until the block ends: a bar on a terminal, a line now and then elsewhere and as JSON.

    Args:
        run_dir: the run's folder.
        steps: of the whole run.
        compiles: whether the workers compile the model, which makes the first steps slow.
        log_format: of the lines.
    """
    stop = threading.Event()
    console = Console()
    bar = console.is_terminal and log_format == "plain"
    show = partial(_show_bar, console) if bar else _show_lines
    start = "starting workers" + ", then compiling the model (a minute or more)" * compiles
    follower = threading.Thread(target=show, args=(run_dir, steps, start, stop), daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()


class _RunState:
    """What a run has written of itself so far."""

    def __init__(self, run_dir: Path) -> None:
        self._metrics = NewLines(run_dir / METRICS_FILE)
        self._faults = NewLines(run_dir / FAULTS_FILE)
        self._newest: dict[str, Any] | None = None

    def newest_metrics(self) -> dict[str, Any] | None:
        """Of the last logged step; none before the first."""
        for last in deque(self._metrics.read(), maxlen=1):
            self._newest = json.loads(last)
        return self._newest

    def log_faults(self) -> None:
        """Logs faults that are new since the last call."""
        for line in self._faults.read():
            at, _, fault = line.partition("  ")
            rank = re.match(r"lost rank (\d+)", fault)
            log(fault, logging.ERROR, fault_time=at, **({} if rank is None else {"lost_rank": int(rank[1])}))


def _summary(metrics: dict[str, float]) -> str:
    return (
        f"loss {metrics['loss']:.4f}  {metrics['samples_per_s']:,.0f} samples/s "
        f"({metrics['samples_per_s_per_worker']:,.0f} a worker)  data wait {metrics['data_wait_fraction']:.0%}  "
        f"MFU {metrics['mfu']:.0%}"
    )


def _show_bar(console: Console, run_dir: Path, steps: int, start: str, stop: threading.Event) -> None:
    columns = (TextColumn("pretraining"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task: TaskID = progress.add_task("steps", total=steps, text=start)
        state = _RunState(run_dir)
        while True:
            ended = stop.wait(_POLL_S)
            state.log_faults()  # rich draws its bar below
            metrics = state.newest_metrics()
            if metrics is not None:
                progress.update(task, completed=metrics["step"], text=_summary(metrics))
            if ended:
                return


def _show_lines(run_dir: Path, steps: int, start: str, stop: threading.Event) -> None:
    log(start)
    shown, shown_at = 0.0, 0.0
    first: tuple[float, float] | None = None
    state = _RunState(run_dir)
    while True:
        ended = stop.wait(_POLL_S)
        state.log_faults()
        metrics = state.newest_metrics()
        now = time.monotonic()
        if metrics is not None and metrics["step"] > shown and (ended or now - shown_at >= _LINE_EVERY_S):
            step = metrics["step"]
            first = first or (now, step)
            left = (steps - step) * (now - first[0]) / (step - first[1]) if step > first[1] else None
            remaining = "" if left is None else f"  {timedelta(seconds=round(left))} left"
            log(f"step {step:,.0f}/{steps:,}  {_summary(metrics)}{remaining}", steps=steps, left_s=left, **metrics)
            shown, shown_at = step, now
        if ended:
            return
