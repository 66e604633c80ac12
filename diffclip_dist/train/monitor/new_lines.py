"""Reads a file while another process writes it."""

import os
from collections.abc import Iterator
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

    def read(self) -> Iterator[str]:
        """The complete lines since the last call, one after the other: a file read anew may be long."""
        try:
            with self._file.open("rb") as lines:
                status = os.fstat(lines.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                lines.seek(self._offset)
                for line in lines:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    yield line.decode().removesuffix("\n")
        except FileNotFoundError:
            return
