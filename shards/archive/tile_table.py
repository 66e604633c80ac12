"""Many tiles in a few arrays, which take a fifth of the memory of as many records and are sent in milliseconds.

Each rank and each loader process of a run holds every tile that it may be asked for.

Shapes: T tiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shards.archive.manifest import TileRecord

_NUMBERS: Final = ("offset", "bytes", "row", "col", "height", "width", "valid_pixels")


@dataclass(frozen=True, eq=False)
class TileTable:
    """Records of tiles, in their order.

    Attributes:
        scenes_T: names of their scenes, in UTF-8; so are ``keys_T`` and ``paths_T``.
        numbers_T: the further fields of `TileRecord`, int64.
    """

    scenes_T: npt.NDArray[np.bytes_]
    keys_T: npt.NDArray[np.bytes_]
    paths_T: npt.NDArray[np.bytes_]
    numbers_T: dict[str, npt.NDArray[np.int64]]

    @classmethod
    def of(cls, tiles: Sequence[TileRecord]) -> "TileTable":
        """A table of these tiles."""
        return cls(
            np.array([tile.scene.encode() for tile in tiles], np.bytes_),
            np.array([tile.key.encode() for tile in tiles], np.bytes_),
            np.array([tile.path.encode() for tile in tiles], np.bytes_),
            {name: np.array([getattr(tile, name) for tile in tiles], np.int64) for name in _NUMBERS},
        )

    @property
    def valid_pixels(self) -> npt.NDArray[np.int64]:
        """Valid core pixels of each tile."""
        return self.numbers_T["valid_pixels"]

    def __len__(self) -> int:
        return len(self.keys_T)

    def __getitem__(self, index: int) -> TileRecord:
        scene, key, path = (bytes(texts_T[index]).decode() for texts_T in (self.scenes_T, self.keys_T, self.paths_T))
        return TileRecord(scene, key, path, **{name: int(values[index]) for name, values in self.numbers_T.items()})

    def __iter__(self) -> Iterator[TileRecord]:
        return (self[index] for index in range(len(self)))
