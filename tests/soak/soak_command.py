"""What both soaks are as commands: options, a folder of their own, tables, JSON with a picture beside it, a status."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from report import Row, Value, check_destination, print_table, write_json

# folder of its own, options, where the picture goes: rows, and whether nothing was wrong
Soak = Callable[[Path, argparse.Namespace, Path | None], tuple[list[Row], bool]]


def soak_parser(said: str | None, minutes: float, what: str) -> argparse.ArgumentParser:
    """The options that both have; a soak adds its own."""
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=minutes, help=f"how long {what} ({minutes:g})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures there, and a picture beside it (off)")
    return parser


def run_soak(
    parser: argparse.ArgumentParser,
    soak: Soak,
    parts: Sequence[str],
    config: Callable[[argparse.Namespace], dict[str, Value]],
) -> int:
    """Soaks, prints a table a part, and writes `--json`; 0 where nothing was wrong, else 1."""
    given = parser.parse_args()
    check_destination(given.json)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        os.environ["TMPDIR"] = tempfile.tempdir = scratch  # what is left there at the end was left over
        picture = None if given.json is None else given.json.with_suffix(".png").absolute()
        rows, passed = soak(Path(scratch), given, picture)
    for part in parts:
        print_table(part, [row for row in rows if row["part"] == part])
    if given.json is not None:
        write_json(given.json, config(given), rows)
    return 0 if passed else 1
