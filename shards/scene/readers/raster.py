"""Georeferenced rasters (GeoTIFF, ENVI and whatever else GDAL reads), one file or a mosaic by transforms."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from shards.errors import BadInput
from shards.scene.readers.layer import Affine6, Grid, plain_dtype, valid_pixels
from shards.scene.readers.spectral_tags import spectral_tags
from shards.scene.source import Mask, Values

# pixels; files whose corners are further than this from whole pixels of the first file's grid do not share it
GRID_TOLERANCE = 0.01
GDAL_CACHE_MB = 64


@dataclass(frozen=True)
class RasterPart:
    """One file of a mosaic and the place of its first pixel in it."""

    path: Path
    row: int
    col: int
    height: int
    width: int
    nodata: float | None


@dataclass(frozen=True)
class RasterLayer:
    """A raster, or several on one grid; where files overlap, the first in order of names that is valid wins."""

    parts: tuple[RasterPart, ...]
    grid: Grid
    bands: int
    dtype: np.dtype[np.generic]
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None
    bad_bands: tuple[int, ...]

    @property
    def files(self) -> str:
        more = f" (and {len(self.parts) - 1} more)" if len(self.parts) > 1 else ""
        return f"{self.parts[0].path}{more}"

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(part.path for part in self.parts)

    @property
    def nodata(self) -> float | None:
        values = {part.nodata for part in self.parts}
        return values.pop() if len(values) == 1 else None

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        height, width = rows.stop - rows.start, cols.stop - cols.start
        values = np.zeros((height, width, len(bands)), dtype=self.dtype)
        valid = np.zeros((height, width), dtype=np.bool_)
        for part in self.parts:
            top, bottom = max(rows.start, part.row), min(rows.stop, part.row + part.height)
            left, right = max(cols.start, part.col), min(cols.stop, part.col + part.width)
            if top >= bottom or left >= right:
                continue
            window = Window(left - part.col, top - part.row, right - left, bottom - top)
            with open_raster(part.path) as raster:
                block = np.moveaxis(raster.read(list(bands), window=window), 0, -1)
            here = np.s_[top - rows.start : bottom - rows.start, left - cols.start : right - cols.start]
            taken = valid_pixels(block, part.nodata) & ~valid[here]
            values[here][taken] = block[taken]
            valid[here] |= taken
        return values, valid


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """A rasterio dataset; GDAL's own cache stays small, since blocks are read once."""
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(_data_file(path)) as raster:
                yield raster
    except RasterioError as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error


def _data_file(path: Path) -> Path:
    """The file GDAL opens: for an ENVI header, the binary file beside it."""
    if path.suffix.lower() != ".hdr":
        return path
    for suffix in ("", ".img", ".dat", ".bin", ".raw", ".bsq", ".bil", ".bip", ".IMG", ".DAT"):
        for candidate in (path.with_suffix(suffix), Path(str(path.with_suffix("")) + suffix)):
            if candidate != path and candidate.is_file():
                return candidate
    raise BadInput(f"{path}: no data file beside this ENVI header")


def open_rasters(paths: tuple[Path, ...], nodata: float | None) -> RasterLayer:
    """Opens one raster, or a mosaic of several that lie on one grid.

    Args:
        paths: the files.
        nodata: the missing value where the files declare none (it takes the place of theirs).

    Raises:
        BadInput: a file cannot be read, or does not agree with the first in CRS, resolution, grid, band count or type.
    """
    heads = [_head(path, nodata) for path in paths]
    first = heads[0]
    if len(heads) > 1:
        for head in heads:
            _check_agreement(first, head)
    offsets = [_offset(first, head) for head in heads]
    top, left = min(row for row, _ in offsets), min(col for _, col in offsets)
    parts = tuple(
        RasterPart(head.path, row - top, col - left, head.grid.height, head.grid.width, head.nodata)
        for head, (row, col) in zip(heads, offsets, strict=True)
    )
    transform = first.grid.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        transform = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
    height, width = max(part.row + part.height for part in parts), max(part.col + part.width for part in parts)
    grid = Grid(height, width, first.grid.crs_wkt, transform)
    return RasterLayer(parts, grid, first.bands, first.dtype, first.wavelengths_nm, first.fwhm_nm, first.bad_bands)


@dataclass(frozen=True)
class _Head:
    path: Path
    grid: Grid
    bands: int
    dtype: np.dtype[np.generic]
    nodata: float | None
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None
    bad_bands: tuple[int, ...]


def _head(path: Path, nodata: float | None) -> _Head:
    with open_raster(path) as raster:
        if len(set(raster.dtypes)) > 1:
            raise BadInput(f"{path}: bands of several types ({', '.join(sorted(set(raster.dtypes)))}), expected one")
        dtype = plain_dtype(np.dtype(raster.dtypes[0])) if "complex" not in raster.dtypes[0] else None
        if dtype is None:
            raise BadInput(f"{path}: values of type {raster.dtypes[0]}, expected real numbers")
        own = {value for value in raster.nodatavals if value is not None}
        if len(own) > 1:
            raise BadInput(f"{path}: bands with different nodata values {sorted(own)}; give `nodata`")
        transform: Affine6 | None = None
        if not (raster.transform.is_identity and raster.crs is None):
            transform = tuple(raster.transform)[:6]
        crs_wkt = raster.crs.to_wkt() if raster.crs is not None else None
        missing = nodata if nodata is not None else next(iter(own), None)
        wavelengths, fwhm, bad = spectral_tags(raster)
        grid = Grid(raster.height, raster.width, crs_wkt, transform)
        return _Head(path, grid, raster.count, dtype, missing, wavelengths, fwhm, bad)


def _check_agreement(first: _Head, head: _Head) -> None:
    if head.grid.transform is None:
        raise BadInput(f"{head.path}: carries no transform; several files can only be joined by their transforms")
    if not same_crs(first.grid.crs_wkt, head.grid.crs_wkt):
        raise BadInput(f"{head.path}: another CRS than {first.path}")
    if head.bands != first.bands:
        raise BadInput(f"{head.path}: {head.bands} bands, expected {first.bands} as in {first.path}")
    if head.dtype != first.dtype:
        raise BadInput(f"{head.path}: values of type {head.dtype}, expected {first.dtype} as in {first.path}")
    if first.grid.transform is None:
        raise BadInput(f"{first.path}: carries no transform; several files can only be joined by their transforms")
    size, expected = np.array(head.grid.transform)[[0, 1, 3, 4]], np.array(first.grid.transform)[[0, 1, 3, 4]]
    if not np.allclose(size, expected, rtol=1e-6, atol=1e-12):
        raise BadInput(f"{head.path}: another resolution ({size[0]:g}) than {first.path} ({expected[0]:g})")


def _offset(first: _Head, head: _Head) -> tuple[int, int]:
    """Row and column of a file's first pixel in the first file's grid."""
    if first.grid.transform is None or head.grid.transform is None:
        return 0, 0
    a, b, c, d, e, f = first.grid.transform
    x, y = head.grid.transform[2] - c, head.grid.transform[5] - f
    col, row = (e * x - b * y) / (a * e - b * d), (a * y - d * x) / (a * e - b * d)
    if max(abs(col - round(col)), abs(row - round(row))) > GRID_TOLERANCE:
        raise BadInput(f"{head.path}: lies {col % 1:.2f}, {row % 1:.2f} pixels off the grid of {first.path}")
    return round(row), round(col)


def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two systems, given as WKT, are one."""
    if one is None or other is None or one == other:
        return one == other
    return bool(rasterio.CRS.from_wkt(one) == rasterio.CRS.from_wkt(other))
