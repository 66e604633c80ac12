"""A georeferenced layer brought onto another grid, block by block, each pixel the same whatever the block."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from shards.errors import BadInput
from shards.scene.readers.layer import Affine6, Grid, Layer
from shards.scene.readers.wrapped_layer import WrappedLayer
from shards.scene.source import Mask, Values

# source pixels that a kernel may reach beyond its place, at the source's resolution or coarser
KERNEL_REACH = 4
# source values held at once; a fine layer under a coarse grid is read in strips
STRIP_VALUES = 16 << 20


@dataclass(frozen=True)
class ResampledLayer(WrappedLayer):
    """A layer on another grid. Values are float32 (the layer's own type for `nearest`); missing stays missing.

    Attributes:
        layer: as its files hold it.
        grid: where it is wanted.
        method: name of a rasterio resampling.
    """

    layer: Layer
    grid: Grid
    method: str

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.layer.dtype if self.method == "nearest" else np.dtype(np.float32)

    @property
    def wavelengths_nm(self) -> tuple[float, ...] | None:
        return self.layer.wavelengths_nm

    @property
    def fwhm_nm(self) -> tuple[float, ...] | None:
        return self.layer.fwhm_nm

    @property
    def bad_bands(self) -> tuple[int, ...]:
        return self.layer.bad_bands

    @property
    def nodata(self) -> float | None:
        return self.layer.nodata if self.method == "nearest" else None

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        values: Values = np.zeros((*shape, len(bands)), dtype=self.dtype)
        valid = np.zeros(shape, dtype=np.bool_)
        start = rows.start
        while start < rows.stop:
            stop = rows.stop
            while (source := self._source(slice(start, stop), cols)) is not None and stop - start > 1:
                if _size(source) * len(bands) <= STRIP_VALUES:
                    break
                stop = start + (stop - start) // 2
            if source is not None:
                place = slice(start - rows.start, stop - rows.start)
                values[place], valid[place] = self._strip(slice(start, stop), cols, bands, source)
            start = stop
        return values, valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(band for band in bands if self.read(rows, cols, (band,))[1].any())

    def _strip(
        self, rows: slice, cols: slice, bands: tuple[int, ...], source: tuple[slice, slice]
    ) -> tuple[Values, Mask]:
        read, read_valid = self.layer.read(*source, bands)
        # float64 holds every value of 32 bits, so that `nearest` gives back what was there
        exact = np.float64 if self.method == "nearest" else np.float32
        planes = np.ascontiguousarray(np.moveaxis(read, -1, 0), dtype=exact)
        planes[:, ~read_valid] = np.nan
        shape = (len(bands), rows.stop - rows.start, cols.stop - cols.start)
        warped = np.full(shape, np.nan, dtype=exact)
        reproject(
            planes,
            warped,
            src_transform=_window(self.layer.grid.transform, source),
            src_crs=self.layer.grid.crs_wkt,
            dst_transform=_window(self.grid.transform, (rows, cols)),
            dst_crs=self.grid.crs_wkt,
            src_nodata=np.nan,
            dst_nodata=np.nan,
            resampling=Resampling[self.method],
            tolerance=0,  # the exact place of every pixel, not one interpolated over the block
            XSCALE=repr(self._scale[0]),
            YSCALE=repr(self._scale[1]),
        )
        valid: Mask = np.asarray(np.isfinite(warped).all(axis=0))
        values = np.where(valid, warped, 0).astype(self.dtype)
        return np.moveaxis(values, 0, -1), valid

    @property
    def _scale(self) -> tuple[float, float]:
        """Source pixels that one wanted pixel spans, inverted; fixed over the grid, so that blocks agree."""
        middle_row, middle_col = self.grid.height // 2, self.grid.width // 2
        corners = np.add([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[middle_row], [middle_col]])
        cols, rows = self._places(*corners)
        across = math.hypot(cols[1] - cols[0], rows[1] - rows[0])
        down = math.hypot(cols[2] - cols[0], rows[2] - rows[0])
        return 1 / across, 1 / down

    def _source(self, rows: slice, cols: slice) -> tuple[slice, slice] | None:
        """The layer's pixels that a block of the wanted grid needs; None where it lies outside the layer."""
        edge_rows = np.linspace(rows.start, rows.stop, num=min(rows.stop - rows.start, 20) + 1)
        edge_cols = np.linspace(cols.start, cols.stop, num=min(cols.stop - cols.start, 20) + 1)
        mesh = np.meshgrid(edge_rows, edge_cols, indexing="ij")
        source_cols, source_rows = self._places(mesh[0].ravel(), mesh[1].ravel())
        reach_x, reach_y = (KERNEL_REACH * max(1.0, 1 / scale) + 1 for scale in self._scale)
        grid = self.layer.grid
        top, bottom = max(0, int(source_rows.min() - reach_y)), min(grid.height, math.ceil(source_rows.max() + reach_y))
        left, right = max(0, int(source_cols.min() - reach_x)), min(grid.width, math.ceil(source_cols.max() + reach_x))
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None

    def _places(
        self, rows: npt.NDArray[np.float64], cols: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Where pixel corners of the wanted grid lie in the layer: columns and rows, with fractions."""
        assert self.grid.transform is not None
        assert self.layer.grid.transform is not None
        a, b, c, d, e, f = self.grid.transform
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        if self.grid.crs_wkt != self.layer.grid.crs_wkt:
            xs, ys = transform(self.grid.crs_wkt, self.layer.grid.crs_wkt, x.tolist(), y.tolist())
            x, y = np.array(xs), np.array(ys)
        a, b, c, d, e, f = self.layer.grid.transform
        x, y = x - c, y - f
        return (e * x - b * y) / (a * e - b * d), (a * y - d * x) / (a * e - b * d)


def resample(layer: Layer, grid: Grid, method: str, field_name: str) -> ResampledLayer:
    """The layer on another grid.

    Raises:
        BadInput: one of the two does not say where it lies.
    """
    for place, what in ((layer.grid, layer.files), (grid, "the first modality")):
        if place.transform is None or place.crs_wkt is None:
            raise BadInput(f"{layer.files}: {field_name}.resample: {what} carries no CRS and transform to resample by")
    return ResampledLayer(layer, grid, method)


def _size(source: tuple[slice, slice]) -> int:
    rows, cols = source
    return int((rows.stop - rows.start) * (cols.stop - cols.start))


def _window(transform_6: Affine6 | None, window: tuple[slice, slice]) -> Affine:
    assert transform_6 is not None
    a, b, c, d, e, f = transform_6
    row, col = window[0].start, window[1].start
    return Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)
