"""Gives a file its final name when its bytes are on disk.

A rename alone is not enough: after a power cut the new name may stand for an empty file. The data are synced before the
rename, and the folder that holds the name after it.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# what file systems answer that cannot sync a folder
_NO_FOLDER_SYNC: Final = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def publish_file(file: Path, target: Path) -> None:
    """Renames a file to its final name on the same disk; readers see it whole or not at all, even after a power cut.

    Raises:
        OSError: the two lie on different disks (EXDEV), or the disk is full or faulty.
    """
    _sync(file, os.O_RDONLY)
    file.replace(target)
    sync_folder(target.parent)


def publish_folder(folder: Path, target: Path) -> None:
    """Renames a folder, whose files were published into it, to its final name on the same disk."""
    sync_folder(folder)
    folder.rename(target)
    sync_folder(target.parent)


def publish_tree(folder: Path, target: Path) -> None:
    """Renames a folder to its final name on the same disk, in place of a folder of that name.

    Brings every file below it to disk first. The earlier folder stays whole until this one has its name; where that
    fails, it gets its name back. After a kill between the two renames, `restore_earlier` gives it back.
    """
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            _sync(path, os.O_RDONLY)
    earlier = _earlier(target)
    if not target.exists():
        publish_folder(folder, target)
        return
    shutil.rmtree(earlier, ignore_errors=True)
    target.rename(earlier)
    try:
        publish_folder(folder, target)
    except OSError:
        earlier.rename(target)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def restore_earlier(target: Path) -> None:
    """Gives the earlier folder its name back, if `publish_tree` was killed between its two renames."""
    earlier = _earlier(target)
    if earlier.is_dir() and not target.exists():
        publish_folder(earlier, target)


def _earlier(target: Path) -> Path:
    return target.with_name(f".{target.name}.earlier")


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A file to write that is published as the target when the block ends well, and removed when it does not."""
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.new")
    try:
        yield temporary
        publish_file(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents where they are absent, each with its name safe on disk."""
    absent = []
    while not folder.is_dir():
        absent.append(folder)
        folder = folder.parent
    for made in reversed(absent):
        made.mkdir(exist_ok=True)
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to disk, where the file system can."""
    try:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
