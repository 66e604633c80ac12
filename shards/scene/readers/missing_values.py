"""Which values of a file mark a pixel as missing."""

from dataclasses import dataclass

import numpy as np

from shards.scene.source import Mask, Values

# relative difference up to which a pixel equals nodata, which is often written with fewer digits than pixels hold
NODATA_TOLERANCE = 5e-7
# beyond this no pixel holds a measurement, and six digits (-3.40282e+38) must do
FAR_BEYOND_MEASUREMENTS = 1e30
FAR_TOLERANCE = 1e-4
# values compared at once, so that masks of single values stay small beside a block
SLICE_VALUES = 1 << 22


@dataclass(frozen=True)
class MissingValues:
    """What a file says of missing pixels. A value that is not finite is always missing.

    Attributes:
        nodata: per band, the values that mark a missing pixel; empty where there are none for any band.
        lowest: values below are missing.
        highest: values above are missing.
    """

    nodata: tuple[tuple[float, ...], ...] = ()
    lowest: float = -np.inf
    highest: float = np.inf

    @classmethod
    def same_in_all(cls, nodata: float | None, bands: int) -> "MissingValues":
        """One nodata value, or none, for all bands."""
        return cls(((nodata,),) * bands) if nodata is not None else cls()

    @property
    def single(self) -> float | None:
        """The nodata value where every band has this one alone, else None."""
        values = {value for band in self.nodata for value in band}
        alike = len(set(self.nodata)) == 1 and len(values) == 1
        return values.pop() if alike else None

    def of_bands(self, bands: tuple[int, ...]) -> "MissingValues":
        """The same for some of the bands (from 1)."""
        nodata = tuple(self.nodata[band - 1] for band in bands) if self.nodata else ()
        return MissingValues(nodata, self.lowest, self.highest)

    def valid(self, values: Values) -> Mask:
        """Where values (row, col, band), which hold every band of this, are not missing: (row, col, band)."""
        valid: Mask = np.ones(values.shape, dtype=np.bool_)
        if np.issubdtype(values.dtype, np.inexact):
            valid &= np.isfinite(values)
        if self.lowest > -np.inf:
            valid &= np.greater_equal(values, self.lowest)
        if self.highest < np.inf:
            valid &= np.less_equal(values, self.highest)
        if len(set(self.nodata)) == 1:
            _mark(valid, values, self.nodata[0])
        else:
            for band, nodata in enumerate(self.nodata):
                _mark(valid[..., band], values[..., band], nodata)
        return valid


def valid_pixels(values: Values, missing: MissingValues) -> Mask:
    """Where every band of a pixel is valid: values (row, col, band) to mask (row, col)."""
    valid: Mask = np.empty(values.shape[:2], dtype=np.bool_)
    rows = max(1, SLICE_VALUES // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        valid[start : start + rows] = missing.valid(values[start : start + rows]).all(axis=-1)
    return valid


def nodata_as(nodata: float, dtype: np.dtype[np.generic]) -> np.generic | None:
    """The nodata value in a file's dtype, or None where that dtype cannot hold it, so that no pixel equals it."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.name)
        if not np.isfinite(nodata) or nodata != int(nodata) or not limits.min <= nodata <= limits.max:
            return None
        return dtype.type(int(nodata))
    limit = np.finfo(dtype.name).max
    return dtype.type(np.clip(nodata, -limit, limit))


def _mark(valid: Mask, values: Values, nodata: tuple[float, ...]) -> None:
    """Takes the values that equal one of these out of a mask of the same shape."""
    for value in nodata:
        marker = nodata_as(value, values.dtype)
        if marker is None or np.isnan(value):
            continue
        if values.dtype.kind in "iu":
            valid &= values != marker
        else:
            apart = abs(float(marker)) * (FAR_TOLERANCE if abs(value) > FAR_BEYOND_MEASUREMENTS else NODATA_TOLERANCE)
            with np.errstate(over="ignore"):  # infinite beyond the type's range, where no finite value lies
                low, high = np.array([float(marker) - apart, float(marker) + apart]).astype(values.dtype)
            valid &= (values < low) | (values > high)
