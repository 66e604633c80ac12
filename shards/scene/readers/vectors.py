"""Labels drawn as polygons or points, burnt onto the scene's grid block by block.

GeoJSON, GeoPackage, Shapefile and the other vector formats of GDAL are read by pyogrio (extra `vectors`); tables of
points (.csv) need nothing more. A polygon labels the pixels whose centre lies in it, or with `all_touched` each pixel
that it touches; a point labels the pixel that it lies in.

Shape letters: P points.
"""

import csv
import functools
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.features import rasterize

from shards.errors import BadInput
from shards.scene.readers.layer import Grid
from shards.scene.source import Mask, Scaling, Values

Floats = npt.NDArray[np.float64]
# a class as its attribute gives it: a number, or a text
ClassValue = int | str

TABLE_SUFFIX = ".csv"
VECTOR_SUFFIXES = frozenset({TABLE_SUFFIX, ".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml", ".gml"})
# a Shapefile is all of these
SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")
INSTALL = "pip install 'diffclip-dist[vectors]'"

X_NAMES, Y_NAMES = ("x", "easting"), ("y", "northing")
LONGITUDE_NAMES, LATITUDE_NAMES = ("lon", "longitude", "lng"), ("lat", "latitude")
ROW_NAMES, COL_NAMES = ("row",), ("col", "column")
LARGEST_CLASS_ID = 65535

# rows and columns that are burnt at once. The cells are fixed, so that a pixel is the same whatever block asks for it.
CELL = 512
KEPT_CELLS = 64


@dataclass(frozen=True)
class VectorSource:
    """Where features lie and which of their attributes is the class.

    Attributes:
        paths: the files.
        attribute: name of the attribute or column that holds the class; None where there is but one.
        layer: name of the layer, for files of several.
        crs: coordinate reference system, for files that carry none (it takes the place of theirs).
        all_touched: whether a polygon labels every pixel that it touches.
        field: how a message names the source (``labels``).
    """

    paths: tuple[Path, ...]
    attribute: str | None
    layer: str | None
    crs: str | None
    all_touched: bool
    field: str


@dataclass(frozen=True)
class _Features:
    """The features of one file, each with the name that a message gives it and its class.

    Polygons and points are in x and y of `crs`; `crs` is None for points in columns and rows (``pixels``) and for
    coordinates whose file cannot say (a table), which are then taken in the scene's own system.
    """

    names: tuple[str, ...]
    values: tuple[ClassValue, ...]
    polygons: tuple[Any, ...]
    polygon_owners: tuple[int, ...]
    points_P2: Floats
    point_owners_P: npt.NDArray[np.intp]
    crs: str | None
    pixels: bool


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
                    f"`ignore` {sorted(layer.ignored)}"
                )
            ids.append(class_id)
        onto_grid = _onto_grid(path, features, layer)
        points_P2.append(onto_grid(features.points_P2))
        point_owners_P.append(features.point_owners_P + start)
        if features.polygons:
            shapely = _library("shapely")
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


def _onto_grid(path: Path, features: _Features, layer: VectorLayer) -> Any:
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
        if to_scene is not None:
            x, y = to_scene.transform(x, y)
        x, y = np.asarray(x), np.asarray(y)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise BadInput(
                f"{path}: {field}: the CRS {_crs_name(features.crs)} cannot place its coordinates; give `crs`"
            )
        columns = inverse.a * x + inverse.b * y + inverse.c
        rows = inverse.d * x + inverse.e * y + inverse.f
        return np.stack([columns, rows], axis=1)

    return onto_grid


def _crs_name(crs: str | None) -> str:
    return "of the scene" if crs is None else pyproj.CRS.from_user_input(crs).name


@functools.lru_cache(maxsize=8)
def _read(path: Path, source: VectorSource, _stamp: tuple[int, ...]) -> _Features:
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
    features = _read_table(path, source) if path.suffix.lower() == TABLE_SUFFIX else _read_features(path, source)
    if not features.names:
        raise BadInput(f"{path}: {source.field}: holds no feature")
    return features


def _read_features(path: Path, source: VectorSource) -> _Features:
    pyogrio, shapely = _library("pyogrio"), _library("shapely")
    importlib.import_module("pyogrio.raw")
    start = f"{path}: {source.field}"
    try:
        layer = _chosen_layer(pyogrio, path, source)
        fields = [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
        attribute = _chosen_attribute(fields, source, start)
        head, numbers, shapes, columns = pyogrio.raw.read(
            path, layer=layer, columns=[attribute], force_2d=True, return_fids=True, datetime_as_string=True
        )
        geometries = shapely.from_wkb(shapes)
    except BadInput:
        raise
    # pyogrio's errors are runtime errors, but damaged text, sizes and CRS raise others in it
    except (RuntimeError, ValueError, MemoryError, OverflowError, NameError, shapely.errors.ShapelyError) as error:
        raise BadInput(f"{start}: cannot be read: {error}") from error
    crs = source.crs or head["crs"]
    if crs is None:
        raise BadInput(f"{start}: carries no CRS; give `crs`, such as crs: EPSG:32633")
    names = tuple(f"feature {number}" for number in numbers)
    values = tuple(
        _class_value(value, f"{start}: {name}", attribute) for name, value in zip(names, columns[0], strict=True)
    )
    polygons: list[Any] = []
    polygon_owners: list[int] = []
    points: list[Floats] = [np.zeros((0, 2))]
    point_owners: list[int] = []
    for owner, (name, geometry) in enumerate(zip(names, geometries, strict=True)):
        kind = "nothing" if geometry is None or geometry.is_empty else str(geometry.geom_type)
        if kind in ("Polygon", "MultiPolygon"):
            polygons.append(geometry)
            polygon_owners.append(owner)
        elif kind in ("Point", "MultiPoint"):
            places = shapely.get_coordinates(geometry)
            points.append(places)
            point_owners += [owner] * len(places)
        else:
            raise BadInput(f"{start}: {name}: is {kind}; expected polygons or points")
    return _Features(
        names,
        values,
        tuple(polygons),
        tuple(polygon_owners),
        np.concatenate(points),
        np.array(point_owners, np.intp),
        crs,
        pixels=False,
    )


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"{name} is not installed; labels of polygons and points need it: {INSTALL}") from error


def _chosen_layer(pyogrio: ModuleType, path: Path, source: VectorSource) -> str:
    """The layer asked for, or the only one that holds features."""
    layers = {str(name): kind for name, kind in pyogrio.list_layers(path)}
    placed = [name for name, kind in layers.items() if kind is not None]
    start = f"{path}: {source.field}.layer"
    if source.layer is not None:
        if source.layer not in placed:
            raise BadInput(f"{start}: {source.layer!r} is not in it; it holds: {', '.join(placed) or 'no layer'}")
        return source.layer
    if len(placed) != 1:
        raise BadInput(f"{start}: expected the name of one of its layers: {', '.join(placed) or 'it holds none'}")
    return placed[0]


def _chosen_attribute(names: list[str], source: VectorSource, start: str) -> str:
    """The attribute asked for, or the only one."""
    if source.attribute is not None and source.attribute in names:
        return source.attribute
    if source.attribute is None and len(names) == 1:
        return names[0]
    what = "expected" if source.attribute is None else f"{source.attribute!r} is none; expected"
    raise BadInput(f"{start}.attribute: {what} one of the file's attributes: {', '.join(names) or 'it has none'}")


def _class_value(value: object, start: str, attribute: str) -> ClassValue:
    """A class as a number, where it is a whole one, or else as a text."""
    text = "" if value is None else str(value).strip()
    if text in ("", "nan", "None"):
        raise BadInput(f"{start}: attribute {attribute} is empty; give the feature a class, or leave it out")
    try:
        number = float(text)
    except ValueError:
        return text
    if not number.is_integer():
        raise BadInput(f"{start}: attribute {attribute} is {text}; expected a whole number or a text")
    return int(number)


def _read_table(path: Path, source: VectorSource) -> _Features:
    """A table of points, its columns named in the first line: x, y (or lon, lat; or row, col) and the class.

    Rows and columns count from 0. Without `crs`, x and y are in the scene's own system, lon and lat in EPSG:4326.
    """
    start = f"{path}: {source.field}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{start}: cannot be read: {error}") from error
    lines = text.splitlines()
    head = lines[0] if lines else ""
    separator = max(",;\t", key=head.count)
    table = csv.reader(lines, delimiter=separator)
    columns = [name.strip() for name in next(table, [])]
    across, down, crs, pixels = _place_columns(columns, source, start)
    attribute = _chosen_attribute([name for name in columns if name not in (across, down)], source, start)
    places = [columns.index(name) for name in (across, down, attribute)]
    names: list[str] = []
    values: list[ClassValue] = []
    points: list[tuple[float, float]] = []
    for cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        name = f"line {table.line_num}"
        if len(cells) != len(columns):
            raise BadInput(f"{start}: {name}: {len(cells)} values, expected {len(columns)}: {separator.join(columns)}")
        x, y, value = (cells[place].strip() for place in places)
        if separator == ";":  # where a decimal comma is written, columns are kept apart by semicolons
            x, y = x.replace(",", "."), y.replace(",", ".")
        try:
            point = (float(x), float(y))
        except ValueError as error:
            raise BadInput(f"{start}: {name}: {across} {x!r}, {down} {y!r}; expected two numbers") from error
        if not np.isfinite(point).all() or (pixels and not (point[0].is_integer() and point[1].is_integer())):
            kind = "whole" if pixels else "finite"
            raise BadInput(f"{start}: {name}: {across} {x}, {down} {y}; expected {kind} numbers")
        names.append(name)
        values.append(_class_value(value, f"{start}: {name}", attribute))
        points.append(point)
    points_P2 = np.array(points, np.float64).reshape(-1, 2)
    owners = np.arange(len(points), dtype=np.intp)
    return _Features(tuple(names), tuple(values), (), (), points_P2, owners, crs, pixels)


def _place_columns(columns: list[str], source: VectorSource, start: str) -> tuple[str, str, str | None, bool]:
    """Names of the columns that say where a point lies, their system, and whether they count pixels."""
    by_name = {name.lower(): name for name in columns}
    for across, down, crs, pixels in (
        (X_NAMES, Y_NAMES, source.crs, False),
        (LONGITUDE_NAMES, LATITUDE_NAMES, source.crs or "EPSG:4326", False),
        (COL_NAMES, ROW_NAMES, None, True),
    ):
        first = next((by_name[name] for name in across if name in by_name), None)
        second = next((by_name[name] for name in down if name in by_name), None)
        if first is not None and second is not None:
            return first, second, crs, pixels
    raise BadInput(
        f"{start}: expected a first line with the columns x and y, lon and lat, or row and col; it has: "
        f"{', '.join(columns) or 'none'}"
    )
