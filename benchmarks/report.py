"""What every benchmark shares: its arguments, the machine it ran on, medians over repeats, the table and the JSON."""

import argparse
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from diffclip_dist.cli.command_parser import CommandParser
from shards.errors import BadInput

Value = str | int | float | bool | None
Row = Mapping[str, Value]

LOWEST, HIGHEST = "lowest_", "highest_"
_NO_LIMIT = 1000

# the words of a key that say what its number counts or measures; a plural noun (workers, shots) counts itself
_UNITS = {"s", "ms", "us", "h", "nm", "m", "db", "per", "percent", "fraction", "ratio", "flop", "gflop", "tflop"}
_UNITS |= {"kb", "mb", "gb", "kib", "mib", "gib"}
_PACKAGES = ("torch", "deepspeed", "ray", "zarr", "webdataset", "numpy", "diffclip-dist")


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the two options that every benchmark has: ``--quick`` and ``--json FILE``."""
    parser = CommandParser(Path(sys.argv[0]).name, description)
    parser.add_argument(
        "--quick", action="store_true", help="smaller and fewer measurements, under 60 s on two cores (off)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, configuration and rows there (off)")
    return parser


def describe_machine() -> dict[str, Value]:
    """What a reader needs to know to compare figures: processor, cores at hand, memory, GPUs and library versions."""
    import torch  # here, so that a benchmark's --help answers at once

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    machine: dict[str, Value] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": ", ".join(gpus) or "none",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            machine[package] = None
    return machine


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def median_row(rows: Sequence[Row]) -> dict[str, Value]:
    """One row out of the rows of several repeats.

    Args:
        rows: one per repeat, with the same keys; whatever is no number, and every setting, is the same in all.

    Returns:
        The median of each number. Numbers that differ between repeats also get ``lowest_`` and ``highest_`` keys, so
        that the spread stays on record; ``repeats`` counts the rows.

    Raises:
        ValueError: no rows, keys differ, or a text differs between repeats.
    """
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("expected at least one row, and the same keys in each")
    combined: dict[str, Value] = {}
    for key, first in rows[0].items():
        values = [row[key] for row in rows]
        if all(value == first for value in values):
            combined[key] = first
            continue
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(values):
            raise ValueError(f"{key}: differs between repeats and is not a number: {values}")
        combined[key] = statistics.median(numbers)
        combined[LOWEST + key], combined[HIGHEST + key] = min(numbers), max(numbers)
    return combined | {"repeats": len(rows)}


def repeated(measure: Callable[[], Row], repeats: int) -> dict[str, Value]:
    """Runs one measurement once to warm up and then `repeats` times; the `median_row` of those."""
    measure()
    return median_row([measure() for _ in range(repeats)])


def print_table(title: str, rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints rows as a table, one column a key; a number with a spread reads ``median (lowest to highest)``."""
    columns = columns_of(rows)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(cell(row, column) for column in columns))
    console = console or Console()
    if not console.is_terminal:  # a file or a pipe has no width to fit
        console.width = max(
            console.width, console.measure(table, options=console.options.update(width=_NO_LIMIT)).maximum
        )
    console.print(table)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The keys of a table's columns; the spread of a number stands beside it."""
    return [key for key in dict.fromkeys(k for row in rows for k in row) if not key.startswith((LOWEST, HIGHEST))]


def cell(row: Row, key: str, digits: int = 4) -> str:
    """A row's value as tables show it, with its spread."""
    text = cell_text(row.get(key), digits)
    if LOWEST + key in row:
        text += f" ({cell_text(row[LOWEST + key], digits)} to {cell_text(row[HIGHEST + key], digits)})"
    return text


def cell_text(value: object, digits: int = 4) -> str:
    """A value as tables show it; a number below 1,000 has so many significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def check_destination(path: Path | None) -> None:
    """Refuses a ``--json`` that could not be written, before anything is measured.

    Raises:
        BadInput: the folder to write to does not exist.
    """
    if path is not None and not path.parent.is_dir():
        raise BadInput(f"--json {path}: expected a file in a folder that exists")


def write_json(path: Path, config: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Writes ``{"machine", "config", "rows"}``, whole or not at all.

    Raises:
        BadInput: the folder to write to does not exist.
        ValueError: a number is not finite, or its key does not name a unit.
    """
    numbers = {
        key
        for row in rows
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for key in sorted(numbers):
        if not (_UNITS.intersection(key.lower().split("_")) or key.endswith("s")):
            raise ValueError(f"{key}: a row's numbers have their unit in the key's name, such as {key}_percent")
    report = {"machine": describe_machine(), "config": dict(config), "rows": [dict(row) for row in rows]}
    text = json.dumps(report, indent=2, allow_nan=False)
    check_destination(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        BadInput: it is none.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        if not {"machine", "config", "rows"} <= report.keys():
            raise ValueError("no machine, config and rows")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected what a benchmark's --json wrote, found {error}") from None
    return report
