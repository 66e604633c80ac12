"""Zarr and NetCDF through xarray: labelled cubes whose axes, CRS and wavelengths are named in the file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rioxarray  # noqa: F401  adds .rio to xarray's objects
import xarray
from affine import Affine

from shards.errors import BadInput
from shards.scene.readers.cube_attributes import cube_missing, cube_scaling, unsigned
from shards.scene.readers.hdf5_file import open_hdf5
from shards.scene.readers.layer import Affine6, Given, Grid, plain_dtype
from shards.scene.readers.missing_values import MissingValues
from shards.scene.readers.same_grid import checked_crs, checked_transform
from shards.scene.readers.scaling import chosen_scaling
from shards.scene.readers.spectral_tags import NM_PER_UNIT
from shards.scene.readers.stacked import natural_order
from shards.scene.readers.stored_values import StoredValues
from shards.scene.source import Scaling, Values

ROW_NAMES = frozenset(
    {"y", "lat", "latitude", "row", "rows", "northing", "line", "lines", "height", "downtrack", "number_of_lines"}
)
COL_NAMES = frozenset(
    {"x", "lon", "longitude", "col", "cols", "column", "columns", "easting", "sample", "samples", "width", "crosstrack"}
    | {"pixels_per_line"}
)
GEOLOCATION_NAMES = frozenset({"lat", "latitude", "lon", "longitude"})
# what a NetCDF file of version 3 begins with
NETCDF3 = b"CDF"
# of a step; coordinates written as float32 are uneven by less
UNEVEN = 0.05


@dataclass(frozen=True)
class CubeLayer(StoredValues):
    """One variable of a cube; its axes may lie in any order."""

    path: Path
    variable: str
    axes: tuple[str, ...]
    grid: Grid
    bands: int
    stored_dtype: np.dtype[np.generic]
    missing: MissingValues
    scaling: Scaling | None
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None
    notes: tuple[str, ...]

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

    def _stored(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> Values:
        """Values as the file holds them."""
        row, col, *band = self.axes
        places: dict[str, Any] = {row: rows, col: cols}
        if band:
            places[band[0]] = np.array(bands) - 1
        with _open(self.path, _group(self.variable)) as cube:
            array = cube[_name(self.variable)]
            places |= {axis: 0 for axis in map(str, array.dims) if axis not in self.axes}  # such as one time
            block = array.isel(places).transpose(*self.axes).to_numpy()
        block = block.reshape(*block.shape[:2], len(bands))
        if self.stored_dtype.kind == "u" and block.dtype.kind == "i":  # `_Unsigned`: the same bits, read otherwise
            block = np.ascontiguousarray(block).view(block.dtype.newbyteorder("=").str.replace("i", "u"))
        return np.ascontiguousarray(block, dtype=self.stored_dtype)


def open_cube(path: Path, variable: str | None, given: Given, field: str) -> CubeLayer:
    """Opens a variable of a NetCDF file or a Zarr group.

    Raises:
        BadInput: it cannot be read, there is no such variable, its axes are not rows, columns and bands, or its place
            is not as given.
    """
    _check_netcdf(path)
    with _open(path, _group(variable)) as cube:
        found = [str(name) for name, array in cube.data_vars.items() if _may_be_cube(array)]
        if variable is None and len(found) == 1:
            variable = found[0]
        if variable is None or _name(variable) not in found:
            what = "expected `variable`" if variable is None else f"variable {variable!r} is not in it"
            raise BadInput(f"{path}: {what}; it holds: {', '.join(found) or 'no array of 2 or 3 axes'}")
        array = cube[_name(variable)]
        axes = cube_axes(path, array)
        dtype = plain_dtype(unsigned(array.dtype, array.attrs))
        if dtype is None:
            raise BadInput(f"{path}: {variable}: values of type {array.dtype}, expected real numbers")
        if 0 in array.shape:
            raise BadInput(f"{path}: {variable}: array of shape {array.shape}, expected none of its axes empty")
        sizes = [array.sizes[axis] for axis in axes]
        bands = sizes[2] if len(axes) == 3 else 1
        missing = cube_missing(array.attrs, bands, given.nodata)
        scaling = chosen_scaling(cube_scaling(array.attrs, bands), given, bands, f"{path} ({variable})")
        wavelengths, fwhm = band_wavelengths(array, axes[2], cube) if len(axes) == 3 else (None, None)
        if wavelengths is None and bands == 1:
            wavelengths = _own_wavelength(array)
        crs, transform, notes = _place(path, cube, array, axes, given, field)
        grid = Grid(sizes[0], sizes[1], crs, transform, curved=bool(notes))
        return CubeLayer(path, variable, axes, grid, bands, dtype, missing, scaling, wavelengths, fwhm, notes)


def band_variables(path: Path, variable: str | None) -> tuple[str, ...]:
    """Variables that are the bands of one layer, a variable each.

    Args:
        path: the file.
        variable: the variables' names with commas between them, or None: then all the file's arrays, where each of them
            is one band, on the same axes and of the same type. Quality flags and coordinates are none.

    Returns:
        Their names, numbered ones in the order of their numbers; none where one variable is the whole layer.
    """
    if variable is not None:
        return tuple(name.strip() for name in variable.split(",")) if "," in variable else ()
    _check_netcdf(path)
    with _open(path, None) as cube:
        arrays = [array for array in cube.data_vars.values() if _may_be_cube(array) and not _is_beside_data(array)]
        kinds = {(array.dims, array.dtype) for array in arrays}
        if len(arrays) < 2 or len(kinds) > 1 or not all(_is_one_band(array) for array in arrays):
            return ()
        names = [str(array.name) for array in arrays]
    return tuple(sorted(names, key=natural_order) if all(re.search(r"\d", name) for name in names) else names)


def _may_be_cube(array: xarray.DataArray) -> bool:
    """Whether a variable has at least two axes, of which at most three are longer than one."""
    return array.ndim >= 2 and sum(size > 1 for size in array.shape) <= 3


def _is_one_band(array: xarray.DataArray) -> bool:
    names = [str(name).lower() for name in array.dims]
    placed = sum(name in ROW_NAMES for name in names) == sum(name in COL_NAMES for name in names) == 1
    others = [size for name, size in zip(names, array.shape, strict=True) if name not in ROW_NAMES | COL_NAMES]
    return placed and all(size == 1 for size in others)


def _is_beside_data(array: xarray.DataArray) -> bool:
    """Whether a variable holds quality flags (by CF's attributes) or the place of each pixel."""
    return any(key.startswith("flag_") for key in array.attrs) or str(array.name).lower() in GEOLOCATION_NAMES


def _group(variable: str | None) -> str | None:
    """The group that a variable lies in: ``a/b`` of ``a/b/name``."""
    return (variable or "").rpartition("/")[0] or None


def _name(variable: str) -> str:
    return variable.rpartition("/")[2]


def _check_netcdf(path: Path) -> None:
    """Refuses a damaged file before xarray opens it: h5netcdf would print its own traceback as well."""
    if not path.is_file():
        return
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            file.visititems(lambda *_: None)  # opens whatever lies in it
        return
    with path.open("rb") as content:
        if content.read(len(NETCDF3)) != NETCDF3:
            raise BadInput(f"{path}: cannot be read: no NetCDF file")


@contextmanager
def _open(path: Path, group: str | None) -> Iterator[xarray.Dataset]:
    how: dict[str, Any] = {"chunks": None, "mask_and_scale": False, "decode_times": False, "decode_coords": "all"}
    if group is not None:
        how["group"] = group
    if path.is_dir():
        how |= {"engine": "zarr", "consolidated": False}
    try:
        opened = xarray.open_dataset(path, **how)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:  # attributes that are no text, too
        raise BadInput(f"{path}: cannot be read: {error}") from error
    try:
        with opened as cube:
            yield cube
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # h5py's, of damaged files
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: cannot be read: {error}") from error


def cube_axes(path: Path, array: xarray.DataArray) -> tuple[str, ...]:
    """Names of the row, column and (if any) band axis; further axes, such as time, have a length of one."""
    names = [str(name) for name in array.dims]
    rows = [name for name in names if name.lower() in ROW_NAMES]
    cols = [name for name in names if name.lower() in COL_NAMES]
    others = [name for name in names if name not in rows + cols]
    bands = [name for name in others if array.sizes[name] > 1] or others[:1]
    if len(rows) != 1 or len(cols) != 1 or len(bands) > 1:
        raise BadInput(f"{path}: {array.name}: axes {', '.join(names)}, expected y, x and at most one of bands")
    return (rows[0], cols[0], *bands)


def _place(
    path: Path, cube: xarray.Dataset, array: xarray.DataArray, axes: tuple[str, ...], given: Given, field: str
) -> tuple[str | None, Affine6 | None, tuple[str, ...]]:
    """CRS and transform, None for what neither the file nor scene.yaml says, and what a user should know of them."""
    placed = array.rio.set_spatial_dims(axes[1], axes[0])
    found = placed.rio.crs or cube.rio.crs
    own = found.to_wkt() if found is not None else None
    has_coordinates = axes[0] in array.coords and axes[1] in array.coords
    crs_wkt = checked_crs(own, own is not None or has_coordinates, given, f"{path}: {field}")
    for axis in axes[:2] if has_coordinates else ():
        steps = np.diff(array.coords[axis].to_numpy().astype(np.float64))
        # written so that steps that are no numbers are uneven too
        if len(steps) and not np.abs(steps - steps.mean()).max() < UNEVEN * abs(steps.mean()):
            raise BadInput(f"{path}: {field}: coordinates {axis!r} are not evenly spaced; warp it onto a grid first")
    transform = placed.rio.transform() if own is not None or has_coordinates else Affine.identity()
    if transform.is_identity and not has_coordinates:
        swath = sorted(str(name) for name in cube.variables if _is_geolocation(cube[name], axes))
        note = (
            f"{path}: placed by two-dimensional {' and '.join(swath)} alone: read in the sensor's own geometry, "
            "without a place; to place it, warp it onto a grid first (gdalwarp -geoloc)"
        )
        return None, None, (note,) if swath else ()
    return crs_wkt, checked_transform(tuple(transform)[:6], f"{path}: {field}"), ()


def _is_geolocation(variable: xarray.DataArray, axes: tuple[str, ...]) -> bool:
    """Whether a variable gives latitude or longitude pixel by pixel."""
    return set(variable.dims) == set(axes[:2]) and str(variable.name).lower() in GEOLOCATION_NAMES


def band_wavelengths(
    array: xarray.DataArray, axis: str, cube: xarray.Dataset | None = None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Wavelengths and widths in nanometres, from vectors along the band axis that carry a unit of length.

    Args:
        array: the cube's values; its coordinates come first.
        axis: name of its band axis.
        cube: the dataset that it lies in, whose other variables may be such vectors by their names.
    """
    found: dict[str, tuple[float, ...]] = {}
    beside = [] if cube is None else [*cube.data_vars.items()]
    named = [(name, vector) for name, vector in beside if re.search("wave|fwhm", str(name).lower())]
    for name, coordinate in [*array.coords.items(), *named]:
        factor = NM_PER_UNIT.get(str(coordinate.attrs.get("units", "")).strip().lower())
        if coordinate.dims == (axis,) and factor is not None:
            kind = "fwhm" if "fwhm" in str(name).lower() else "wavelength"
            found.setdefault(kind, tuple(float(value) * factor for value in coordinate.to_numpy()))
    return found.get("wavelength"), found.get("fwhm")


def _own_wavelength(array: xarray.DataArray) -> tuple[float] | None:
    """The wavelength in nanometres in a one-band variable's own attributes, if they name a unit of length."""
    for key in ("radiation_wavelength", "central_wavelength", "wavelength"):
        for unit in (f"{key}_unit", f"{key}_units"):
            factor = NM_PER_UNIT.get(str(array.attrs.get(unit, "")).strip().lower())
            if key in array.attrs and factor is not None:
                return (float(array.attrs[key]) * factor,)
    return None
