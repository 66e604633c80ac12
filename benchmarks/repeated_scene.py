"""A generated scene of any size, cheaply: one generated tile repeated."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import rasterio

from shards.scene.source import Classes, Labels, Mask, Modality, Values
from shards.simulate.generated_scene import GeneratedScene


@dataclass(frozen=True)
class RepeatedScene:
    """A `SceneSource` that repeats a generated scene in rows and columns, on a grid of 10 m in UTM zone 33.

    Attributes:
        name: of the scene.
        tile: what is repeated; held in memory once it is read.
        height: rows.
        width: columns.
    """

    name: str
    tile: GeneratedScene
    height: int
    width: int

    generated = True
    crs_wkt = rasterio.CRS.from_epsg(32633).to_wkt()
    transform = (10.0, 0.0, 3e5, 0.0, -10.0, 58e5)

    @property
    def identity(self) -> str:
        """The settings, which determine every pixel."""
        return f"{self.tile.identity} repeated to {self.height} x {self.width}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return self.tile.modalities

    @property
    def classes(self) -> Classes:
        return self.tile.classes

    def read(self, modality: str, rows: slice, cols: slice) -> tuple[Values, Mask]:
        """Values (row, col, band) and where they are valid (row, col)."""
        values, valid = self._values[modality]
        place = self._place(rows, cols)
        return values[place], valid[place]

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); 0 where a pixel is unlabelled."""
        labels: Labels = self._labels[self._place(rows, cols)]
        return labels

    def read_split(self, rows: slice, cols: slice) -> tuple[Labels, Labels]:
        """There is no official split: both maps are empty."""
        labels = self.read_labels(rows, cols)
        return np.zeros_like(labels), np.zeros_like(labels)

    @cached_property
    def _values(self) -> dict[str, tuple[Values, Mask]]:
        return {one.name: self.tile.read(one.name, slice(None), slice(None)) for one in self.modalities}

    @cached_property
    def _labels(self) -> Labels:
        return self.tile.read_labels(slice(None), slice(None))

    def _place(self, rows: slice, cols: slice) -> tuple[np.ndarray, ...]:
        row, col = np.arange(*rows.indices(self.height)), np.arange(*cols.indices(self.width))
        return np.ix_(row % self.tile.height, col % self.tile.width)
