"""Arrays without georeference: .npy, .h5, and .mat of versions 5 and 7.3."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io

from shards.errors import BadInput
from shards.scene.readers.cube_attributes import cube_missing, cube_scaling
from shards.scene.readers.hdf5_file import open_hdf5
from shards.scene.readers.layer import Given, Grid, plain_dtype
from shards.scene.readers.missing_values import MissingValues
from shards.scene.readers.same_grid import checked_crs
from shards.scene.readers.scaling import chosen_scaling
from shards.scene.readers.stored_values import StoredValues
from shards.scene.source import Scaling, Values

HDF5_SUFFIXES: Final = (".h5", ".hdf5")
# Times the shorter side of a scene: with more bands, the axes may be others than row, column and band
MANY_BANDS: Final = 2


@dataclass(frozen=True)
class ArrayLayer(StoredValues):
    """A 2-D (row, col) or 3-D (row, col, band) array in a file."""

    path: Path
    variable: str | None
    grid: Grid
    bands: int
    stored_dtype: np.dtype[np.generic]
    missing: MissingValues
    scaling: Scaling | None

    @property
    def files(self) -> str:
        return str(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def wavelengths_nm(self) -> None:
        return None

    @property
    def fwhm_nm(self) -> None:
        return None

    @property
    def bad_bands(self) -> tuple[int, ...]:
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        height, width = self.grid.height, self.grid.width
        if self.bands <= MANY_BANDS * min(height, width):
            return ()
        return (
            f"{self.path}: read as {height} rows, {width} columns and {self.bands} bands; if its axes are band, row "
            "and column, save it as (row, col, band)",
        )

    def _stored(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> Values:
        """Values as the file holds them."""
        with _open_array(self.path, self.variable) as array:
            block = np.asarray(array[rows, cols])
        values = block.reshape(*block.shape[:2], self.bands)
        if bands != tuple(range(1, self.bands + 1)):
            values = values[..., np.array(bands) - 1]
        return np.ascontiguousarray(values, dtype=self.stored_dtype)


def open_array(path: Path, variable: str | None, given: Given, field: str) -> ArrayLayer:
    """Opens a .npy, .h5 or .mat file as a layer; attributes of an .h5 array count as those of a NetCDF variable.

    Raises:
        BadInput: the file cannot be read, holds no such variable, the array is not 2-D or 3-D numbers, or a CRS is
            given.
    """
    with _open_array(path, variable) as array:
        shape, dtype = tuple(array.shape), plain_dtype(array.dtype)
        kind = array.dtype
        attributes = dict(array.attrs) if isinstance(array, h5py.Dataset) else {}
    if dtype is None:
        raise BadInput(f"{path}: values of type {kind}, expected real numbers")
    if len(shape) not in (2, 3) or 0 in shape:
        raise BadInput(f"{path}: array of shape {shape}, expected (row, col) or (row, col, band), none of them 0")
    checked_crs(None, False, given, f"{path}: {field}")
    bands = shape[2] if len(shape) == 3 else 1
    missing = cube_missing(attributes, bands, given.nodata)
    scaling = chosen_scaling(cube_scaling(attributes, bands), given, bands, str(path))
    return ArrayLayer(path, variable, Grid(shape[0], shape[1]), bands, dtype, missing, scaling)


def read_vector(path: Path, variable: str | None) -> npt.NDArray[np.float64]:
    """All values of a small array of any shape, in order, as float64.

    Raises:
        BadInput: the file cannot be read or holds no numbers.
    """
    with _open_array(path, variable) as array:
        if plain_dtype(array.dtype) is None:
            raise BadInput(f"{path}: values of type {array.dtype}, expected real numbers")
        return np.asarray(array[...], dtype=np.float64).ravel()


@contextmanager
def _open_array(path: Path, variable: str | None) -> Iterator[Any]:
    """The array itself: memory-mapped, sliced on disk, or (.mat version 5) kept whole in memory."""
    if path.suffix == ".npy":
        if variable is not None:
            raise BadInput(f"{path}: variable {variable!r}: a .npy file holds one array without a name")
        try:
            yield np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError, SyntaxError, TokenError) as error:  # a header is Python's text
            raise BadInput(f"{path}: cannot be read as .npy: {error}") from error
    elif path.suffix.lower() in HDF5_SUFFIXES:
        with open_hdf5(path) as file:
            yield file[_choose(path, variable, _hdf5_arrays(file)).replace(".", "/")]
    elif h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            dataset = file[_choose(path, variable, _hdf5_arrays(file)).replace(".", "/")]
            if "MATLAB_empty" in dataset.attrs:
                raise BadInput(f"{path}: variable {variable!r} is empty")
            yield _ColumnMajor(dataset)
    else:
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        yield _load_mat5(path, variable, stamp)


def _hdf5_arrays(group: h5py.Group, prefix: str = "") -> list[str]:
    """Arrays of two axes or more; those in a group, as which MATLAB keeps a struct, are named with dots."""
    found: list[str] = []
    for name, item in group.items():
        if isinstance(item, h5py.Group) and not name.startswith("#"):  # what cells refer to lies in #refs#
            found += _hdf5_arrays(item, f"{prefix}{name}.")
        elif isinstance(item, h5py.Dataset) and item.ndim >= 2 and not _is_text(item):
            found.append(f"{prefix}{name}")
    return found


def _is_text(item: h5py.Dataset) -> bool:
    kind = item.attrs.get("MATLAB_class")
    return isinstance(kind, bytes) and kind == b"char"


@functools.lru_cache(maxsize=4)
def _load_mat5(path: Path, variable: str | None, _stamp: int) -> npt.NDArray[np.generic]:
    """A variable of a .mat file of version 5, which its format limits to 2 GB; kept for the next block."""
    try:
        tops = {name: kind for name, _, kind in scipy.io.whosmat(path)}
        top = None if variable is None else variable.split(".")[0]
        structs = [name for name, kind in tops.items() if kind == "struct" and (top == name or top not in tops)]
        arrays: dict[str, npt.NDArray[np.generic] | None] = {
            name: None for name, kind in tops.items() if kind not in ("struct", "cell", "char", "object", "function")
        }
        for name, struct in scipy.io.loadmat(path, variable_names=structs).items() if structs else ():
            if name in structs:
                arrays |= _struct_arrays(struct, f"{name}.")
        chosen = _choose(path, variable, list(arrays))
        array = arrays[chosen]
        return np.asarray(scipy.io.loadmat(path, variable_names=[chosen])[chosen]) if array is None else array
    except BadInput:
        raise
    except Exception as error:  # scipy raises many kinds on damaged files
        raise BadInput(f"{path}: cannot be read as .mat: {error}") from error


def _struct_arrays(struct: npt.NDArray[np.generic], prefix: str) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays in the fields of one struct and of those within it, named with dots; a list of structs has none."""
    found: dict[str, npt.NDArray[np.generic]] = {}
    if struct.dtype.names is None or struct.size != 1:
        return found
    for name in struct.dtype.names:
        value = np.asarray(struct.flat[0][name])  # type: ignore[index]  # a record of the struct
        if value.dtype.names is not None:
            found |= _struct_arrays(value, f"{prefix}{name}.")
        elif value.dtype.kind in "biufc":
            found[f"{prefix}{name}"] = value
    return found


def _choose(path: Path, variable: str | None, found: list[str]) -> str:
    if variable is None and len(found) == 1:
        return found[0]
    if variable is None:
        raise BadInput(f"{path}: expected `variable`; it holds: {', '.join(found) or 'no array'}")
    name = variable.strip("/").replace("/", ".")
    if name not in found:
        within = [array for array in found if array.startswith(f"{name}.")] or found
        raise BadInput(
            f"{path}: variable {variable!r} is no array in the file; it holds: {', '.join(within) or 'no array'}"
        )
    return name


class _ColumnMajor:
    """A MATLAB array in HDF5, where the axes lie in reverse: sliced as (row, col, band) all the same."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(reversed(dataset.shape))
        self.dtype: np.dtype[np.generic] = dataset.dtype

    def __getitem__(self, key: Any) -> npt.NDArray[np.generic]:
        if key is Ellipsis:
            return np.asarray(self._dataset[...]).T
        rows, cols = key
        return np.asarray(self._dataset[..., cols, rows]).T
