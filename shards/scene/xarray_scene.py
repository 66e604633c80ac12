"""A scene from xarray objects in memory: each variable is a modality."""

from pathlib import Path

import numpy as np
import rioxarray  # noqa: F401  adds .rio to xarray's objects
import xarray

from shards.errors import BadInput
from shards.scene.array_scene import ArrayScene, Transform
from shards.scene.readers.cubes import band_wavelengths, cube_axes
from shards.scene.source import Values

UNNAMED = "image"  # a DataArray without a name


def variables(data: xarray.Dataset | xarray.DataArray) -> dict[str, xarray.DataArray]:
    """The modalities by name: a Dataset's variables of two or three axes, or the one DataArray.

    Raises:
        BadInput: there is none.
    """
    if isinstance(data, xarray.DataArray):
        return {str(data.name or UNNAMED): data}
    found = {str(name): array for name, array in data.data_vars.items() if array.ndim in (2, 3)}
    if not found:
        raise BadInput("xarray.Dataset: expected a variable of two or three axes for each modality, found none")
    return found


def spatial_axes(array: xarray.DataArray) -> tuple[str, ...]:
    """Names of the row, the column and (if any) the band axis.

    Raises:
        BadInput: they cannot be told from the names.
    """
    return cube_axes(Path("xarray"), array)


def xarray_scene(data: xarray.Dataset | xarray.DataArray, name: str) -> ArrayScene:
    """An unlabelled scene over xarray objects; axes may lie in any order.

    A pixel is missing where a band is not finite, or equals ``_FillValue`` or ``missing_value``. CRS and transform are
    read through rioxarray, wavelengths from a coordinate along the bands that carries a unit of length.

    Args:
        data: a Dataset with a variable a modality, or a DataArray.
        name: name of the scene.

    Raises:
        BadInput: axes cannot be told, or the modalities differ in shape.
    """
    arrays = variables(data)
    values: dict[str, Values] = {}
    wavelengths: dict[str, tuple[float, ...]] = {}
    for modality, array in arrays.items():
        axes = spatial_axes(array)
        single = {axis: 0 for axis in array.dims if axis not in axes}  # such as one time
        values[modality] = _values(array.isel(single).transpose(*axes))
        if len(axes) == 3 and (found := band_wavelengths(array, axes[2])[0]) is not None:
            wavelengths[modality] = found
    first = next(iter(arrays.values()))
    crs = first.rio.crs or data.rio.crs
    return ArrayScene(
        name, values, wavelengths, crs_wkt=None if crs is None else crs.to_wkt(), transform=_transform(first)
    )


def _transform(array: xarray.DataArray) -> Transform | None:
    row, col, *_ = spatial_axes(array)
    if row not in array.coords or col not in array.coords:
        return None
    a, b, c, d, e, f = (float(value) for value in tuple(array.rio.set_spatial_dims(col, row).rio.transform())[:6])
    return a, b, c, d, e, f


def _values(array: xarray.DataArray) -> Values:
    """Values (row, col, band); where a fill value marks missing pixels, floats with NaN there."""
    values = np.ascontiguousarray(array.to_numpy())
    values = values.reshape(*values.shape[:2], -1)
    tags = {**array.encoding, **array.attrs}
    fill = tags.get("_FillValue", tags.get("missing_value"))
    missing = (values == fill).any(axis=-1) if fill is not None else np.zeros(values.shape[:2], np.bool_)
    if not missing.any():
        return values
    # float32 holds every integer of 16 bits
    marked = values.astype(np.result_type(values.dtype, np.float32))
    marked[missing] = np.nan
    return marked
