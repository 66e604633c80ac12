"""Progress on the terminal, read from the run's metrics and faults while it writes them."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diffclip_dist.train.monitor.new_lines import NewLines
from diffclip_dist.train.run_files import FAULTS_FILE, METRICS_FILE

_POLL_S = 0.5
_LINE_EVERY_S = 10.0


@contextmanager
def follow_metrics(run_dir: Path, steps: int, compiles: bool = False) -> Iterator[None]:
    """Shows progress until the block ends: a bar on a terminal, a line now and then elsewhere.

    Args:
        run_dir: the run's folder.
        steps: of the whole run.
        compiles: whether the workers compile the model, which makes the first steps slow.
    """
    stop = threading.Event()
    console = Console()
    show = _show_bar if console.is_terminal else _show_lines
    start = "starting workers" + ", then compiling the model (a minute or more)" * compiles
    follower = threading.Thread(target=show, args=(console, run_dir, steps, start, stop), daemon=True)
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
        self._newest: dict[str, float] | None = None

    def newest_metrics(self) -> dict[str, float] | None:
        """Of the last logged step; none before the first."""
        if lines := self._metrics.read():
            self._newest = json.loads(lines[-1])
        return self._newest

    def print_faults(self, console: Console) -> None:
        """Prints faults that are new since the last call."""
        for line in self._faults.read():
            console.print(line, soft_wrap=True, highlight=False, markup=False)


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
            state.print_faults(progress.console)
            metrics = state.newest_metrics()
            if metrics is not None:
                progress.update(task, completed=metrics["step"], text=_summary(metrics))
            if ended:
                return


def _show_lines(console: Console, run_dir: Path, steps: int, start: str, stop: threading.Event) -> None:
    console.print(start, highlight=False)
    shown, shown_at = 0.0, 0.0
    first: tuple[float, float] | None = None
    state = _RunState(run_dir)
    while True:
        ended = stop.wait(_POLL_S)
        state.print_faults(console)
        metrics = state.newest_metrics()
        now = time.monotonic()
        if metrics is not None and metrics["step"] > shown and (ended or now - shown_at >= _LINE_EVERY_S):
            step = metrics["step"]
            first = first or (now, step)
            left = (steps - step) * (now - first[0]) / (step - first[1]) if step > first[1] else None
            remaining = "" if left is None else f"  {timedelta(seconds=round(left))} left"
            console.print(
                f"step {step:,.0f}/{steps:,}  {_summary(metrics)}{remaining}", soft_wrap=True, highlight=False
            )
            shown, shown_at = step, now
        if ended:
            return
