"""The finished blocks of a map that is not finished, so that a map that was killed goes on where it was.

A folder beside the map holds a file a block, synced to disk before it gets its name, and the key of what the map is
made from. The same key finds the blocks again; another one starts anew.
"""

import fcntl
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from diffclip_dist.mapping.predict import MapBlock, Place
from shards.archive.publish import make_folder, new_file
from shards.errors import BadInput

KEY_FILE: Final = "key"
LOCK_FILE: Final = "lock"


@dataclass(frozen=True)
class UnfinishedMap:
    """Finished blocks on disk.

    Attributes:
        folder: where they are.
    """

    folder: Path

    def finished(self) -> dict[Place, int]:
        """Place and pixels of each finished block; one that cannot be read does not count."""
        found = {}
        for file in sorted(self.folder.glob("*.npz")):
            row, col = map(int, file.stem.split("-"))
            try:
                found[Place(row, col)] = self.read(Place(row, col)).pixels
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                file.unlink()
        return found

    def keep(self, block: MapBlock) -> None:
        """Writes a finished block; once this returns, it is safe on disk."""
        arrays = {"class_ids": block.class_ids}
        if block.percent is not None:
            arrays["percent"] = block.percent
        with new_file(self._file(block.place)) as file, file.open("wb") as out:
            np.savez_compressed(out, allow_pickle=False, **arrays)

    def read(self, place: Place) -> MapBlock:
        """A finished block."""
        with np.load(self._file(place), allow_pickle=False) as arrays:
            return MapBlock(place, arrays["class_ids"], arrays.get("percent"))

    def _file(self, place: Place) -> Path:
        return self.folder / f"{place.row}-{place.col}.npz"


def unfinished_folder(file: Path) -> Path:
    """Where the finished blocks of a map are, beside the map."""
    return file.with_name(f".{file.name}.unfinished")


@contextmanager
def unfinished_map(file: Path, key: str) -> Iterator[UnfinishedMap]:
    """The finished blocks of a map; gone when the block ends well, kept when it does not.

    Args:
        file: the map; its folder must exist.
        key: of all that the map's bytes depend on.

    Raises:
        BadInput: another process is writing the same map.
    """
    folder = unfinished_folder(file)
    make_folder(folder)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"--out {file}: another process is writing this map; wait for it, or name another") from None
        key_file = folder / KEY_FILE
        if not key_file.exists() or key_file.read_text() != key:
            for other in folder.iterdir():
                if other.name != LOCK_FILE:
                    other.unlink()
            with new_file(key_file) as written:
                written.write_text(key)
        held = UnfinishedMap(folder)
        try:
            yield held
        except BaseException:
            if not any(folder.glob("*.npz")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
