"""A rank's snapshot on its node's disk, kept until the upload ends; also removes the snapshots of killed workers."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "diffclip-checkpoint-"
_UNLOCKED: Final = "diffclip-new-"  # other processes ignore folders of this name


class SnapshotFolder:
    """A new folder among the node's temporary files, held by a lock that ends with the process.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        made = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
        # a file system without locks gives none; then no other process can remove the folder
        self._lock = _lock(made)
        self.path = made.rename(made.with_name(_PREFIX + made.name.removeprefix(_UNLOCKED)))

    def remove(self) -> None:
        """Removes the folder and its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def remove_abandoned() -> None:
    """Removes the snapshots that ended processes have left on this node."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process holds it or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it was removed meanwhile, or belongs to another user
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
