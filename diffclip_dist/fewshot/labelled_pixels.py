"""Labelled pixels as lists, gathered strip by strip: a scene is large, its labelled pixels are few."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
ClassIds = npt.NDArray[np.uint16]

# Of a scene with more, every second one is kept, or every fourth, and so on
MOST_LABELLED: Final = 500_000
# Pixels of a class that are kept in any case, where there are so many
LEAST_OF_CLASS: Final = 1_000


@dataclass(frozen=True)
class LabelledPixels:
    """Labelled pixels of a scene, row by row.

    Attributes:
        places: row * width + column of each, ascending.
        class_ids: of each, at least 1.
    """

    places: Positions
    class_ids: ClassIds

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def none(cls) -> "LabelledPixels":
        """No pixel."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.uint16))

    @classmethod
    def of_map(cls, labels: npt.NDArray[np.uint16]) -> "LabelledPixels":
        """The labelled pixels of a map (row, col), 0 where unlabelled."""
        flat = labels.ravel()
        places = np.flatnonzero(flat)
        return cls(places, flat[places])

    @classmethod
    def of_places(cls, places: Positions) -> "LabelledPixels":
        """The given places, each once and all of one class."""
        each = np.unique(places)
        return cls(each, np.ones(len(each), np.uint16))

    def of_class(self, class_id: int) -> Positions:
        """The places of a class's pixels."""
        places: Positions = self.places[self.class_ids == class_id]
        return places

    def where(self, kept: npt.NDArray[np.bool_]) -> "LabelledPixels":
        """Some of the pixels, bool (pixel)."""
        return LabelledPixels(self.places[kept], self.class_ids[kept])

    def map_of(self, rows: slice, cols: slice, width: int) -> npt.NDArray[np.uint16]:
        """The label map (row, col) of some rows and columns of a scene of that width, 0 where unlabelled."""
        first, last = np.searchsorted(self.places, [rows.start * width, rows.stop * width])
        place_rows, place_cols = np.divmod(self.places[first:last], width)
        inside = (place_cols >= cols.start) & (place_cols < cols.stop)
        labels = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint16)
        labels[place_rows[inside] - rows.start, place_cols[inside] - cols.start] = self.class_ids[first:last][inside]
        return labels

    def find(self, places: Positions) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """Where in the list each place is, and whether it is there at all."""
        if not len(self.places):
            return np.zeros(len(places), np.int64), np.zeros(len(places), np.bool_)
        found = np.minimum(np.searchsorted(self.places, places), len(self.places) - 1)
        return found, self.places[found] == places


class LabelGatherer:
    """Gathers labelled pixels from the first row to the last, at most `MOST_LABELLED` of them, evenly spread.

    Args:
        width: of the scene.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._parts: dict[int, list[Positions]] = {}
        self._kept: dict[int, int] = {}
        self._step: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    @property
    def seen(self) -> int:
        """Labelled pixels so far, kept or not."""
        return sum(self._seen.values())

    @property
    def seen_by_class(self) -> dict[int, int]:
        """Labelled pixels of each class id so far, kept or not, by ascending id."""
        return dict(sorted(self._seen.items()))

    def add(self, first_row: int, labels: npt.NDArray[np.uint16]) -> None:
        """Takes some rows of a label map, from the first column to the last, 0 where unlabelled."""
        found = LabelledPixels.of_map(labels)
        for class_id in np.unique(found.class_ids).tolist():
            places = found.of_class(class_id) + first_row * self._width
            seen, step = self._seen.get(class_id, 0), self._step.get(class_id, 1)
            kept = places[-seen % step :: step]
            self._parts.setdefault(class_id, []).append(kept)
            self._kept[class_id] = self._kept.get(class_id, 0) + len(kept)
            self._seen[class_id] = seen + len(places)
        while sum(self._kept.values()) > MOST_LABELLED and self._thinned():
            pass

    def _thinned(self) -> bool:
        """Drops every second pixel of the classes that are kept most densely; whether there were any."""
        many = [class_id for class_id, kept in self._kept.items() if kept > 2 * LEAST_OF_CLASS]
        least = min((self._step.get(class_id, 1) for class_id in many), default=0)
        for class_id in many:
            if self._step.get(class_id, 1) == least:
                places = np.concatenate(self._parts[class_id])[::2]
                self._parts[class_id], self._kept[class_id], self._step[class_id] = [places], len(places), 2 * least
        return bool(many)

    def gathered(self) -> LabelledPixels:
        """What was kept."""
        parts = [(np.concatenate(found), class_id) for class_id, found in self._parts.items()]
        places = np.concatenate([np.zeros(0, np.int64), *(found for found, _ in parts)])
        class_ids = np.repeat(
            np.array([class_id for _, class_id in parts], np.uint16), [len(found) for found, _ in parts]
        )
        order = np.argsort(places)
        return LabelledPixels(places[order], class_ids[order])
