"""EMIT products: a NetCDF file in the sensor's geometry, with a table that places it on a grid.

Source: NASA JPL, EMIT L2A Algorithm User Guide, and emit-utils (reformat.py): reflectance or radiance with the axes
downtrack, crosstrack, bands and the fill value -9999; group sensor_band_parameters with wavelengths, fwhm (nanometres)
and good_wavelengths (0: bad); group location with glt_x and glt_y (ortho_y, ortho_x), which give the column and row,
counted from 1, that lie at a place of the grid, 0 for none; geotransform and spatial_ref place the grid. Clouds stay:
their mask is a product of its own, and whether they count depends on the task.
"""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import numpy.typing as npt
import pyproj

from shards.errors import BadInput
from shards.scene.products.hdf5_cube import Hdf5Cube
from shards.scene.readers.hdf5_file import numbers_in, open_hdf5
from shards.scene.readers.layer import Given, Grid, Layer, plain_dtype
from shards.scene.readers.missing_values import MissingValues
from shards.scene.readers.same_grid import checked_transform
from shards.scene.readers.scaling import chosen_scaling
from shards.scene.readers.wrapped_layer import WrappedLayer
from shards.scene.source import Mask, Values

SUFFIX: Final = ".nc"
BANDS_GROUP: Final = "sensor_band_parameters"
CUBES: Final = ("reflectance", "radiance", "reflectance_uncertainty")
FILL: Final = -9999.0
BAND_AXIS: Final = 2
# bands that are gathered at once, at least: a window of the swath holds up to twice the pixels asked for, in memory
BANDS_AT_ONCE: Final = 16
# columns of the grid that are looked through at once for bands with data
COLUMNS_AT_ONCE: Final = 64


@dataclass(frozen=True)
class LookedUp(WrappedLayer):
    """A cube in the sensor's geometry, brought onto a grid by a table of rows and columns."""

    layer: Hdf5Cube
    grid: Grid

    @property
    def wavelengths_nm(self) -> tuple[float, ...] | None:
        return self.layer.wavelengths_nm

    @property
    def fwhm_nm(self) -> tuple[float, ...] | None:
        return self.layer.fwhm_nm

    @property
    def bad_bands(self) -> tuple[int, ...]:
        return self.layer.bad_bands

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        values: Values = np.zeros((*shape, len(bands)), dtype=self.dtype)
        source_rows, source_cols = (table[rows, cols] for table in self._table())
        valid: Mask = source_rows >= 0
        if not valid.any():
            return values, valid
        covered = valid.copy()
        window, place = self._window(source_rows[covered], source_cols[covered])
        start = 0
        for _, together in itertools.groupby(bands, self._group):
            part = tuple(together)
            block, block_valid = self.layer.read(*window, part)
            values[covered, start : start + len(part)] = block[place]
            valid[covered] &= block_valid[place]
            start += len(part)
        return values, valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        tables = self._table()
        left = bands
        # a whole row of the grid runs across the swath aslant, and its window would be the whole swath
        starts = range(cols.start, cols.stop, COLUMNS_AT_ONCE)
        middle = (cols.start + cols.stop - COLUMNS_AT_ONCE) / 2
        for start in sorted(starts, key=lambda start: abs(start - middle)):
            part = slice(start, min(start + COLUMNS_AT_ONCE, cols.stop))
            source_rows, source_cols = (table[rows, part] for table in tables)
            covered = source_rows >= 0
            if covered.any():
                window, _ = self._window(source_rows[covered], source_cols[covered])
                found = self.layer.bands_with_data(*window, left)
                left = tuple(band for band in left if band not in found)
            if not left:
                break
        return tuple(band for band in bands if band not in left)

    def _group(self, band: int) -> int:
        """Which bands (from 1) are read together: whole chunks of the file, so that none is unpacked twice."""
        chunk = self.layer.bands_in_chunk
        return (band - 1) // (chunk * -(-BANDS_AT_ONCE // chunk))

    def _table(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        return _lookup_table(self.layer.path, self.layer.path.stat().st_mtime_ns, self.layer.grid)

    def _window(
        self, source_rows: npt.NDArray[np.int32], source_cols: npt.NDArray[np.int32]
    ) -> tuple[tuple[slice, slice], tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
        """The window of the cube that holds these pixels, and their places in it."""
        top, left = int(source_rows.min()), int(source_cols.min())
        window = slice(top, int(source_rows.max()) + 1), slice(left, int(source_cols.max()) + 1)
        return window, (source_rows - top, source_cols - left)


@functools.lru_cache(maxsize=2)
def _lookup_table(path: Path, _stamp: int, swath: Grid) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Row and column of the swath for each place of the grid, counted from 0; -1 where there is none."""
    with open_hdf5(path) as file:
        cols, rows = (
            np.abs(np.asarray(file[f"location/{name}"][...], dtype=np.int32)) - 1 for name in ("glt_x", "glt_y")
        )
    outside = (rows < 0) | (cols < 0) | (rows >= swath.height) | (cols >= swath.width)
    rows[outside] = cols[outside] = -1
    return rows, cols


def emit_layers(path: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The file's cube (`reflectance` or `radiance`), on its grid where it has a lookup table; None for another file.

    Raises:
        BadInput: the file is such a product, and a part of it is not as expected.
    """
    if path.suffix.lower() != SUFFIX or not path.is_file() or not h5py.is_hdf5(path):
        return None
    with open_hdf5(path, field) as file:
        group = file.get(BANDS_GROUP)
        names = [name for name in CUBES if isinstance(file.get(name), h5py.Dataset) and file[name].ndim == 3]
        if not isinstance(group, h5py.Group) or not names:
            return None
        return {name: _open_cube(path, file, group, name, given, field) for name in names}


def _open_cube(path: Path, file: h5py.File, group: h5py.Group, name: str, given: Given, field: str) -> Layer:
    dataset = file[name]
    dtype = plain_dtype(dataset.dtype)
    if dtype is None or 0 in dataset.shape:
        raise BadInput(f"{path}: {field}: {name}: {dataset.dtype} of shape {dataset.shape}, expected numbers")
    height, width, bands = dataset.shape
    nodata = _fill_value(path, dataset, field) if given.nodata is None else given.nodata
    good = _listed(path, group, "good_wavelengths", bands, field)
    cube = Hdf5Cube(
        path,
        name,
        BAND_AXIS,
        Grid(height, width),
        bands,
        dtype,
        MissingValues.same_in_all(nodata, bands),
        False,
        chosen_scaling(None, given, bands, f"{path}: {field}"),
        _listed(path, group, "wavelengths", bands, field),
        _listed(path, group, "fwhm", bands, field),
        tuple(band for band, mark in enumerate(good or (), start=1) if mark == 0),
        bands_in_chunk=1 if dataset.chunks is None else dataset.chunks[BAND_AXIS],
    )
    place = _place(path, file, field)
    return cube if place is None else LookedUp(cube, place)


def _listed(path: Path, group: h5py.Group, key: str, bands: int, field: str) -> tuple[float, ...] | None:
    if not isinstance(group.get(key), h5py.Dataset):
        return None
    return numbers_in(group[key][...], bands, f"{path}: {field}: {BANDS_GROUP}/{key}")


def _fill_value(path: Path, dataset: h5py.Dataset, field: str) -> float:
    own = dataset.attrs.get("_FillValue", FILL)
    try:
        return float(np.asarray(own).ravel()[0])
    except (TypeError, ValueError, IndexError):
        raise BadInput(f"{path}: {field}: {dataset.name}: _FillValue: {own!r}, expected a number") from None


def _place(path: Path, file: h5py.File, field: str) -> Grid | None:
    """The grid of the lookup table; None where the file has none."""
    table, geotransform, spatial_ref = (
        file.get("location/glt_x"),
        file.attrs.get("geotransform"),
        file.attrs.get("spatial_ref"),
    )
    if not isinstance(table, h5py.Dataset) or geotransform is None:
        return None
    tables = [table, file.get("location/glt_y")]
    if not all(isinstance(one, h5py.Dataset) and one.ndim == 2 and one.dtype.kind in "iu" for one in tables):
        raise BadInput(f"{path}: {field}: location/glt_x and glt_y: expected two tables (row, col) of whole numbers")
    if tables[0].shape != tables[1].shape or 0 in table.shape:
        raise BadInput(f"{path}: {field}: location/glt_x and glt_y: expected two tables of one shape")
    where = f"{path}: {field}: geotransform"
    x, step_x, turn_x, y, turn_y, step_y = numbers_in(geotransform, 6, where)
    transform = checked_transform((step_x, turn_x, x, turn_y, step_y, y), where)
    text = spatial_ref.decode(errors="replace") if isinstance(spatial_ref, bytes) else spatial_ref
    try:
        crs = None if text is None else pyproj.CRS.from_user_input(str(text)).to_wkt()
    except pyproj.exceptions.CRSError as error:
        raise BadInput(f"{path}: {field}: spatial_ref is no coordinate reference system") from error
    return Grid(table.shape[0], table.shape[1], crs, transform)
