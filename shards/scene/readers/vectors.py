"""Labels drawn as polygons or points, burnt onto the scene's grid block by block.

A polygon labels the pixels whose centre lies in it, or with `all_touched` each pixel that it touches. A point labels
the pixel that it lies in.

Shape letters: P points.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.features import rasterize

from shards.errors import BadInput
from shards.nearest import did_you_mean
from shards.scene.readers.features import ClassValue, Features, Floats, VectorSource, library
from shards.scene.readers.layer import Grid
from shards.scene.readers.point_table import read_table
from shards.scene.readers.vector_file import read_vector_file
from shards.scene.source import Mask, Scaling, Values

TABLE_SUFFIX = ".csv"
VECTOR_SUFFIXES = frozenset({TABLE_SUFFIX, ".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml", ".gml"})
# a Shapefile is all of these
SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")
LARGEST_CLASS_ID = 65535

# rows and columns that are burnt at once. The cells are fixed, so that a pixel is the same whatever block asks for it.
CELL = 512
KEPT_CELLS = 64


@dataclass(frozen=True)
class _Placed:
    """All features of a layer, in columns and rows of its grid with fractions."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    polygons: tuple[Any, ...]
    polygon_owners: tuple[int, ...]
    bounds: Floats
    points_P2: Floats
    point_owners_P: npt.NDArray[np.intp]


@dataclass(frozen=True)
class VectorLayer:
    """Features as a layer of one band: class ids (uint16), valid where a feature lies.

    Attributes:
        source: the features.
        grid: the scene's grid.
        classes: class ids and names; the attribute may hold either.
        ignored: further ids that the attribute may hold.
        notes: what a user should know of the features, a line each.
    """

    source: VectorSource
    grid: Grid
    classes: tuple[tuple[int, str], ...]
    ignored: frozenset[int]
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> str:
        more = f" (and {len(self.source.paths) - 1} more)" if len(self.source.paths) > 1 else ""
        return f"{self.source.paths[0]}{more}"

    @property
    def paths(self) -> tuple[Path, ...]:
        parts = [path.with_suffix(end) for path in self.source.paths if _is_shapefile(path) for end in SHAPEFILE_PARTS]
        return (*self.source.paths, *(part for part in parts if part.exists()))

    @property
    def bands(self) -> int:
        return 1

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.uint16)

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
    def nodata(self) -> None:
        return None

    @property
    def mask_bands(self) -> tuple[int, ...]:
        return ()

    @property
    def band_names(self) -> None:
        return None

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        return ()

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        return bands if self.read(rows, cols, bands)[1].any() else ()

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        """Class ids (row, col, 1) and where a feature lies (row, col).

        Raises:
            BadInput: features of two classes lie on one pixel.
        """
        assert bands == (1,)
        ids = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint16)
        valid = np.zeros(ids.shape, np.bool_)
        stamps = _stamps(self.paths)
        for top in range(rows.start - rows.start % CELL, rows.stop, CELL):
            for left in range(cols.start - cols.start % CELL, cols.stop, CELL):
                cell_ids, cell_valid = _burn(self, stamps, top, left)
                height, width = cell_ids.shape
                first_row, last_row = max(rows.start, top), min(rows.stop, top + height)
                first_col, last_col = max(cols.start, left), min(cols.stop, left + width)
                place = np.s_[
                    first_row - rows.start : last_row - rows.start, first_col - cols.start : last_col - cols.start
                ]
                part = np.s_[first_row - top : last_row - top, first_col - left : last_col - left]
                ids[place], valid[place] = cell_ids[part], cell_valid[part]
        return ids[..., None], valid


def are_vectors(paths: Iterable[Path]) -> bool:
    """Whether files of labels hold features, by their names; a GeoPackage, which may hold a raster, by its content."""
    return all(_is_vector(path) for path in paths)


def _is_vector(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".gpkg":
        try:
            with rasterio.open(path):
                return False
        except RasterioError:
            return True
    return suffix in VECTOR_SUFFIXES


def classes_of(sources: Iterable[VectorSource], ignored: frozenset[int]) -> dict[int, str]:
    """The classes that an attribute names: its numbers as they are, or its texts numbered from 1 in their order.

    Raises:
        BadInput: a file cannot be read, a feature has no class, or a number is no class id.
    """
    found: dict[ClassValue, str] = {}
    for source in sources:
        for path in source.paths:
            features = _read(path, source, _stamps((path,)))
            for name, value in zip(features.names, features.values, strict=True):
                found.setdefault(value, f"{path}: {source.field}: {name}")
    wanted = {value: where for value, where in found.items() if value not in ignored}
    if any(isinstance(value, str) for value in wanted):
        return dict(enumerate(sorted(str(value) for value in wanted), start=1))
    ids = {value: where for value, where in wanted.items() if isinstance(value, int)}
    for value, where in ids.items():
        if not 0 <= value <= LARGEST_CLASS_ID:
            raise BadInput(f"{where}: class {value}, expected 0 to {LARGEST_CLASS_ID} or a text")
    return {value: str(value) for value in sorted(ids)}


def open_vectors(source: VectorSource, grid: Grid, classes: Mapping[int, str], ignored: frozenset[int]) -> VectorLayer:
    """Opens features as a layer on the scene's grid.

    Args:
        source: the features.
        grid: the scene's grid.
        classes: class ids and names; an attribute may hold either.
        ignored: further ids that an attribute may hold.

    Raises:
        BadInput: a file cannot be read, cannot be placed, names an unknown class, or no feature lies on the scene.
    """
    layer = VectorLayer(source, grid, tuple(classes.items()), ignored)
    placed = _placed(layer, _stamps(layer.paths))
    height, width = grid.height, grid.width
    columns_P, rows_P = placed.points_P2.T
    inside_P = (columns_P >= 0) & (columns_P < width) & (rows_P >= 0) & (rows_P < height)
    left, top, right, bottom = placed.bounds.T
    inside = (right > 0) & (left < width) & (bottom > 0) & (top < height)
    on_scene = {*placed.point_owners_P[inside_P].tolist(), *np.array(placed.polygon_owners, np.intp)[inside].tolist()}
    outside = len(placed.names) - len(on_scene)
    if not on_scene:
        raise BadInput(
            f"{layer.files}: {source.field}: no feature lies on the scene; check the coordinates, and give `crs` where "
            "the file's own is missing or wrong"
        )
    if outside:
        note = (
            f"{layer.files}: {source.field}: {outside} of {len(placed.names)} features lie outside the scene: left out"
        )
        layer = replace(layer, notes=(note,))
    return layer


def _stamps(paths: tuple[Path, ...]) -> tuple[int, ...]:
    """Times of change, so that what was read of a file is dropped when it changes."""
    return tuple(path.stat().st_mtime_ns for path in paths)


def _is_shapefile(path: Path) -> bool:
    return path.suffix.lower() == ".shp"


@functools.lru_cache(maxsize=KEPT_CELLS)
def _burn(layer: VectorLayer, stamps: tuple[int, ...], top: int, left: int) -> tuple[npt.NDArray[np.uint16], Mask]:
    """One cell of the grid: class ids, and where a feature lies."""
    placed = _placed(layer, stamps)
    height, width = min(CELL, layer.grid.height - top), min(CELL, layer.grid.width - left)
    first_col, first_row, last_col, last_row = placed.bounds.T
    near = (last_col >= left) & (first_col <= left + width) & (last_row >= top) & (first_row <= top + height)
    columns_P, rows_P = np.floor(placed.points_P2).T.astype(np.int64) - np.array([[left], [top]])
    here_P = (columns_P >= 0) & (columns_P < width) & (rows_P >= 0) & (rows_P < height)

    shapes: dict[int, list[tuple[Any, int]]] = {}
    for place in np.flatnonzero(near):
        owner = placed.polygon_owners[place]
        shapes.setdefault(placed.ids[owner], []).append((placed.polygons[place], owner + 1))
    points: dict[int, list[int]] = {}
    for place in np.flatnonzero(here_P):
        points.setdefault(placed.ids[placed.point_owners_P[place]], []).append(int(place))

    owners = np.zeros((height, width), np.int32)
    ids = np.zeros((height, width), np.uint16)
    for class_id in sorted({*shapes, *points}):
        drawn = np.zeros((height, width), np.int32)
        if class_id in shapes:
            where = Affine.translation(left, top)
            rasterize(shapes[class_id], out=drawn, transform=where, all_touched=layer.source.all_touched)
        chosen = points.get(class_id, [])
        drawn[rows_P[chosen], columns_P[chosen]] = placed.point_owners_P[chosen] + 1
        both = np.argwhere((drawn > 0) & (owners > 0))
        if len(both):
            row, col = both[0]
            one, other = placed.names[owners[row, col] - 1], placed.names[drawn[row, col] - 1]
            raise BadInput(
                f"{layer.files}: {layer.source.field}: {one} and {other}, of two classes, both cover pixel "
                f"({row + top}, {col + left}); cut one of them back"
            )
        owners[drawn > 0] = drawn[drawn > 0]
        ids[drawn > 0] = class_id
    return ids, owners > 0


@functools.lru_cache(maxsize=4)
def _placed(layer: VectorLayer, stamps: tuple[int, ...]) -> _Placed:
    """All features in the grid's columns and rows, each with its class id."""
    source = layer.source
    ids_of = {name: class_id for class_id, name in layer.classes}
    known = layer.ignored | set(ids_of.values())
    names: list[str] = []
    ids: list[int] = []
    polygons: list[Any] = []
    polygon_owners: list[int] = []
    points_P2: list[Floats] = [np.zeros((0, 2))]
    point_owners_P: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)]
    for path, stamp in zip(source.paths, stamps, strict=False):
        features = _read(path, source, (stamp,))
        start = len(names)
        names += [f"{path.name}: {name}" if len(source.paths) > 1 else name for name in features.names]
        for name, value in zip(features.names, features.values, strict=True):
            class_id = ids_of.get(str(value), value)
            if not isinstance(class_id, int) or class_id not in known:
                expected = ", ".join(f"{class_id} ({text})" for class_id, text in layer.classes)
                raise BadInput(
                    f"{path}: {source.field}: {name}: unknown class {value!r}; expected one of {expected}, or one of "
                    f"`ignore` {sorted(layer.ignored)}{did_you_mean(str(value), ids_of)}"
                )
            ids.append(class_id)
        onto_grid = _onto_grid(path, features, layer)
        points_P2.append(onto_grid(features.points_P2))
        point_owners_P.append(features.point_owners_P + start)
        if features.polygons:
            shapely = library("shapely")
            polygons += list(shapely.transform(np.array(features.polygons, dtype=object), onto_grid))
            polygon_owners += [owner + start for owner in features.polygon_owners]
    bounds = np.array([polygon.bounds for polygon in polygons], np.float64).reshape(-1, 4)
    return _Placed(
        tuple(names),
        tuple(ids),
        tuple(polygons),
        tuple(polygon_owners),
        bounds,
        np.concatenate(points_P2),
        np.concatenate(point_owners_P),
    )


def _onto_grid(path: Path, features: Features, layer: VectorLayer) -> Any:
    """The function that brings (x, y) of a file to (column, row) of the grid.

    Raises:
        BadInput: the file or the scene does not say where it lies.
    """
    if features.pixels:
        return lambda places_P2: places_P2
    grid, field = layer.grid, layer.source.field
    if grid.transform is None or (grid.crs_wkt is None and features.crs is not None):
        raise BadInput(
            f"{path}: {field}: the scene carries no CRS and transform to place x and y by; give the modality's files a "
            "georeference, or a table of `row`, `col` and the class"
        )
    inverse = ~Affine(*grid.transform)
    to_scene = None
    if features.crs is not None:
        assert grid.crs_wkt is not None
        to_scene = pyproj.Transformer.from_crs(features.crs, grid.crs_wkt, always_xy=True)

    def onto_grid(places_P2: Floats) -> Floats:
        x, y = places_P2.T
        if to_scene is not None:  # a table without a CRS holds finite numbers
            x, y = map(np.asarray, to_scene.transform(x, y))
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                name = pyproj.CRS.from_user_input(features.crs).name
                raise BadInput(f"{path}: {field}: the CRS {name} cannot place its coordinates; give `crs`")
        columns = inverse.a * x + inverse.b * y + inverse.c
        rows = inverse.d * x + inverse.e * y + inverse.f
        return np.stack([columns, rows], axis=1)

    return onto_grid


@functools.lru_cache(maxsize=8)
def _read(path: Path, source: VectorSource, _stamp: tuple[int, ...]) -> Features:
    """The features of one file.

    Raises:
        BadInput: it cannot be read, holds no feature, or a feature has no class or no place.
    """
    if source.crs is not None:
        try:
            pyproj.CRS.from_user_input(source.crs)
        except pyproj.exceptions.CRSError as error:
            raise BadInput(
                f"{path}: {source.field}.crs: {source.crs!r} is no coordinate reference system; expected one such as "
                "EPSG:32633"
            ) from error
    features = read_table(path, source) if path.suffix.lower() == TABLE_SUFFIX else read_vector_file(path, source)
    if not features.names:
        raise BadInput(f"{path}: {source.field}: holds no feature")
    return features
