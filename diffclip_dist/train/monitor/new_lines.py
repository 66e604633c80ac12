"""Reads a file while another process writes it."""

import os
from pathlib import Path


class NewLines:
    """Reads a file that another process appends to, each line once.

    Args:
        file: it may appear later. One that takes its place is read from the beginning, as workers that start anew write
            the metrics anew.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._inode = 0
        self._offset = 0

    def read(self) -> list[str]:
        """The complete lines since the last call."""
        try:
            with self._file.open("rb") as lines:
                status = os.fstat(lines.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                lines.seek(self._offset)
                written = lines.read()
        except FileNotFoundError:
            return []
        complete = written[: written.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode().splitlines()
