"""A local cache of bounded size in front of a remote archive, shared by all of a user's processes on a machine.

The shared folder for temporary files is open to every user, and the processes have to agree on the cache's name. So the
folder must be the user's own and closed to others, and each piece carries a hash that ties it to its key.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shards.errors import BadInput

HASH_BYTES = hashlib.sha256().digest_size
FOLDER_VARIABLE = "DIFFCLIP_CACHE"
SIZE_VARIABLE = "DIFFCLIP_CACHE_MB"
DEFAULT_MB = 8192


@dataclass(frozen=True)
class Cache:
    """Pieces of files in a folder. It deletes the least recently used pieces to make room.

    Attributes:
        folder: local folder, see `private_folder`.
        limit_bytes: upper limit for all pieces together; processes that write at the same moment may exceed it briefly.
    """

    folder: Path
    limit_bytes: int

    def get(self, key: str) -> bytes | None:
        """The piece of this key; None if it is absent or its hash does not fit."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        piece = content[HASH_BYTES:]
        if content[:HASH_BYTES] != _hash(key, piece):
            path.unlink(missing_ok=True)
            return None
        return piece

    def put(self, key: str, piece: bytes) -> None:
        """Keeps a piece, after making room for it. If the folder cannot be written to, it keeps nothing."""
        size = len(piece) + HASH_BYTES
        if size > self.limit_bytes:
            return
        with contextlib.suppress(OSError):
            self._make_room(size)
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_hash(key, piece))
                    file.write(piece)
                Path(temporary).replace(self._path(key))
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _make_room(self, size: int) -> None:
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process has deleted it
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
        BadInput: the size is not a whole number of megabytes, or the folder is not the user's own.
    """
    default = Path(tempfile.gettempdir()) / f"diffclip-dist-cache-{os.getuid()}"
    size = os.environ.get(SIZE_VARIABLE, str(DEFAULT_MB))
    if not size.isdigit():
        raise BadInput(f"{SIZE_VARIABLE}: {size!r}, expected a whole number of megabytes; 0 keeps nothing")
    named = os.environ.get(FOLDER_VARIABLE)
    folder = private_folder(Path(named or default))
    if not named:
        folder.chmod(0o700)  # earlier versions made it readable to all
    return Cache(folder, int(size) << 20)


def private_folder(folder: Path) -> Path:
    """A folder of this user's own, made with mode 700 where it is absent.

    Raises:
        BadInput: the folder is a link, belongs to another user, or others may write to it, so its content cannot be
            trusted; or it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if not own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BadInput(
                f"{FOLDER_VARIABLE}: {folder}: expected a folder that you own and nobody else can write to; "
                f"remove it, or set {FOLDER_VARIABLE} to another folder"
            )
    except OSError as error:
        raise BadInput(f"{FOLDER_VARIABLE}: {folder}: cannot be made: {error.strerror}") from error
    return folder


def _hash(key: str, piece: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + piece).digest()
