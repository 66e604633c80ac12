"""Which modalities the pixels of a scene have data of, found strip by strip.

A scene is divided into square cells of `CELL` pixels a side, for which pixels are counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shards.archive.archive import ReadableScene, Scene
from shards.scene.source import Labels, Mask

Pattern = tuple[str, ...]

# Side of a cell in pixels
CELL: Final = 16
# Rows of a strip, a multiple of CELL and of the usual tile
STRIP_ROWS: Final = 256
# Bound on the values that are read at once
READ_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class SceneStrip:
    """Some rows of a scene, from its first column to its last.

    Attributes:
        rows: of the scene.
        valid: modality name to bool (row, col), where it has data.
        labels: class ids (row, col); None for a scene without labels.
        split: official training and test maps; None where there is no official split.
    """

    rows: slice
    valid: Mapping[str, Mask]
    labels: Labels | None
    split: tuple[Labels, Labels] | None

    @property
    def present(self) -> Mask:
        """bool (row, col), where any modality has data."""
        present: Mask = np.logical_or.reduce(list(self.valid.values()))
        return present


def read_strips(scene: ReadableScene, names: Sequence[str]) -> Iterator[SceneStrip]:
    """Reads a scene from top to bottom. Values are read only where some pixels may be missing.

    Args:
        scene: the scene, in memory or in an archive.
        names: modalities whose missing pixels are of interest.
    """
    record = scene.record
    pixels = record.height * record.width
    holed = [
        one
        for one in record.modalities
        if one.name in names and (isinstance(scene, Scene) or one.valid_pixels < pixels)
    ]
    pixel_bytes = sum(one.bands * np.dtype(one.dtype).itemsize for one in holed)
    columns = max(READ_BYTES // (STRIP_ROWS * max(pixel_bytes, 1)) // STRIP_ROWS, 1) * STRIP_ROWS
    for top in range(0, record.height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, record.height))
        shape = (rows.stop - rows.start, record.width)
        valid = {name: np.ones(shape, dtype=np.bool_) for name in names}
        for left in range(0, record.width if holed else 0, columns):
            cols = slice(left, min(left + columns, record.width))
            part = scene.read(tuple(one.name for one in holed), rows, cols)
            for one in holed:
                valid[one.name][:, cols] = part.valid[one.name]
        bare = scene.read((), rows)
        yield SceneStrip(rows, valid, bare.labels, bare.split)


class PatternSurvey:
    """How many pixels of each cell of a scene have data of exactly the same modalities.

    Args:
        names: the modalities, in the scene's order.
        height: of the scene.
        width: of the scene.
    """

    def __init__(self, names: Sequence[str], height: int, width: int) -> None:
        self.names = tuple(names)
        self._shape = (-(-height // CELL), -(-width // CELL))
        self._counts: dict[int, npt.NDArray[np.int64]] = {}

    def add(self, strip: SceneStrip) -> None:
        """Counts a strip."""
        code = np.zeros((strip.rows.stop - strip.rows.start, next(iter(strip.valid.values())).shape[1]), np.int64)
        for place, name in enumerate(self.names):
            code |= strip.valid[name].astype(np.int64) << place
        tops, lefts = np.arange(0, code.shape[0], CELL), np.arange(0, code.shape[1], CELL)
        cell_rows = slice(strip.rows.start // CELL, strip.rows.start // CELL + len(tops))
        for one in np.unique(code).tolist():
            counts = self._counts.setdefault(one, np.zeros(self._shape, np.int64))
            in_rows = np.add.reduceat((code == one).astype(np.int64), tops, axis=0)
            counts[cell_rows] += np.add.reduceat(in_rows, lefts, axis=1)

    def patterns(self, least_share: float) -> tuple[Pattern, ...]:
        """Combinations of some but not all modalities that pixels have data of, the most frequent first.

        Args:
            least_share: combinations that a smaller share of the pixels with data has are left out.
        """
        totals = {code: int(counts.sum()) for code, counts in self._counts.items() if code}
        present = sum(totals.values())
        found = [
            (-total, self._pattern(code))
            for code, total in totals.items()
            if code != self._everything and total >= least_share * present
        ]
        return tuple(pattern for _, pattern in sorted(found))

    def cells(self, pattern: Sequence[str]) -> npt.NDArray[np.int64]:
        """Pixels of each cell (cell row, cell column) that have data of these modalities and of no other.

        For all modalities, where no pixel has them all: pixels that have data of any.
        """
        counts = self._counts.get(sum(1 << self.names.index(name) for name in pattern))
        if counts is None and set(pattern) == set(self.names):
            counts = sum((counts for code, counts in self._counts.items() if code), np.zeros(self._shape, np.int64))
        return np.zeros(self._shape, np.int64) if counts is None else counts

    @property
    def _everything(self) -> int:
        return (1 << len(self.names)) - 1

    def _pattern(self, code: int) -> Pattern:
        return tuple(name for place, name in enumerate(self.names) if code >> place & 1)
