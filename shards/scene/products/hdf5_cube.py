"""A cube in an HDF5 file whose axes the product's specification names."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from shards.scene.readers.layer import Grid
from shards.scene.readers.missing_values import MissingValues, valid_pixels
from shards.scene.readers.scaling import is_identity, scaled_dtype
from shards.scene.source import Mask, Scaling, Values


@dataclass(frozen=True)
class Hdf5Cube:
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

    @property
    def files(self) -> str:
        return f"{self.path} ({self.variable})"

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def mask_bands(self) -> tuple[int, ...]:
        return ()

    @property
    def band_names(self) -> None:
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return scaled_dtype(self.stored_dtype, self.scaling)

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        return () if self.scaling is None or is_identity(self.scaling) else (self.scaling,)

    @property
    def nodata(self) -> float | None:
        return self.missing.single if self.scaling is None else None

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        values = self._stored(rows, cols, bands)
        valid = valid_pixels(values, self.missing.of_bands(bands))
        if self.zero_in_all:
            valid &= (values != 0).any(axis=-1)
        return (values if self.scaling is None else self.scaling.of_bands(bands).apply(values, self.dtype)), valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        values = self._stored(rows, cols, bands)
        valid = self.missing.of_bands(bands).valid(values)
        if self.zero_in_all:
            valid &= (values != 0).any(axis=-1, keepdims=True)
        return tuple(np.array(bands)[valid.any(axis=(0, 1))].tolist())

    def _stored(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> Values:
        """Values (row, col, band) as the file holds them."""
        first, last = min(bands) - 1, max(bands)
        window: list[slice] = [rows, cols]
        window.insert(self.band_axis, slice(first, last))
        with h5py.File(self.path, "r") as file:
            block = np.moveaxis(np.asarray(file[self.variable][tuple(window)]), self.band_axis, -1)
        if bands != tuple(range(first + 1, last + 1)):
            block = block[..., np.array(bands) - 1 - first]
        return np.ascontiguousarray(block, dtype=self.stored_dtype)
