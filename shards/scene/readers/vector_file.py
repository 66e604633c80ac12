"""Features of GeoJSON, GeoPackage, Shapefile and what else GDAL reads, by pyogrio (extra `vectors`)."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from shards.errors import BadInput
from shards.scene.readers.features import Features, Floats, VectorSource, chosen_attribute, class_value, library


def read_vector_file(path: Path, source: VectorSource) -> Features:
    pyogrio, shapely = library("pyogrio"), library("shapely")
    importlib.import_module("pyogrio.raw")
    start = f"{path}: {source.field}"
    try:
        layer = _chosen_layer(pyogrio, path, source)
        fields = [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
        attribute = chosen_attribute(fields, source, start)
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
        class_value(value, f"{start}: {name}", attribute) for name, value in zip(names, columns[0], strict=True)
    )
    polygons: list[Any] = []
    polygon_owners: list[int] = []
    points: list[Floats] = [np.zeros((0, 2))]
    point_owners: list[int] = []
    for owner, (name, geometry) in enumerate(zip(names, geometries, strict=True)):
        if geometry is None or geometry.is_empty:
            raise BadInput(f"{start}: {name}: has no geometry; delete it, or draw it")
        kind = str(geometry.geom_type)
        if kind in ("Polygon", "MultiPolygon"):
            polygons.append(geometry)
            polygon_owners.append(owner)
        elif kind in ("Point", "MultiPoint"):
            places = shapely.get_coordinates(geometry)
            points.append(places)
            point_owners += [owner] * len(places)
        else:
            raise BadInput(f"{start}: {name}: is {kind}; expected polygons or points")
    return Features(
        names,
        values,
        tuple(polygons),
        tuple(polygon_owners),
        np.concatenate(points),
        np.array(point_owners, np.intp),
        crs,
        pixels=False,
    )


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
