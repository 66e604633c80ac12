"""NEON's airborne reflectance: an .h5 file with one cube of some 426 bands at 1 m.

Source: NEON, Imaging Spectrometer Reflectance, Algorithm Theoretical Basis Document, and the metadata of the files
(DP1.30006 and DP3.30006): SITE/Reflectance/Reflectance_Data with the axes row, column, band. Its Scale_Factor divides
the counts, its Data_Ignore_Value marks missing ones. Under SITE/Reflectance/Metadata lie Spectral_Data/Wavelength and
FWHM in nanometres, Coordinate_System/Map_Info (as in ENVI headers) and EPSG Code. Bands within the windows
Band_Window_N_Nanometers of SITE/Reflectance, which water vapour makes useless, are bad.
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

SUFFIX: Final = ".h5"
NAME: Final = "reflectance"
CUBE: Final = "Reflectance/Reflectance_Data"
METADATA: Final = "Reflectance/Metadata"
BAND_WINDOWS: Final = ("Band_Window_1_Nanometers", "Band_Window_2_Nanometers")
BAND_AXIS: Final = 2


def neon_layers(path: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The layer `reflectance`; None for another file.

    Raises:
        BadInput: it cannot be read, or is not as expected.
    """
    if path.suffix.lower() != SUFFIX:
        return None
    with open_hdf5(path, field) as file:
        for site in file:
            if isinstance(file.get(f"{site}/{CUBE}"), h5py.Dataset):
                return {NAME: _open_cube(path, file, str(site), given, field)}
    return None


def _open_cube(path: Path, file: h5py.File, site: str, given: Given, field: str) -> Hdf5Cube:
    cube = f"{site}/{CUBE}"
    dataset, where = file[cube], f"{path}: {field}"
    dtype = plain_dtype(dataset.dtype)
    if dataset.ndim != 3 or 0 in dataset.shape or dtype is None:
        raise BadInput(f"{where}: {cube}: {dataset.dtype} of shape {dataset.shape}, expected (row, column, band)")
    height, width, bands = dataset.shape
    centres, widths = (
        _listed(file, f"{site}/{METADATA}/Spectral_Data/{key}", bands, where) for key in ("Wavelength", "FWHM")
    )
    ignored = _attribute(dataset, "Data_Ignore_Value", where)
    factor = _attribute(dataset, "Scale_Factor", where)
    own = None if not factor else Scaling((1 / factor,) * bands, (0.0,) * bands)
    missing = MissingValues.same_in_all(ignored if given.nodata is None else given.nodata, bands)
    return Hdf5Cube(
        path,
        cube,
        BAND_AXIS,
        Grid(height, width, *_place(file, f"{site}/{METADATA}/Coordinate_System", where)),
        bands,
        dtype,
        missing,
        False,
        chosen_scaling(own, given, bands, where),
        centres,
        widths,
        _bad_bands(file[f"{site}/Reflectance"], centres, where),
        dataset.chunks[BAND_AXIS] if dataset.chunks else 1,
    )


def _listed(file: h5py.File, name: str, bands: int, where: str) -> tuple[float, ...] | None:
    found = file.get(name)
    return numbers_in(found[...], bands, f"{where}: {name}") if isinstance(found, h5py.Dataset) else None


def _attribute(item: Any, name: str, where: str) -> float | None:
    return numbers_in(item.attrs[name], 1, f"{where}: {name}")[0] if name in item.attrs else None


def _bad_bands(group: h5py.Group, centres: tuple[float, ...] | None, where: str) -> tuple[int, ...]:
    """Bands (from 1) within the windows that the file calls useless."""
    bad: set[int] = set()
    for name in BAND_WINDOWS:
        if centres is not None and name in group.attrs:
            lowest, highest = numbers_in(group.attrs[name], 2, f"{where}: {name}")
            bad |= {band for band, centre in enumerate(centres, start=1) if lowest <= centre <= highest}
    return tuple(sorted(bad))


def _place(file: h5py.File, name: str, where: str) -> tuple[str | None, Affine6 | None]:
    """CRS and transform; Map_Info is projection, reference pixel (from 1), its easting and northing, pixel sizes."""
    info, code = (_text(file.get(f"{name}/{key}")) for key in ("Map_Info", "EPSG Code"))
    if info is None or code is None:
        return None, None
    where = f"{where}: {name}"
    try:
        col, row, x, y, step_x, step_y = (float(part) for part in info.split(",")[1:7])
        crs = pyproj.CRS.from_epsg(int(code)).to_wkt()
    except (pyproj.exceptions.CRSError, ValueError, OverflowError) as error:
        raise BadInput(f"{where}: Map_Info {info!r} and EPSG Code {code!r} place no pixels") from error
    if "rotation" in info.lower():
        raise BadInput(f"{where}: Map_Info {info!r}: rotated; warp it onto a grid first")
    transform = (step_x, 0.0, x - (col - 1) * step_x, 0.0, -step_y, y + (row - 1) * step_y)
    return crs, checked_transform(transform, where)


def _text(item: Any) -> str | None:
    if not isinstance(item, h5py.Dataset) or item.shape not in ((), (1,)):
        return None
    value = np.asarray(item[()]).ravel()[0]
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()
