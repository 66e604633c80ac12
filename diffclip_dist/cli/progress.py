"""Progress of a command on standard error: bars with the time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffclip_dist.log_lines import LogFormat, log, start_log

_LINE_EVERY_S: Final = 10.0


class ShowProgress(Protocol):
    """Shows how far a task is."""

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Shows it.

        Args:
            task: its name; a new one is a new bar.
            done: of the total.
            total: in all.
            detail: more about it, such as ``3/8 shards``.
        """


@contextmanager
def progress(log_format: LogFormat, unit: str = "") -> Iterator[ShowProgress]:
    """Shows progress while the block runs.

    Args:
        log_format: ``json`` shows objects, a line each, also on a terminal.
        unit: of what is counted, such as ``pixels``.
    """
    start_log(log_format, "stderr")
    if log_format == "plain" and sys.stderr.isatty():
        with _bars(unit) as show:
            yield show
    else:
        yield _Lines(unit)


@contextmanager
def _bars(unit: str) -> Iterator[ShowProgress]:
    columns = (
        TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn(unit), TextColumn("{task.fields[detail]}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(task: str, done: int, total: int, detail: str = "") -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total, detail=detail)
            bars.update(tasks[task], completed=done, total=total, detail=detail)

        yield show


class _Lines:
    """Logs a line for a task about every ten seconds, and one when it is done."""

    def __init__(self, unit: str) -> None:
        self._unit = f" {unit}" * bool(unit)
        self._begun: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, tuple[float, int]] = {}

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        began, first = self._begun.setdefault(task, (now, done))
        shown_at, shown = self._shown.setdefault(task, (now, -1))
        if done == shown or (now - shown_at < _LINE_EVERY_S and done < total):
            return
        self._shown[task] = (now, done)
        left = (total - done) * (now - began) / (done - first) if done > first else None
        ahead = f", {timedelta(seconds=round(left))} left" if left is not None and done < total else ""
        share = f" ({done / total:.0%})" * bool(total)
        log(
            f"{task} {done:,}/{total:,}{self._unit}{share}{f', {detail}' * bool(detail)}{ahead}",
            task=task, done=done, total=total, left_s=left,
        )  # fmt: skip
