"""Georeferenced rasters (GeoTIFF, ENVI and whatever else GDAL reads), one file or a mosaic by transforms."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from shards.band_tolerance import tolerance_nm
from shards.errors import BadInput
from shards.scene.readers.layer import Affine6, Given, Grid, plain_dtype
from shards.scene.readers.missing_values import MissingValues, valid_pixels
from shards.scene.readers.raster_masks import RasterMask, raster_mask
from shards.scene.readers.raster_scaling import raster_scaling
from shards.scene.readers.same_grid import GRID_TOLERANCE, checked_crs, checked_transform, other_crs, same_crs
from shards.scene.readers.scaling import chosen_scaling, identity, is_identity, same_scaling, scaled_dtype
from shards.scene.readers.spectral_tags import spectral_tags
from shards.scene.source import Mask, Scaling, Values

GDAL_CACHE_MB = 64
OR_STACK = "if each file is a band, write `stack: true`"
SAME_BANDS = "the files of a mosaic have the same bands in the same order; reorder them (gdal_translate -b)"
CANNOT_JOIN = f"carries no transform; several files can only be joined by their transforms; {OR_STACK}"


@dataclass(frozen=True)
class RasterPart:
    """One file of a mosaic, the place of its first pixel in it, and how its values are read."""

    path: Path
    row: int
    col: int
    height: int
    width: int
    missing: MissingValues
    mask: RasterMask
    scaling: Scaling | None

    def covers(self, other: "RasterPart") -> bool:
        """Whether the other file lies wholly on this one."""
        return (
            self.row <= other.row
            and self.col <= other.col
            and other.row + other.height <= self.row + self.height
            and other.col + other.width <= self.col + self.width
        )


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
    mask_bands: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def files(self) -> str:
        more = f" (and {len(self.parts) - 1} more)" if len(self.parts) > 1 else ""
        return f"{self.parts[0].path}{more}"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and what GDAL reads beside them: masks and tags."""
        beside = [Path(f"{part.path}{suffix}") for part in self.parts for suffix in (".msk", ".aux.xml")]
        return (*(part.path for part in self.parts), *(path for path in beside if path.is_file()))

    @property
    def band_names(self) -> None:
        return None

    @property
    def nodata(self) -> float | None:
        values = {part.missing.single for part in self.parts}
        return values.pop() if len(values) == 1 and not self.scalings else None

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        counted = Counter(part.scaling for part in self.parts if part.scaling is not None)
        return tuple(replace(scaling, files=files) for scaling, files in counted.items())

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        height, width = rows.stop - rows.start, cols.stop - cols.start
        values = np.zeros((height, width, len(bands)), dtype=self.dtype)
        valid = np.zeros((height, width), dtype=np.bool_)
        for part, window, here in self._overlaps(rows, cols):
            with open_raster(part.path) as raster:
                block = np.moveaxis(raster.read(list(bands), window=window), 0, -1)
                taken = valid_pixels(block, part.missing.of_bands(bands)) & ~valid[here]
                if part.mask.used_for(bands):
                    taken &= part.mask.read(raster, window, bands).all(axis=-1)
            if part.scaling is not None:
                block = part.scaling.of_bands(bands).apply(block, self.dtype)
            values[here][taken] = block[taken]
            valid[here] |= taken
        return values, valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        found = np.zeros(len(bands), dtype=np.bool_)
        for part, window, _ in self._overlaps(rows, cols):
            with open_raster(part.path) as raster:
                block = np.moveaxis(raster.read(list(bands), window=window), 0, -1)
                valid = part.missing.of_bands(bands).valid(block)
                if part.mask.used_for(bands):
                    valid &= part.mask.read(raster, window, bands)
            found |= valid.any(axis=(0, 1))
        return tuple(np.array(bands)[found].tolist())

    def wholly_covered(self) -> tuple[Path, Path] | None:
        """Two files of which the first covers the second wholly, if there are any."""
        for place, one in enumerate(self.parts):
            for other in self.parts[place + 1 :]:
                if one.covers(other) or other.covers(one):
                    return one.path, other.path
        return None

    def _overlaps(self, rows: slice, cols: slice) -> Iterator[tuple[RasterPart, Window, tuple[slice, slice]]]:
        """The files that lie in a window, with the window in the file and its place in the block."""
        for part in self.parts:
            top, bottom = max(rows.start, part.row), min(rows.stop, part.row + part.height)
            left, right = max(cols.start, part.col), min(cols.stop, part.col + part.width)
            if top < bottom and left < right:
                window = Window(left - part.col, top - part.row, right - left, bottom - top)
                here = slice(top - rows.start, bottom - rows.start), slice(left - cols.start, right - cols.start)
                yield part, window, here


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


def open_rasters(paths: tuple[Path, ...], given: Given, field: str) -> RasterLayer:
    """Opens one raster, or a mosaic of several that lie on one grid.

    Args:
        paths: the files.
        given: what scene.yaml says where the files say nothing.
        field: of scene.yaml, for messages.

    Raises:
        BadInput: a file cannot be read, is placed by control points alone, or does not agree with the first in CRS,
            resolution, grid, band count or type, or with what is given.
    """
    heads = _scaled([_head(path, given, field) for path in paths], given)
    first = heads[0]
    if len(heads) > 1:
        for head in heads:
            _check_agreement(first, head)
    offsets = [_offset(first, head) for head in heads]
    top, left = min(row for row, _ in offsets), min(col for _, col in offsets)
    parts = tuple(
        RasterPart(
            head.path, row - top, col - left, head.grid.height, head.grid.width, head.missing, head.mask, head.scaling
        )
        for head, (row, col) in zip(heads, offsets, strict=True)
    )
    transform = first.grid.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        transform = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
    height, width = max(part.row + part.height for part in parts), max(part.col + part.width for part in parts)
    grid = Grid(height, width, first.grid.crs_wkt, transform)
    return RasterLayer(
        parts,
        grid,
        first.bands,
        first.dtype,
        first.wavelengths_nm,
        first.fwhm_nm,
        tuple(sorted({band for head in heads for band in head.bad_bands})),
        first.mask.bands,
        tuple(dict.fromkeys(note for head in heads for note in head.notes)),
    )


@dataclass(frozen=True)
class _Head:
    path: Path
    grid: Grid
    bands: int
    stored_dtype: np.dtype[np.generic]
    missing: MissingValues
    mask: RasterMask
    scaling: Scaling | None
    descriptions: tuple[str | None, ...]
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None
    bad_bands: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return scaled_dtype(self.stored_dtype, self.scaling)


def _head(path: Path, given: Given, field: str) -> _Head:
    """What one file says of itself; its scaling is its own alone."""
    with open_raster(path) as raster:
        if len(set(raster.dtypes)) > 1:
            raise BadInput(f"{path}: bands of several types ({', '.join(sorted(set(raster.dtypes)))}), expected one")
        dtype = plain_dtype(np.dtype(raster.dtypes[0])) if "complex" not in raster.dtypes[0] else None
        if dtype is None:
            raise BadInput(f"{path}: values of type {raster.dtypes[0]}, expected real numbers")
        grid = Grid(raster.height, raster.width, *_place(path, raster, given, field))
        own, product_nodata = raster_scaling(path, raster)
        if given.nodata is not None:
            missing = MissingValues.same_in_all(given.nodata, raster.count)
        elif any(value is not None for value in raster.nodatavals):
            missing = MissingValues(tuple(() if value is None else (float(value),) for value in raster.nodatavals))
        else:
            missing = MissingValues.same_in_all(product_nodata, raster.count)
        mask, notes = raster_mask(path, raster)
        return _Head(
            path, grid, raster.count, dtype, missing, mask, own, raster.descriptions, *spectral_tags(raster), notes
        )


def _place(path: Path, raster: Any, given: Given, field: str) -> tuple[str | None, Affine6 | None]:
    """CRS and transform of a file, None for what neither it nor scene.yaml says."""
    if raster.transform.is_identity:
        for by, found, how in (
            ("ground control points", raster.gcps[0], ""),
            ("rational polynomials (RPCs)", raster.rpcs, "-rpc "),
            ("geolocation arrays", raster.tags(ns="GEOLOCATION"), "-geoloc "),
        ):
            if found:
                raise BadInput(
                    f"{path}: {field}: placed by {by} alone; warp it onto a grid first: "
                    f"gdalwarp {how}-t_srs EPSG:4326 {path.name} {path.stem}-warped.tif"
                )
    own = raster.crs.to_wkt() if raster.crs is not None else None
    placed = own is not None or not raster.transform.is_identity
    crs_wkt = checked_crs(own, placed, given, f"{path}: {field}")
    if not placed:
        return None, None
    return crs_wkt, checked_transform(tuple(raster.transform)[:6], f"{path}: {field}")


def _scaled(heads: list[_Head], given: Given) -> list[_Head]:
    """The files with the scaling that counts for each: its own, else what scene.yaml gives, else none.

    Raises:
        BadInput: it is not clear in which units a file without tags is.
    """
    bare = [head for head in heads if head.scaling is None]
    told = given.scaling(heads[0].bands)
    if told is None and bare and len(bare) < len(heads):
        tagged = next(head for head in heads if head.scaling is not None)
        assert tagged.scaling is not None
        if set(tagged.scaling.scale) != {1.0} and bare[0].stored_dtype.kind in "iu":
            raise BadInput(
                f"{bare[0].path}: carries no scale, while {tagged.path} has {tagged.scaling.scale[0]:g}; give `scale` "
                "and `offset` for the files without (`scale: 1` keeps their values)"
            )
    # what is given speaks for files without tags, so that it may differ from the tags of others
    given = given if not bare else replace(given, scale=None, offset=None)
    chosen = [
        told if head.scaling is None else chosen_scaling(head.scaling, given, head.bands, str(head.path))
        for head in heads
    ]
    chosen = [None if one is None or is_identity(one) else one for one in chosen]
    if any(one is not None for one in chosen):
        # values that need no scaling still take the others' type
        whole = [one or identity(heads[0].bands) for one in chosen]
        chosen = [next(known for known in whole if same_scaling(known, one)) for one in whole]
    return [replace(head, scaling=one) for head, one in zip(heads, chosen, strict=True)]


def _check_agreement(first: _Head, head: _Head) -> None:
    if head.grid.transform is None:
        raise BadInput(f"{head.path}: {CANNOT_JOIN}")
    if not same_crs(first.grid.crs_wkt, head.grid.crs_wkt):
        if first.grid.crs_wkt is None:
            first, head = head, first
        raise BadInput(f"{head.path}: {other_crs(head.grid.crs_wkt, str(first.path))}")
    if head.bands != first.bands:
        raise BadInput(f"{head.path}: {head.bands} bands, expected {first.bands} as in {first.path}")
    _check_same_bands(first, head)
    if head.dtype != first.dtype:
        raise BadInput(f"{head.path}: values of type {head.dtype}, expected {first.dtype} as in {first.path}")
    if first.grid.transform is None:
        raise BadInput(f"{first.path}: {CANNOT_JOIN}")
    size, expected = np.array(head.grid.transform)[[0, 1, 3, 4]], np.array(first.grid.transform)[[0, 1, 3, 4]]
    if not np.allclose(size, expected, rtol=1e-6, atol=1e-12):
        raise BadInput(f"{head.path}: another resolution ({size[0]:g}) than {first.path} ({expected[0]:g}); {OR_STACK}")


def _check_same_bands(first: _Head, head: _Head) -> None:
    """Refuses a file whose bands are other ones than the first file's, or stand in another order."""
    one, other = first.wavelengths_nm, head.wavelengths_nm
    if one is not None and other is not None:
        for band in np.flatnonzero(np.abs(np.subtract(other, one)) > tolerance_nm(one)).tolist():
            raise BadInput(
                f"{head.path}: band {band + 1} lies at {other[band]:g} nm, and at {one[band]:g} nm in {first.path}; "
                f"{SAME_BANDS}"
            )
    names, others = first.descriptions, head.descriptions
    if names != others and None not in names and sorted(map(str, names)) == sorted(map(str, others)):
        band = next(place for place, pair in enumerate(zip(names, others, strict=True)) if pair[0] != pair[1])
        raise BadInput(
            f"{head.path}: band {band + 1} is {others[band]!r}, and {names[band]!r} in {first.path}; {SAME_BANDS}"
        )


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
