"""What every reader gives: an array of bands on a grid that is read window by window."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from shards.scene.source import Mask, Values

Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """Where a layer's pixels lie.

    Attributes:
        height: rows.
        width: columns.
        crs_wkt: coordinate reference system, None where the files carry none.
        transform: affine (a, b, c, d, e, f) from (col, row) to (x, y), None where the files carry none.
    """

    height: int
    width: int
    crs_wkt: str | None = None
    transform: Affine6 | None = None


class Layer(Protocol):
    """An array (row, col, band); stateless, so that it can be sent to another process and read there."""

    @property
    def files(self) -> str:
        """The files, as a message names them."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its files."""

    @property
    def grid(self) -> Grid: ...

    @property
    def bands(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[np.generic]: ...

    @property
    def wavelengths_nm(self) -> tuple[float, ...] | None: ...

    @property
    def fwhm_nm(self) -> tuple[float, ...] | None: ...

    @property
    def bad_bands(self) -> tuple[int, ...]:
        """Bands (from 1) that the files call bad."""

    @property
    def nodata(self) -> float | None:
        """The value that marks a pixel as missing, the same in all files, or None."""

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        """Values (row, col, band) of the bands asked for (from 1), and where they all are valid (row, col)."""


def valid_pixels(values: Values, nodata: float | None) -> Mask:
    """Where every band of a pixel is finite and none equals nodata: values (..., band) to mask (...)."""
    valid: Mask = np.ones(values.shape[:-1], dtype=np.bool_)
    if np.issubdtype(values.dtype, np.inexact):
        valid &= np.isfinite(values).all(axis=-1)
    if nodata is not None and not np.isnan(nodata):
        marker = nodata_as(nodata, values.dtype)
        if marker is not None:
            valid &= (values != marker).all(axis=-1)
    return valid


def nodata_as(nodata: float, dtype: np.dtype[np.generic]) -> np.generic | None:
    """The nodata value in the layer's dtype, or None where that dtype cannot hold it (so that no pixel equals it)."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.name)
        if nodata != int(nodata) or not limits.min <= nodata <= limits.max:
            return None
        return dtype.type(int(nodata))
    with np.errstate(over="ignore"):  # a nodata beyond a float's range is read as infinite, which is missing anyway
        return dtype.type(nodata)


def plain_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic] | None:
    """The little-endian dtype in which an array is kept, or None for anything but real numbers and truth values."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return np.dtype(dtype.newbyteorder("<"))
    return None
