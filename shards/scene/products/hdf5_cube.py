"""A cube in an HDF5 file whose axes the product's specification names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.scene.readers.hdf5_file import open_hdf5
from shards.scene.readers.layer import Grid
from shards.scene.readers.missing_values import MissingValues
from shards.scene.readers.stored_values import StoredValues
from shards.scene.source import Mask, Scaling, Values


@dataclass(frozen=True)
class Hdf5Cube(StoredValues):
    """A dataset of three axes, read window by window.

    Attributes:
        path: the file.
        variable: path of the dataset in the file.
        band_axis: which of its axes is the band's; the other two are row and column, in this order.
        grid: of the dataset.
        bands: number of bands.
        stored_dtype: of its values.
        missing: what marks a missing pixel.
        zero_in_all: a pixel of zeros in every band is missing.
        scaling: to physical values.
        wavelengths_nm: centre of each band.
        fwhm_nm: width of each band.
        bad_bands: bands (from 1) that the product calls bad.
        bands_in_chunk: how many bands the file packs together.
    """

    path: Path
    variable: str
    band_axis: int
    grid: Grid
    bands: int
    stored_dtype: np.dtype[np.generic]
    missing: MissingValues
    zero_in_all: bool
    scaling: Scaling | None
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None
    bad_bands: tuple[int, ...]
    bands_in_chunk: int = 1

    @property
    def files(self) -> str:
        return f"{self.path} ({self.variable})"

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def _measured(self, values: Values) -> Mask:
        measured: Mask = (values != 0).any(axis=-1) if self.zero_in_all else super()._measured(values)
        return measured

    def _stored(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> Values:
        """Values (row, col, band) as the file holds them."""
        first, last = min(bands) - 1, max(bands)
        window: list[slice] = [rows, cols]
        window.insert(self.band_axis, slice(first, last))
        with open_hdf5(self.path) as file:
            block = np.moveaxis(np.asarray(file[self.variable][tuple(window)]), self.band_axis, -1)
        if bands != tuple(range(first + 1, last + 1)):
            block = block[..., np.array(bands) - 1 - first]
        return np.ascontiguousarray(block, dtype=self.stored_dtype)
