"""Where a rank's snapshot lies on its node's disk until it is in the store; what killed workers left is removed."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "diffclip-checkpoint-"


class SnapshotFolder:
    """A new folder among the node's temporary files, held by a lock that the system lets go of with the process.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            lock = _lock(self.path)
            if lock is not None and self.path.exists():
                self._lock = lock
                return
            if lock is not None:  # another worker's `remove_abandoned` came between
                os.close(lock)

    def remove(self) -> None:
        """Removes it with what lies in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned() -> None:
    """Removes the snapshots of this node's processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder, or None where another holds it or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # removed meanwhile, or another user's
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
