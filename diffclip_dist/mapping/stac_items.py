"""STAC items (https://stacspec.org, version 1.1) of an archive's scenes and of maps, with the extensions projection, eo
and classification."""

import itertools
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import rasterio
from rasterio.enums import ColorInterp
from rasterio.features import bounds as geometry_bounds
from rasterio.warp import transform_geom

from shards.archive.archive import Archive
from shards.archive.manifest import MANIFEST_NAME, ModalityRecord, SceneRecord
from shards.archive.zarr_scenes import LABELS
from shards.errors import BadInput
from shards.preview.class_colours import class_colours

STAC_VERSION: Final = "1.1.0"
PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
EO: Final = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
CLASSIFICATION: Final = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
_COG: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
# points on each side of a footprint: straight in the CRS is not straight in longitude and latitude
_POINTS_A_SIDE: Final = 8
# what each file beside a map is: end of its name, key, media type, roles
_BESIDE_A_MAP: Final = (
    ("_probabilities.tif", "probabilities", _COG, ["data"]),
    (".png", "thumbnail", "image/png", ["thumbnail"]),
    (".qml", "style", "application/xml", ["metadata"]),
)

Item = dict[str, Any]


@dataclass(frozen=True)
class Placed:
    """Where a raster lies.

    Attributes:
        crs: its CRS.
        transform: affine (a, b, c, d, e, f) from (col, row) to (x, y).
        height: rows.
        width: columns.
    """

    crs: rasterio.CRS
    transform: tuple[float, ...]
    height: int
    width: int


def scene_item(archive: Archive, record: SceneRecord, times: Mapping[str, str | None], item_file: Path) -> Item:
    """The item of an archive's scene.

    Args:
        archive: where it lies.
        record: the scene.
        times: when it was taken, from `parse_times`.
        item_file: where the item will be written; paths to local files are relative to its folder.

    Raises:
        BadInput: the scene has no place.
    """
    if record.crs_wkt is None or record.transform is None:
        raise BadInput(f"{archive.location}: scene {record.name}: no CRS, without which there is no STAC item of it")
    crs = rasterio.CRS.from_wkt(record.crs_wkt)
    place = Placed(crs, record.transform, record.height, record.width)
    zarr = f"{archive.location.rstrip('/')}/{record.zarr_path}"
    assets: dict[str, Any] = {}
    for modality in record.modalities:
        assets[modality.name] = {
            "href": _href(f"{zarr}/{modality.name}", item_file),
            "type": "application/vnd.zarr",
            "title": modality.name,
            "roles": ["data"],
            "data_type": modality.dtype,
            "nodata": "nan" if math.isnan(modality.missing_value) else modality.missing_value,
            "bands": [_band(modality, number) for number in range(modality.bands)],
        }
    if record.classes:
        ids = {class_id - record.class_id_shift: name for class_id, name in record.classes.items()}
        colours = {
            class_id - record.class_id_shift: colour for class_id, colour in class_colours(record.classes).items()
        }
        assets[LABELS] = {
            "href": _href(f"{zarr}/{LABELS}", item_file),
            "type": "application/vnd.zarr",
            "roles": ["labels"],
            "classification:classes": _classes(ids, colours),
        }
    manifest = f"{archive.location.rstrip('/')}/{MANIFEST_NAME}"
    assets["manifest"] = {
        "href": _href(manifest, item_file),
        "type": "application/json",
        "roles": ["metadata"],
    }
    return _item(record.name, place, times, assets, generated=record.generated)


def map_item(file: Path, times: Mapping[str, str | None], item_file: Path) -> Item:
    """The item of a map that ``predict.py`` wrote, with the files beside it.

    Args:
        file: the map.
        times: when its scene was taken, from `parse_times`.
        item_file: where the item will be written.

    Raises:
        BadInput: it is no such map, or it has no place.
    """
    try:
        with rasterio.open(file) as raster:
            tags, crs = raster.tags(), raster.crs
            place = Placed(crs, tuple(raster.transform)[:6], raster.height, raster.width)
            palette = raster.colormap(1) if raster.colorinterp[0] == ColorInterp.palette else {}
            data_type, nodata = raster.dtypes[0], raster.nodata
    except rasterio.RasterioIOError as error:
        raise BadInput(f"{file}: expected an archive's folder or a map: {error}") from None
    names = {int(key.removeprefix("CLASS_")): name for key, name in tags.items() if re.fullmatch(r"CLASS_\d+", key)}
    if not names:
        raise BadInput(f"{file}: expected a map that predict.py wrote, found no class names in its tags")
    if crs is None:
        raise BadInput(f"{file}: no CRS, without which there is no STAC item of it")
    colours = {one: "#{:02x}{:02x}{:02x}".format(*palette[one][:3]) for one in names if one in palette}
    assets: dict[str, Any] = {
        "map": {
            "href": _href(str(file), item_file),
            "type": _COG,
            "roles": ["data"],
            "data_type": data_type,
            "classification:classes": _classes(names, colours),
        }
    }
    if nodata is not None:
        assets["map"]["nodata"] = nodata
    for end, key, media_type, roles in _BESIDE_A_MAP:
        beside = file.with_name(file.stem + end)
        if beside.is_file():
            assets[key] = {"href": _href(str(beside), item_file), "type": media_type, "roles": roles}
    return _item(file.stem, place, times, assets, generated=tags.get("GENERATED") == "true")


def parse_times(given: str) -> dict[str, str | None]:
    """The properties that say when: of ``2022-07-24T10:15:00Z``, or of a span with a slash between two times.

    Raises:
        BadInput: it is no time in ISO 8601 with an offset or a Z, or a span ends before it begins.
    """
    times = [_instant(part) for part in given.split("/")]
    if len(times) == 1:
        return {"datetime": _written(times[0])}
    if len(times) > 2 or times[0] > times[1]:
        raise BadInput(f"--datetime {given}: expected one time, or START/END in their order")
    return {"datetime": None, "start_datetime": _written(times[0]), "end_datetime": _written(times[1])}


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise BadInput(f"--datetime {text}: expected a time with its zone, such as 2022-07-24T10:15:00Z")
    return found.astimezone(UTC)


def _written(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _item(
    name: str, place: Placed, times: Mapping[str, str | None], assets: Mapping[str, Any], *, generated: bool
) -> Item:
    geometry = _footprint(place)
    epsg = place.crs.to_epsg()
    properties: dict[str, Any] = {
        **times,
        "title": f"{name} (generated: no real place)" if generated else name,
        "proj:code": None if epsg is None else f"EPSG:{epsg}",
        "proj:shape": [place.height, place.width],
        "proj:transform": [float(value) for value in place.transform],
    }
    if epsg is None:
        properties["proj:wkt2"] = place.crs.to_wkt(version="WKT2_2019")
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, EO, CLASSIFICATION],
        "id": name,
        "geometry": geometry,
        "bbox": list(geometry_bounds(geometry)),
        "properties": properties,
        "links": [],
        "assets": dict(assets),
    }


def _footprint(place: Placed) -> dict[str, Any]:
    """The raster's outline in longitude and latitude, in GeoJSON's counter-clockwise order."""
    a, b, c, d, e, f = place.transform
    corners = [(0, 0), (0, place.height), (place.width, place.height), (place.width, 0), (0, 0)]
    outline = [
        (col + (next_col - col) * step / _POINTS_A_SIDE, row + (next_row - row) * step / _POINTS_A_SIDE)
        for (col, row), (next_col, next_row) in itertools.pairwise(corners)
        for step in range(_POINTS_A_SIDE)
    ]
    ring = [(a * col + b * row + c, d * col + e * row + f) for col, row in [*outline, outline[0]]]
    if a * e - b * d > 0:  # rows that go north turn the outline around
        ring.reverse()
    found: dict[str, Any] = transform_geom(
        place.crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]}, precision=7
    )
    return {"type": found["type"], "coordinates": [[list(point) for point in ring] for ring in found["coordinates"]]}


def _band(modality: ModalityRecord, number: int) -> dict[str, Any]:
    """A band with its wavelength and width in micrometres, where they are known."""
    band: dict[str, Any] = {"name": modality.band_names[number] if modality.band_names else f"{number + 1}"}
    if modality.wavelengths_nm is not None:
        band["eo:center_wavelength"] = round(modality.wavelengths_nm[number] / 1000, 6)
    if modality.fwhm_nm is not None:
        band["eo:full_width_half_max"] = round(modality.fwhm_nm[number] / 1000, 6)
    return band


def _classes(names: Mapping[int, str], colours: Mapping[int, str]) -> list[dict[str, Any]]:
    """Classes as the extension has them, whose names are letters, digits, - and _ alone."""
    return [
        {
            "value": class_id,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "_", name) or "_",
            "title": name,
            **({"color_hint": colours[class_id].lstrip("#").upper()} if class_id in colours else {}),
        }
        for class_id, name in sorted(names.items())
    ]


def _href(place: str, item_file: Path) -> str:
    """A URL as it is; a local file relative to the item's folder."""
    if "://" in place:
        return place
    return Path(os.path.relpath(Path(place).resolve(), item_file.resolve().parent)).as_posix()
