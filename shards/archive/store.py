"""Where an archive lies: a local folder or any fsspec URL (s3://, gs://, memory://), behind one small interface."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec
import zarr.storage

from shards.errors import BadInput
from shards.extras import missing_extra

READ_BLOCK = 8 << 20


class Store(Protocol):
    """Files below one place, named by paths relative to it. A plain value that can be sent to another process."""

    @property
    def location(self) -> str:
        """The place as the user wrote it, for messages."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file there is, -1 for links and devices; empty where the place does not exist."""

    def read(self, path: str) -> bytes:
        """A whole file; FileNotFoundError where there is none."""

    def read_range(self, path: str, offset: int, count: int) -> bytes:
        """At most `count` bytes of a file from `offset`; FileNotFoundError where there is none."""

    def open(self, path: str) -> BinaryIO:
        """A file to be read from its beginning; FileNotFoundError where there is none."""

    def sha256(self, path: str) -> str:
        """Hash of a file's content."""

    def put(self, file: Path, path: str) -> None:
        """Moves a local file here; readers see it whole or not at all."""

    def write(self, path: str, content: bytes) -> None:
        """Writes a small file; readers see it whole or not at all."""

    def delete(self, path: str) -> None:
        """Deletes a file, if it is there."""

    def delete_folder(self, path: str) -> None:
        """Deletes all below a path."""

    def delete_all(self) -> None:
        """Deletes the place and all below it."""

    def zarr_store(self, path: str) -> Any:
        """What zarr opens a group from, for reading."""

    def local_folder(self, path: str, files: Sequence[str]) -> AbstractContextManager[Path]:
        """Files below a path in a local folder while the block lasts: where they lie already, or copies of them."""


def open_store(location: str | Path) -> Store:
    """The store at a place; nothing is made there.

    Raises:
        BadInput: the URL's scheme is unknown, or what it needs is not installed.
    """
    text = str(location)
    if "://" not in text:
        return LocalStore(Path(text))
    if text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    try:
        filesystem, root = fsspec.core.url_to_fs(text)
    except ImportError as error:
        missing = missing_extra(error.__cause__) if isinstance(error.__cause__, ImportError) else None
        raise BadInput(f"{text}: cannot be opened: {missing or error}") from error
    except ValueError as error:
        raise BadInput(f"{text}: cannot be opened: {error}") from error
    return RemoteStore(text.rstrip("/"), filesystem, root.rstrip("/"))


def absolute_location(location: str) -> str:
    """The same place from any working directory: a folder's whole path, a URL as it is."""
    return location if "://" in location else str(Path(location).resolve())


@dataclass(frozen=True)
class LocalStore:
    """A folder."""

    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder)

    def sizes(self) -> dict[str, int]:
        sizes = {}
        for path in self.folder.rglob("*"):
            status = path.lstat()  # a link is never followed out of the folder
            if not stat.S_ISDIR(status.st_mode):
                plain = stat.S_ISREG(status.st_mode)
                sizes[path.relative_to(self.folder).as_posix()] = status.st_size if plain else -1
        return sizes

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def read_range(self, path: str, offset: int, count: int) -> bytes:
        with (self.folder / path).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), count, offset)

    def open(self, path: str) -> BinaryIO:
        return (self.folder / path).open("rb")

    def sha256(self, path: str) -> str:
        with (self.folder / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put(self, file: Path, path: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:  # on another disk: copied first
                raise
            with _beside(target) as temporary:
                shutil.copyfile(file, temporary)
            file.unlink()

    def write(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as temporary:
            temporary.write_bytes(content)

    def delete(self, path: str) -> None:
        (self.folder / path).unlink(missing_ok=True)

    def delete_folder(self, path: str) -> None:
        shutil.rmtree(self.folder / path, ignore_errors=True)

    def delete_all(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def zarr_store(self, path: str) -> Any:
        return zarr.storage.LocalStore(self.folder / path, read_only=True)

    @contextmanager
    def local_folder(self, path: str, files: Sequence[str]) -> Iterator[Path]:
        del files  # they lie there with others
        yield self.folder / path


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A file that takes the target's place when the block ends well, and goes when it does not."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteStore:
    """A place on a filesystem that fsspec knows; object stores make each file whole or not at all."""

    location: str
    filesystem: Any
    root: str

    def sizes(self) -> dict[str, int]:
        self.filesystem.invalidate_cache()
        try:
            found = self.filesystem.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        return {path[len(self.root) :].lstrip("/"): int(entry["size"]) for path, entry in found.items()}

    def read(self, path: str) -> bytes:
        return bytes(self.filesystem.cat_file(self._full(path)))

    def read_range(self, path: str, offset: int, count: int) -> bytes:
        return bytes(self.filesystem.cat_file(self._full(path), start=offset, end=offset + count))

    def open(self, path: str) -> BinaryIO:
        file: BinaryIO = self.filesystem.open(self._full(path), "rb", block_size=READ_BLOCK)
        return file

    def sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        with self.open(path) as file:
            while block := file.read(READ_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def put(self, file: Path, path: str) -> None:
        self.filesystem.put_file(str(file), self._full(path))
        file.unlink()

    def write(self, path: str, content: bytes) -> None:
        self.filesystem.pipe_file(self._full(path), content)

    def delete(self, path: str) -> None:
        if self.filesystem.exists(self._full(path)):
            self.filesystem.rm_file(self._full(path))

    def delete_folder(self, path: str) -> None:
        self._delete_below(self._full(path))

    def delete_all(self) -> None:
        self._delete_below(self.root)

    def _delete_below(self, full: str) -> None:
        self.filesystem.invalidate_cache()
        if self.filesystem.exists(full):
            self.filesystem.rm(full, recursive=True)

    def zarr_store(self, path: str) -> Any:
        return zarr.storage.FsspecStore.from_url(f"{self.location}/{path}", read_only=True)

    @contextmanager
    def local_folder(self, path: str, files: Sequence[str]) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="diffclip-fetched-") as folder:
            for file in files:
                self.filesystem.get_file(self._full(f"{path}/{file}"), f"{folder}/{file}")
            yield Path(folder)

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"
