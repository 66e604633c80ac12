"""A local cache of bounded size in front of a remote archive, shared by all processes of a machine."""

import contextlib
import hashlib
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from shards.errors import BadInput

CHECKSUM_BYTES = 4
FOLDER_VARIABLE = "DIFFCLIP_CACHE"
SIZE_VARIABLE = "DIFFCLIP_CACHE_MB"
DEFAULT_MB = 8192


@dataclass(frozen=True)
class Cache:
    """Pieces of files in a folder; the least recently used go first when there are too many.

    Attributes:
        folder: local folder; made when first written to.
        limit_bytes: the pieces together never take more, but for those that several processes write in one moment.
    """

    folder: Path
    limit_bytes: int

    def get(self, key: str) -> bytes | None:
        """A piece; None where it is not there, or not as it was written."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        piece = content[CHECKSUM_BYTES:]
        if content[:CHECKSUM_BYTES] != _checksum(piece):
            path.unlink(missing_ok=True)
            return None
        return piece

    def put(self, key: str, piece: bytes) -> None:
        """Keeps a piece, after making room for it; a cache that cannot be written keeps nothing."""
        size = len(piece) + CHECKSUM_BYTES
        if size > self.limit_bytes:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_checksum(piece))
                    file.write(piece)
                Path(temporary).replace(self._path(key))
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _make_room(self, size: int) -> None:
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(file_size for _, file_size, _ in found)
        for _, file_size, path in sorted(found):
            if total + size <= self.limit_bytes:
                return
            Path(path).unlink(missing_ok=True)
            total -= file_size

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode()).hexdigest()


def machine_cache() -> Cache:
    """The cache that the environment asks for: DIFFCLIP_CACHE names its folder, DIFFCLIP_CACHE_MB its size (8192).

    Raises:
        BadInput: the size is no number of megabytes.
    """
    folder = os.environ.get(FOLDER_VARIABLE) or str(Path(tempfile.gettempdir()) / f"diffclip-dist-cache-{os.getuid()}")
    size = os.environ.get(SIZE_VARIABLE, str(DEFAULT_MB))
    if not size.isdigit():
        raise BadInput(f"{SIZE_VARIABLE}: {size!r}, expected a whole number of megabytes; 0 keeps nothing")
    return Cache(Path(folder), int(size) << 20)


def _checksum(piece: bytes) -> bytes:
    return zlib.crc32(piece).to_bytes(CHECKSUM_BYTES, "little")
