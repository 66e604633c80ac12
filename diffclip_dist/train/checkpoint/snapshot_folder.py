"""Where a rank's snapshot lies on its node's disk until it is in the store; what killed workers left is removed."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "diffclip-checkpoint-"
_UNLOCKED: Final = "diffclip-new-"  # not yet looked at by others


class SnapshotFolder:
    """A new folder among the node's temporary files, held by a lock that the system lets go of with the process.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        made = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
        # a file system without locks gives none, and so nobody else removes the folder
        self._lock = _lock(made)
        self.path = made.rename(made.with_name(_PREFIX + made.name.removeprefix(_UNLOCKED)))

    def remove(self) -> None:
        """Removes it with what lies in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def remove_abandoned() -> None:
    """Removes the snapshots of this node's processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder, or None where it cannot be held: another does, or it is gone."""
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
