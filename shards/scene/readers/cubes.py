"""Zarr and NetCDF through xarray: labelled cubes whose axes, CRS and wavelengths are named in the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  adds .rio to xarray's objects
import xarray

from shards.errors import BadInput
from shards.scene.readers.layer import Affine6, Grid, plain_dtype, valid_pixels
from shards.scene.readers.spectral_tags import NM_PER_UNIT
from shards.scene.source import Mask, Values

ROW_NAMES = frozenset({"y", "lat", "latitude", "row", "rows", "northing", "line", "lines", "height"})
COL_NAMES = frozenset({"x", "lon", "longitude", "col", "cols", "column", "easting", "sample", "samples", "width"})


@dataclass(frozen=True)
class CubeLayer:
    """One variable of a cube; its axes may lie in any order."""

    path: Path
    variable: str
    axes: tuple[str, ...]
    grid: Grid
    bands: int
    dtype: np.dtype[np.generic]
    nodata: float | None
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None

    @property
    def files(self) -> str:
        return f"{self.path} ({self.variable})"

    @property
    def paths(self) -> tuple[Path, ...]:
        if self.path.is_dir():
            return tuple(sorted(path for path in self.path.rglob("*") if path.is_file()))
        return (self.path,)

    @property
    def bad_bands(self) -> tuple[int, ...]:
        return ()

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        row, col, *band = self.axes
        places: dict[str, Any] = {row: rows, col: cols}
        if band:
            places[band[0]] = np.array(bands) - 1
        with _open(self.path) as cube:
            block = cube[self.variable].isel(places).transpose(*self.axes).to_numpy()
        values = np.ascontiguousarray(block.reshape(*block.shape[:2], len(bands)), dtype=self.dtype)
        return values, valid_pixels(values, self.nodata)


def open_cube(path: Path, variable: str | None, nodata: float | None) -> CubeLayer:
    """Opens a variable of a NetCDF file or a Zarr group.

    Raises:
        BadInput: it cannot be read, there is no such variable, or its axes are not rows, columns and bands.
    """
    with _open(path) as cube:
        found = [str(name) for name, array in cube.data_vars.items() if array.ndim in (2, 3)]
        if variable is None and len(found) == 1:
            variable = found[0]
        if variable not in found:
            what = "expected `variable`" if variable is None else f"variable {variable!r} is not in it"
            raise BadInput(f"{path}: {what}; it holds: {', '.join(found) or 'no array of 2 or 3 axes'}")
        array = cube[variable]
        axes = _axes(path, array)
        dtype = plain_dtype(array.dtype)
        if dtype is None:
            raise BadInput(f"{path}: {variable}: values of type {array.dtype}, expected real numbers")
        if 0 in array.shape:
            raise BadInput(f"{path}: {variable}: array of shape {array.shape}, expected none of its axes empty")
        sizes = [array.sizes[axis] for axis in axes]
        own = array.attrs.get("_FillValue", array.attrs.get("missing_value"))
        missing = nodata if nodata is not None else _number(own)
        bands = sizes[2] if len(axes) == 3 else 1
        wavelengths, fwhm = _spectral(array, axes[2]) if len(axes) == 3 else (None, None)
        grid = Grid(sizes[0], sizes[1], *_place(cube, array, axes))
        return CubeLayer(path, variable, axes, grid, bands, dtype, missing, wavelengths, fwhm)


@contextmanager
def _open(path: Path) -> Iterator[xarray.Dataset]:
    try:
        how: dict[str, Any] = {"chunks": None, "mask_and_scale": False, "decode_times": False, "decode_coords": "all"}
        if path.is_dir():
            how |= {"engine": "zarr", "consolidated": False}
        with xarray.open_dataset(path, **how) as cube:
            yield cube
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: cannot be read: {error}") from error


def _axes(path: Path, array: xarray.DataArray) -> tuple[str, ...]:
    """Names of the row, column and (if any) band axis."""
    names = [str(name) for name in array.dims]
    rows = [name for name in names if name.lower() in ROW_NAMES]
    cols = [name for name in names if name.lower() in COL_NAMES]
    if len(rows) != 1 or len(cols) != 1:
        raise BadInput(f"{path}: {array.name}: axes {', '.join(names)}, expected y, x and at most one of bands")
    return (rows[0], cols[0], *(name for name in names if name not in (rows[0], cols[0])))


def _place(cube: xarray.Dataset, array: xarray.DataArray, axes: tuple[str, ...]) -> tuple[str | None, Affine6 | None]:
    """CRS and transform, None for what the file does not say."""
    placed = array.rio.set_spatial_dims(axes[1], axes[0])
    crs = placed.rio.crs or cube.rio.crs
    has_coordinates = axes[0] in array.coords and axes[1] in array.coords
    if crs is None and not has_coordinates:
        return None, None
    transform = placed.rio.transform()
    return (crs.to_wkt() if crs is not None else None), tuple(float(value) for value in tuple(transform)[:6])  # type: ignore[return-value]


def _spectral(array: xarray.DataArray, axis: str) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Wavelengths and widths in nanometres, from coordinates along the band axis that carry a unit of length."""
    found: dict[str, tuple[float, ...]] = {}
    for name, coordinate in array.coords.items():
        factor = NM_PER_UNIT.get(str(coordinate.attrs.get("units", "")).strip().lower())
        if coordinate.dims == (axis,) and factor is not None:
            kind = "fwhm" if "fwhm" in str(name).lower() else "wavelength"
            found.setdefault(kind, tuple(float(value) * factor for value in coordinate.to_numpy()))
    return found.get("wavelength"), found.get("fwhm")


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, str | bytes):
        return None
    return float(np.asarray(value).ravel()[0])
