"""The most memory that a process has held, as Linux counts it."""

import re
from pathlib import Path


def forget_peak() -> None:
    """Has the kernel count this process's peak memory from now on (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib(process: int | str = "self") -> float:
    """The most memory that a process has held since; 0 for one that has ended.

    Unlike getrusage's, without what its parent held before it.

    Args:
        process: its id; ``self`` is this one.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found[1]) / 1024 if found else 0.0
