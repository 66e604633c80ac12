"""What a run has logged, read while it is written, and thinned so that a run of any length fits into memory."""

import json
from pathlib import Path
from typing import Any, Final

from diffclip_dist.train.monitor.new_lines import NewLines
from diffclip_dist.train.run_files import METRICS_FILE

_MOST_STEPS: Final = 2000


class RunHistory:
    """Logged steps of a run, as ``metrics.jsonl`` has them.

    Attributes:
        run_dir: the run's folder.
        probed: those at which the encoder was probed, all of them.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.probed: list[dict[str, Any]] = []
        self._lines = NewLines(run_dir / METRICS_FILE)
        self._kept: list[dict[str, Any]] = []
        self._apart = 1  # of so many logged steps one is kept
        self._logged = 0
        self._last: dict[str, Any] | None = None

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Evenly thinned, some 2,000 at most; the first and the last are always among them."""
        newest = [] if self._last is None or (self._logged - 1) % self._apart == 0 else [self._last]
        return [*self._kept, *newest]

    def update(self) -> bool:
        """Reads what is new; whether there was anything."""
        any_new = False
        for line in self._lines.read():
            self._add(json.loads(line))
            any_new = True
        return any_new

    def _add(self, step: dict[str, Any]) -> None:
        if self._last is not None and step["step"] <= self._last["step"]:  # workers that start anew take steps again
            self._kept, self.probed = (
                [one for one in steps if one["step"] < step["step"]] for steps in (self._kept, self.probed)
            )
            self._logged = len(self._kept) * self._apart
        if self._logged % self._apart == 0:
            self._kept.append(step)
        self._logged += 1
        self._last = step
        if "probe" in step:
            self.probed.append(step)
        if len(self._kept) > _MOST_STEPS:
            self._kept = self._kept[::2]
            self._apart *= 2
