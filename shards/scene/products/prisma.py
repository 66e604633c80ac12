"""PRISMA products: an .he5 file with the cubes of two spectrometers, VNIR and SWIR.

Source: ASI, PRISMA Products Specification Document, issue 2.3: HDFEOS/SWATHS/PRS_<level>_HCO/Data Fields/VNIR_Cube with
the axes row, band, column, bands from long to short wavelengths; List_Cw_Vnir, List_Fwhm_Vnir and List_Cw_Vnir_Flags of
the file, 0 for bands that are not delivered; Level 2: reflectance = L2ScaleVnirMin + counts * (L2ScaleVnirMax -
L2ScaleVnirMin) / 65535; Level 1: radiance = counts / ScaleFactor_Vnir - Offset_Vnir. Level 2D lies on a grid of 30 m
that its corners (centres of pixels) and Epsg_Code place. A pixel of zeros in every band is missing. The error matrices
are not applied: they mark single bands, and in water vapour's bands nearly every pixel.
"""

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import pyproj

from shards.errors import BadInput
from shards.scene.products.hdf5_cube import Hdf5Cube
from shards.scene.readers.hdf5_file import numbers_in, open_hdf5
from shards.scene.readers.layer import Affine6, Given, Grid, Layer, plain_dtype
from shards.scene.readers.missing_values import MissingValues
from shards.scene.readers.same_grid import checked_transform
from shards.scene.readers.scaling import chosen_scaling
from shards.scene.source import Scaling

SUFFIX: Final = ".he5"
SWATHS: Final = "HDFEOS/SWATHS"
LARGEST_COUNT: Final = 65535
BAND_AXIS: Final = 1


def prisma_layers(path: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The layers `vnir` and `swir`, as far as the file holds them; None for another file.

    Raises:
        BadInput: it cannot be read, or a cube is not as expected.
    """
    if path.suffix.lower() != SUFFIX:
        return None
    with open_hdf5(path, field) as file:
        found = {name: cube for name in ("vnir", "swir") if (cube := _cube_path(file, name)) is not None}
        layers: dict[str, Layer] = {
            name: _open_cube(path, file, name, cube, given, field) for name, cube in found.items()
        }
    if not layers:
        raise BadInput(f"{path}: {field}: holds no VNIR_Cube or SWIR_Cube in {SWATHS}/*_HCO/Data Fields")
    return layers


def _cube_path(file: h5py.File, name: str) -> str | None:
    """Path of one spectrometer's coregistered cube (HCO), or of its only one (HRC)."""
    swaths = file.get(SWATHS)
    for kind in ("_HCO", "_HRC"):
        for swath in swaths if isinstance(swaths, h5py.Group) else ():
            cube = f"{SWATHS}/{swath}/Data Fields/{name.upper()}_Cube"
            if swath.endswith(kind) and isinstance(file.get(cube), h5py.Dataset):
                return cube
    return None


def _open_cube(path: Path, file: h5py.File, name: str, cube: str, given: Given, field: str) -> Hdf5Cube:
    dataset, suffix = file[cube], name.capitalize()
    dtype = plain_dtype(dataset.dtype)
    if dataset.ndim != 3 or 0 in dataset.shape or dtype is None:
        raise BadInput(
            f"{path}: {field}: {cube}: {dataset.dtype} of shape {dataset.shape}, expected (row, band, column)"
        )
    height, bands, width = dataset.shape
    centres, widths, flags = (
        _listed(path, file, f"{key}_{suffix}{end}", bands, field)
        for key, end in (("List_Cw", ""), ("List_Fwhm", ""), ("List_Cw", "_Flags"))
    )
    bad = np.zeros(bands, np.bool_)
    for listed in (centres, flags):
        if listed is not None:
            bad |= np.array(listed) == 0
    own = _scaling(file, suffix, bands)
    missing = MissingValues.same_in_all(given.nodata, bands)
    return Hdf5Cube(
        path,
        cube,
        BAND_AXIS,
        Grid(height, width, *_place(path, file, height, width)),
        bands,
        dtype,
        missing,
        given.nodata is None,
        chosen_scaling(own, given, bands, f"{path}: {field}"),
        centres,
        widths,
        tuple((np.flatnonzero(bad) + 1).tolist()),
    )


def _listed(path: Path, file: h5py.File, key: str, bands: int, field: str) -> tuple[float, ...] | None:
    """A list of the file with a number for each band; None where it has none."""
    if key not in file.attrs:
        return None
    return numbers_in(file.attrs[key], bands, f"{path}: {field}: {key}")


def _scaling(file: h5py.File, suffix: str, bands: int) -> Scaling | None:
    lowest, highest = _number(file, f"L2Scale{suffix}Min"), _number(file, f"L2Scale{suffix}Max")
    if lowest is not None and highest is not None:
        return Scaling(((highest - lowest) / LARGEST_COUNT,) * bands, (lowest,) * bands)
    factor = _number(file, f"ScaleFactor_{suffix}")
    if factor:
        return Scaling((1 / factor,) * bands, (-(_number(file, f"Offset_{suffix}") or 0.0),) * bands)
    return None


def _place(path: Path, file: h5py.File, height: int, width: int) -> tuple[str | None, Affine6 | None]:
    """CRS and transform of a Level 2D product; None for the levels in the sensor's own geometry."""
    code = _number(file, "Epsg_Code")
    left, top = _number(file, "Product_ULcorner_easting"), _number(file, "Product_ULcorner_northing")
    right, bottom = _number(file, "Product_LRcorner_easting"), _number(file, "Product_LRcorner_northing")
    if code is None or left is None or top is None or right is None or bottom is None or min(height, width) < 2:
        return None, None
    step_x, step_y = (right - left) / (width - 1), (bottom - top) / (height - 1)
    try:
        crs = pyproj.CRS.from_epsg(int(code)).to_wkt()
    except (pyproj.exceptions.CRSError, ValueError, OverflowError) as error:  # NaN and infinity are no whole numbers
        raise BadInput(f"{path}: Epsg_Code: {code:g} is no coordinate reference system") from error
    transform = (step_x, 0.0, left - step_x / 2, 0.0, step_y, top - step_y / 2)
    return crs, checked_transform(transform, f"{path}: corners of the product")


def _number(file: h5py.File, key: str) -> float | None:
    value: Any = file.attrs.get(key)
    try:
        return None if value is None else float(np.asarray(value).ravel()[0])
    except (TypeError, ValueError, IndexError):
        return None
