"""What every reader gives: an array of bands on a grid that is read window by window."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from shards.scene.source import Mask, Scaling, Values

Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """Where a layer's pixels lie.

    Attributes:
        height: rows.
        width: columns.
        crs_wkt: coordinate reference system, None where the files carry none.
        transform: affine (a, b, c, d, e, f) from (col, row) to (x, y), None where the files carry none.
        curved: the files give latitude and longitude pixel by pixel, which no transform can hold.
    """

    height: int
    width: int
    crs_wkt: str | None = None
    transform: Affine6 | None = None
    curved: bool = False


@dataclass(frozen=True)
class Given:
    """What scene.yaml says of files that do not say it themselves.

    Attributes:
        nodata: the value of missing pixels; it takes the place of the files' own.
        scale, offset: physical value = scale * file value + offset.
        crs_wkt: coordinate reference system, for files that carry a transform alone.
        crs_is_theirs: it is given for these very files, so that one which it does not fit is refused.
    """

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    crs_wkt: str | None = None
    crs_is_theirs: bool = False

    def scaling(self, bands: int) -> Scaling | None:
        """Scale and offset for each band; None where neither is given."""
        if self.scale is None and self.offset is None:
            return None
        scale = 1.0 if self.scale is None else self.scale
        return Scaling((scale,) * bands, (self.offset or 0.0,) * bands)


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
    def mask_bands(self) -> tuple[int, ...]:
        """Bands (from 1) that say where the others are valid, such as alpha; left out unless asked for."""

    @property
    def band_names(self) -> tuple[str, ...] | None:
        """A name for each band, where files were stacked as bands."""

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        """What `read` applies; empty where it gives values as the files hold them."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the files are read, a line each."""

    @property
    def nodata(self) -> float | None:
        """The value that marks a pixel as missing, the same in all files and bands, or None."""

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        """Values (row, col, band) of the bands asked for (from 1), and where they all are valid (row, col)."""

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the bands (from 1) that have a valid pixel in this window."""


def plain_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic] | None:
    """The little-endian dtype in which an array is kept, or None for anything but real numbers and truth values."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return np.dtype(dtype.newbyteorder("<"))
    return None
