"""Results of jobs in files, so that a benchmark that was stopped goes on where it was."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def digest(settings: Any) -> str:
    """A short name of settings; equal settings have equal names."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def kept(keep: Path, settings: Any, job: Callable[[], Any]) -> Any:
    """The result of a job, as JSON gives it back: computed now, or read if it was computed before.

    Args:
        keep: folder of the results.
        settings: all that the result depends on.
        job: gives something that JSON can hold.
    """
    file = keep / "jobs" / f"{digest(settings)}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(job()))
        partial.replace(file)
    return json.loads(file.read_text())
