"""Many tiles in a few arrays, which take a fifth of the memory of as many records and are sent in milliseconds.

Each rank and each loader process of a run holds every tile that it may be asked for.

Shapes: T tiles.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from shards.archive.manifest import TileRecord

TEXTS: Final = ("scene", "key", "path")
NUMBERS: Final = ("offset", "bytes", "row", "col", "height", "width", "valid_pixels")
_TILE: Final = TypeAdapter(TileRecord)


class StoredRows(Protocol):
    """Where the rows of a table lie on this machine or on storage that all workers share. Small to send."""

    def table(self) -> "TileTable":
        """The table that is read from there."""


@dataclass(frozen=True, eq=False)
class TileTable:
    """Records of tiles, in their order.

    Attributes:
        scenes_T: names of their scenes, in UTF-8; so are ``keys_T`` and ``paths_T``.
        numbers_T: the further fields of `TileRecord`, int64.
        stored: where another process reads them instead of being sent them; None where they are sent.
    """

    scenes_T: npt.NDArray[np.bytes_]
    keys_T: npt.NDArray[np.bytes_]
    paths_T: npt.NDArray[np.bytes_]
    numbers_T: dict[str, npt.NDArray[np.int64]]
    stored: StoredRows | None = None

    @classmethod
    def of(cls, tiles: Sequence[TileRecord]) -> "TileTable":
        """A table of these tiles."""
        return cls(
            np.array([tile.scene.encode() for tile in tiles], np.bytes_),
            np.array([tile.key.encode() for tile in tiles], np.bytes_),
            np.array([tile.path.encode() for tile in tiles], np.bytes_),
            {name: np.array([getattr(tile, name) for tile in tiles], np.int64) for name in NUMBERS},
        )

    @classmethod
    def from_columns(cls, columns: Mapping[str, npt.NDArray[Any]], stored: StoredRows | None = None) -> "TileTable":
        """A table of these columns, by the fields of `TileRecord`."""
        numbers_T = {name: columns[name] for name in NUMBERS}
        return cls(columns["scene"], columns["key"], columns["path"], numbers_T, stored)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Its columns, by the fields of `TileRecord`."""
        return {"scene": self.scenes_T, "key": self.keys_T, "path": self.paths_T, **self.numbers_T}

    def __reduce__(self) -> tuple[Callable[..., "TileTable"], tuple[Any, ...]]:
        if self.stored is not None:
            return _read_again, (self.stored,)
        return TileTable, (self.scenes_T, self.keys_T, self.paths_T, self.numbers_T)

    @property
    def valid_pixels(self) -> npt.NDArray[np.int64]:
        """Valid core pixels of each tile."""
        return self.numbers_T["valid_pixels"]

    def __len__(self) -> int:
        return len(self.keys_T)

    def __getitem__(self, index: int) -> TileRecord:
        return checked_tile({name: values[index] for name, values in self.columns().items()})

    def __iter__(self) -> Iterator[TileRecord]:
        return (self[index] for index in range(len(self)))


def checked_tile(row: Mapping[str, Any]) -> TileRecord:
    """The record of a table's row.

    Raises:
        ValueError: a field is none of a tile, such as a path out of the archive.
    """
    texts = {name: bytes(row[name]).decode() for name in TEXTS}
    return _TILE.validate_python(texts | {name: int(row[name]) for name in NUMBERS})


def _read_again(stored: StoredRows) -> TileTable:
    return stored.table()
