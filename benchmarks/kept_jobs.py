"""Results of jobs in files, so that a benchmark that was stopped goes on where it was."""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def keep_option(parser: argparse.ArgumentParser, folder: str, of: str) -> None:
    """Adds ``--keep DIR``, the folder of results, to a benchmark's options.

    Args:
        parser: of the benchmark.
        folder: where they are kept unless another is given.
        of: what it holds.
    """
    said = f"folder of {of} (%(default)s)"
    parser.add_argument("--keep", type=Path, default=Path(folder), metavar="DIR", help=said)


def digest(settings: object) -> str:
    """A short name of settings that JSON can hold; equal settings have equal names."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def kept(keep: Path, settings: object, job: Callable[[], Any]) -> Any:
    """The result of a job, as JSON gives it back: computed now, or read if it was computed before.

    Args:
        keep: folder of the results.
        settings: all that the result depends on.
        job: gives something that JSON can hold.
    """
    return kept_in(keep / "jobs" / f"{digest(settings)}.json", job)


def kept_in(file: Path, job: Callable[[], Any]) -> Any:
    """The same, kept in a file of this name."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(job()))
        partial.replace(file)
    return json.loads(file.read_text())
