"""What layers share whose files hold one array: stored values to physical values, and where they are valid."""

from abc import ABC, abstractmethod

import numpy as np

from shards.scene.readers.missing_values import MissingValues, valid_pixels
from shards.scene.readers.scaling import scaled_dtype
from shards.scene.source import Mask, Scaling, Values


class StoredValues(ABC):
    """A part of a `Layer`; the layer itself reads the values as the file holds them.

    Attributes:
        stored_dtype: of the values in the file.
        missing: which values mark missing pixels.
        scaling: what physical values are worked out by; None where they are the values in the file.
    """

    stored_dtype: np.dtype[np.generic]
    missing: MissingValues
    scaling: Scaling | None

    @property
    def mask_bands(self) -> tuple[int, ...]:
        return ()

    @property
    def band_names(self) -> None:
        return None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return scaled_dtype(self.stored_dtype, self.scaling)

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        return () if self.scaling is None else (self.scaling,)

    @property
    def nodata(self) -> float | None:
        return self.missing.single if self.scaling is None else None

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        values = self._stored(rows, cols, bands)
        valid = valid_pixels(values, self.missing.of_bands(bands)) & self._measured(values)
        return (values if self.scaling is None else self.scaling.of_bands(bands).apply(values, self.dtype)), valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        values = self._stored(rows, cols, bands)
        valid = self.missing.of_bands(bands).valid(values) & self._measured(values)[..., np.newaxis]
        return tuple(np.array(bands)[valid.any(axis=(0, 1))].tolist())

    def _measured(self, values: Values) -> Mask:
        """Where stored values hold a measurement (row, col), by a rule that looks at all bands: everywhere."""
        return np.ones(values.shape[:2], dtype=np.bool_)

    @abstractmethod
    def _stored(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> Values:
        """Values (row, col, band) as the file holds them."""
