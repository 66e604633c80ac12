"""The layer of a product: its files, with the wavelengths, scale and quality in its metadata."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.scene.readers.layer import Grid, Layer
from shards.scene.readers.scaling import is_identity, scaled_dtype
from shards.scene.readers.wrapped_layer import WrappedLayer
from shards.scene.source import Mask, Scaling, Values

# a quality layer's own nodata value is one of its codes; this one, which no code equals, takes its place
NO_CODE = -1.0


@dataclass(frozen=True)
class QualityMask:
    """A layer of one band whose codes mark where a product has no measurement.

    Attributes:
        layer: on the product's grid.
        values: codes of pixels without a measurement.
        bits: any of these bits marks such a pixel.
    """

    layer: Layer
    values: tuple[int, ...] = ()
    bits: int = 0

    def measured(self, rows: slice, cols: slice) -> Mask:
        """Where there is a measurement (row, col)."""
        codes, covered = self.layer.read(rows, cols, (1,))
        code = codes[..., 0].astype(np.int64)
        measured: Mask = covered & ~np.isin(code, self.values) & ((code & self.bits) == 0)
        return measured


@dataclass(frozen=True)
class ProductLayer(WrappedLayer):
    """A layer with what the product's metadata add to its files.

    Attributes:
        layer: the files.
        wavelengths_nm: centre of each band.
        fwhm_nm: width of each band, where the product gives it.
        bad_bands: bands (from 1) that the product calls bad.
        scaling: to physical values, for files that carry none themselves.
        quality: where the product says that there is no measurement.
    """

    layer: Layer
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None = None
    bad_bands: tuple[int, ...] = ()
    scaling: Scaling | None = None
    quality: tuple[QualityMask, ...] = field(default=())

    @property
    def paths(self) -> tuple[Path, ...]:
        return (*self.layer.paths, *(path for mask in self.quality for path in mask.layer.paths))

    @property
    def grid(self) -> Grid:
        return self.layer.grid

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return scaled_dtype(self.layer.dtype, self._own_scaling)

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        return self.layer.scalings if self._own_scaling is None else (self._own_scaling,)

    @property
    def nodata(self) -> float | None:
        return self.layer.nodata if self._own_scaling is None else None

    @property
    def _own_scaling(self) -> Scaling | None:
        """The product's scaling, unless the files carry their own or it changes nothing."""
        return None if self.scaling is None or self.layer.scalings or is_identity(self.scaling) else self.scaling

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        values, valid = self.layer.read(rows, cols, bands)
        if self._own_scaling is not None:
            values = self._own_scaling.of_bands(bands).apply(values, self.dtype)
        for mask in self.quality:
            valid &= mask.measured(rows, cols)
        return values, valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        return self.layer.bands_with_data(rows, cols, bands)
