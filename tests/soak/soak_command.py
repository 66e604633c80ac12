"""What both soaks are as commands: options, a folder of their own, tables, JSON with a picture beside it, a status.

JSON and picture are written every few minutes, so that a soak that is killed leaves what it has found.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from process_samples import Sample, draw, slope_rows
from report import Row, Value, check_destination, print_table, write_json

WRITE_EVERY_S = 180.0


class Figures:
    """What a soak has found, as JSON with a picture beside it.

    Args:
        file: the JSON; None writes nothing.
        config: of the soak.
    """

    def __init__(self, file: Path | None, config: Mapping[str, Value]) -> None:
        self._file = None if file is None else file.absolute()
        self._config = config
        self._written_s = time.monotonic()

    def keep(
        self, rows: Sequence[Row], samples: Sequence[Sample], events: Sequence[tuple[float, str]], *, ended: bool
    ) -> list[Row]:
        """Writes what is there so far, but not more often than every `WRITE_EVERY_S` before the end.

        Args:
            rows: of the soak itself.
            samples: of its processes.
            events: what came when (s).
            ended: whether the soak is over.

        Returns:
            The rows with how processes grow.
        """
        if not ended and (self._file is None or time.monotonic() - self._written_s < WRITE_EVERY_S):
            return []
        all_rows: list[Row] = [*rows, *slope_rows(samples)]
        if self._file is not None:
            write_json(self._file, {**self._config, "ended": ended}, all_rows)
            draw(samples, events, self._file.with_suffix(".png"))
        self._written_s = time.monotonic()
        return all_rows


# folder of its own, options, where figures go: rows, and whether nothing was wrong
Soak = Callable[[Path, argparse.Namespace, Figures], tuple[list[Row], bool]]


def soak_parser(said: str | None, minutes: float, what: str) -> argparse.ArgumentParser:
    """The options that both have; a soak adds its own."""
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=minutes, help=f"how long {what} ({minutes:g})")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write figures there every few minutes, and a picture beside it (off)"
    )
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
        rows, passed = soak(Path(scratch), given, Figures(given.json, config(given)))
    for part in parts:
        print_table(part, [row for row in rows if row["part"] == part])
    return 0 if passed else 1
