"""Landsat Collection 2 products, Level 1 and Level 2: a folder with an _MTL.txt, _MTL.json or _MTL.xml file.

Sources: USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619) and Landsat 4-7 Collection 2 Level 2
Science Product Guide (LSDS-1618): surface reflectance = counts * 2.75e-5 - 0.2, as the metadata give it for each band;
counts of 0 are fill. Bit 0 of QA_PIXEL is fill; bit n - 1 of QA_RADSAT tells that band n is saturated. Both are missing
pixels; clouds and shadows stay, since whether they count depends on the task. Thermal and panchromatic bands are left
out.
"""

import json
import re
from pathlib import Path
from typing import Final

from shards.errors import BadInput
from shards.scene.products.product_layer import NO_CODE, ProductLayer, QualityMask
from shards.scene.products.xml_metadata import local_name, read_xml
from shards.scene.readers.layer import Given, Layer
from shards.scene.readers.raster import open_rasters
from shards.scene.readers.stacked import stack

Groups = dict[str, dict[str, str]]

# centre wavelengths in nanometres, middles of the ranges in USGS, 'What are the band designations for the Landsat
# satellites?'
CENTRES_NM: Final[dict[str, dict[int, float]]] = {
    "OLI": {1: 443, 2: 482, 3: 561, 4: 655, 5: 865, 6: 1609, 7: 2201, 9: 1373},
    "ETM": {1: 485, 2: 560, 3: 660, 4: 835, 5: 1650, 7: 2220},
    "TM": {1: 485, 2: 560, 3: 660, 4: 830, 5: 1650, 7: 2215},
}
RESCALING: Final = ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "LEVEL1_RADIOMETRIC_RESCALING")
FILL_BIT: Final = 1
FILL_COUNT: Final = 0.0


def landsat_layers(folder: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The product's one layer, `optical`: reflective bands of 30 m; None for another folder.

    Raises:
        BadInput: the folder is such a product and its metadata or bands are not as expected.
    """
    found = sorted(path for path in folder.iterdir() if re.search(r"_MTL\.(txt|json|xml)$", path.name))
    if not found:
        return None
    metadata = found[0]
    groups = _read_groups(metadata)
    contents = groups.get("PRODUCT_CONTENTS", {})
    if contents.get("COLLECTION_NUMBER", "").lstrip("0") != "2":
        raise BadInput(f"{metadata}: {field}: expected a product of Landsat Collection 2")
    sensor = groups.get("IMAGE_ATTRIBUTES", {}).get("SENSOR_ID", "").split("_")[0]
    if sensor not in CENTRES_NM:
        raise BadInput(f"{metadata}: {field}: sensor {sensor!r} is unknown; expected OLI, ETM or TM")
    level2 = contents.get("PROCESSING_LEVEL", "").startswith("L2")
    rescaling = groups.get(RESCALING[0] if level2 else RESCALING[1], {})
    layers: dict[str, Layer] = {}
    bands: list[int] = []
    for band in CENTRES_NM[sensor]:
        name, scale = contents.get(f"FILE_NAME_BAND_{band}"), rescaling.get(f"REFLECTANCE_MULT_BAND_{band}")
        if name is None or scale is None:
            continue
        offset = rescaling.get(f"REFLECTANCE_ADD_BAND_{band}", "0")
        try:
            factor, addend = float(scale), float(offset)
        except ValueError:
            said = f"REFLECTANCE_MULT_BAND_{band} {scale!r}, REFLECTANCE_ADD_BAND_{band} {offset!r}"
            raise BadInput(f"{metadata}: {field}: {said}; expected numbers") from None
        own = Given(FILL_COUNT if given.nodata is None else given.nodata, factor, addend, given.crs_wkt)
        layers[f"B{band}"] = open_rasters((_file(folder, name, metadata, field),), own, f"{field}.B{band}")
        bands.append(band)
    if not layers:
        raise BadInput(f"{metadata}: {field}: names no reflective band with its rescaling")
    quality = []
    saturated = sum(1 << (band - 1) for band in bands)
    for key, bits in (
        ("FILE_NAME_QUALITY_L1_PIXEL", FILL_BIT),
        ("FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION", saturated),
    ):
        if key in contents:
            path = _file(folder, contents[key], metadata, field)
            codes = open_rasters((path,), Given(nodata=NO_CODE, crs_wkt=given.crs_wkt), f"{field}.{key}")
            quality.append(QualityMask(codes, bits=bits))
    centres = tuple(CENTRES_NM[sensor][band] for band in bands)
    return {"optical": ProductLayer(stack(layers, "nearest", field), centres, quality=tuple(quality))}


def _file(folder: Path, name: str, metadata: Path, field: str) -> Path:
    path = folder / Path(name).name
    if not path.is_file():
        raise BadInput(f"{path}: {field}: no such file; {metadata.name} names it")
    return path


def _read_groups(path: Path) -> Groups:
    """Groups of the metadata, each with its values as text; of twins the first (Level 1's repeat some names)."""
    groups: Groups = {}
    if path.suffix == ".xml":
        for group in read_xml(path):
            groups.setdefault(local_name(group), {local_name(item): (item.text or "").strip() for item in group})
        return groups
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = json.loads(text)["LANDSAT_METADATA_FILE"]
            return {name: {key: str(value) for key, value in group.items()} for name, group in content.items()}
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: cannot be read as Landsat metadata: {error}") from error
    inside: list[str] = []
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            inside.append(value)
            groups.setdefault(value, {})
        elif key == "END_GROUP" and inside:
            inside.pop()
        elif value and inside:
            groups[inside[-1]].setdefault(key, value.strip('"'))
    return groups
