"""Files in a local folder or below any fsspec URL (s3://, gs://, memory://), behind one small interface."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import fsspec
import zarr.storage

from shards.archive.network import is_network_fault, unreachable, with_retries
from shards.archive.publish import make_folder, new_file, publish_file
from shards.errors import BadInput
from shards.extras import missing_extra

READ_BLOCK = 8 << 20

Result = TypeVar("Result")


class Store(Protocol):
    """Files below one place, named by paths relative to it. A plain value that can be sent to another process."""

    @property
    def location(self) -> str:
        """The place as the user wrote it, for messages."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, -1 for links and devices; empty if the place does not exist."""

    def read(self, path: str) -> bytes:
        """A whole file; FileNotFoundError where there is none."""

    def read_range(self, path: str, offset: int, count: int) -> bytes:
        """At most `count` bytes of a file from `offset`; FileNotFoundError where there is none."""

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
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
        """The argument from which zarr opens a group for reading."""

    def local_folder(self, path: str, files: Sequence[str]) -> AbstractContextManager[Path]:
        """A local folder with the files below a path, or with copies of them, while the block lasts."""


def open_store(location: str | Path) -> Store:
    """The store at a location. It creates nothing.

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
    """The location independent of the working directory: a folder's absolute path, or the URL."""
    return location if "://" in location else str(Path(location).resolve())


@dataclass(frozen=True)
class LocalStore:
    """A folder."""

    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder)

    def sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        _list_below(self.folder, "", sizes)
        return sizes

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def read_range(self, path: str, offset: int, count: int) -> bytes:
        with (self.folder / path).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), count, offset)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return (self.folder / path).open("rb")

    def sha256(self, path: str) -> str:
        with (self.folder / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put(self, file: Path, path: str) -> None:
        target = self.folder / path
        make_folder(target.parent)
        try:
            publish_file(file, target)
        except OSError as error:
            if error.errno != errno.EXDEV:  # on another disk: copied first
                raise
            with new_file(target) as temporary:
                shutil.copyfile(file, temporary)
            file.unlink()

    def write(self, path: str, content: bytes) -> None:
        target = self.folder / path
        make_folder(target.parent)
        with new_file(target) as temporary:
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
        del files  # the folder holds them, perhaps with others
        yield self.folder / path


def _list_below(folder: Path, prefix: str, sizes: dict[str, int]) -> None:
    """Adds the files below a folder. What another process renames or removes meanwhile is left out."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        try:
            status = entry.stat(follow_symlinks=False)  # a link is never followed out of the folder
        except FileNotFoundError:
            continue
        path = f"{prefix}{entry.name}"
        if stat.S_ISDIR(status.st_mode):
            _list_below(folder / entry.name, f"{path}/", sizes)
        else:
            sizes[path] = status.st_size if stat.S_ISREG(status.st_mode) else -1


@dataclass(frozen=True)
class RemoteStore:
    """A place on a filesystem that fsspec knows; object stores make each file whole or not at all."""

    location: str
    filesystem: Any
    root: str

    def sizes(self) -> dict[str, int]:
        def listed() -> dict[str, Any]:
            self.filesystem.invalidate_cache()
            found: dict[str, Any] = self.filesystem.find(self.root, detail=True)
            return found

        try:
            found = with_retries(listed, self.location)
        except FileNotFoundError:
            return {}
        return {path[len(self.root) :].lstrip("/"): int(entry["size"]) for path, entry in found.items()}

    def read(self, path: str) -> bytes:
        return self._tried(path, lambda full: bytes(self.filesystem.cat_file(full)))

    def read_range(self, path: str, offset: int, count: int) -> bytes:
        return self._tried(path, lambda full: bytes(self.filesystem.cat_file(full, start=offset, end=offset + count)))

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        try:
            with self.filesystem.open(self._full(path), "rb", block_size=READ_BLOCK) as file:
                yield file
        except Exception as error:
            if is_network_fault(error):
                raise unreachable(f"{self.location}/{path}", error) from error
            raise

    def sha256(self, path: str) -> str:
        def hashed(_: str) -> str:
            digest = hashlib.sha256()
            with self.open(path) as file:
                while block := file.read(READ_BLOCK):
                    digest.update(block)
            return digest.hexdigest()

        return self._tried(path, hashed)

    def put(self, file: Path, path: str) -> None:
        self._tried(path, lambda full: self.filesystem.put_file(str(file), full))
        file.unlink()

    def write(self, path: str, content: bytes) -> None:
        self._tried(path, lambda full: self.filesystem.pipe_file(full, content))

    def delete(self, path: str) -> None:
        def deleted(full: str) -> None:
            if self.filesystem.exists(full):
                self.filesystem.rm_file(full)

        self._tried(path, deleted)

    def delete_folder(self, path: str) -> None:
        self._tried(path, self._delete_below)

    def delete_all(self) -> None:
        with_retries(lambda: self._delete_below(self.root), self.location)

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
                target = f"{folder}/{file}"
                self._tried(f"{path}/{file}", partial(self.filesystem.get_file, lpath=target))
            yield Path(folder)

    def _tried(self, path: str, call: Callable[[str], Result]) -> Result:
        """The result of a call with a file's full path. It tries again after a network fault."""
        return with_retries(lambda: call(self._full(path)), f"{self.location}/{path}")

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"
