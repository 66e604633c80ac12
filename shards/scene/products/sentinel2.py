"""Sentinel-2 L1C and L2A products: a SAFE folder with MTD_MSIL1C.xml or MTD_MSIL2A.xml.

Source: Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), issue 14.9 and later: reflectance = (counts +
added offset) / quantification value, the added offset from processing baseline 04.00 on; counts of 0 are no data.
`shards.scene.readers.raster_scaling` reads both from the metadata. Of the scene classification (SCL) the codes 0 (no
data) and 1 (saturated or defective) are missing pixels; clouds and shadows stay, since whether they count depends on
the task.
"""

import re
from pathlib import Path
from typing import Final

from shards.errors import BadInput
from shards.scene.products.product_layer import NO_CODE, ProductLayer, QualityMask
from shards.scene.products.xml_metadata import local_name, read_xml
from shards.scene.readers.layer import Given, Grid, Layer
from shards.scene.readers.raster import open_rasters
from shards.scene.readers.resampled import resample
from shards.scene.readers.stacked import StackedLayer

METADATA: Final = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
# centre wavelengths in nanometres, Sentinel-2A (same document, table 'spectral bands'), where the metadata lack them
CENTRES_NM: Final = {
    "B01": 442.7,
    "B02": 492.4,
    "B03": 559.8,
    "B04": 664.6,
    "B05": 704.1,
    "B06": 740.5,
    "B07": 782.8,
    "B08": 832.8,
    "B8A": 864.7,
    "B09": 945.1,
    "B10": 1373.5,
    "B11": 1613.7,
    "B12": 2202.4,
}
BAND_FILE: Final = re.compile(r"_(B\d{2}|B8A|SCL)(?:_(\d{2})m)?\.(?:jp2|tiff?)$", re.IGNORECASE)
MISSING_CODES: Final = (0, 1)


def sentinel2_layers(folder: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The product's one layer, `msi`, on its finest grid; None for another folder.

    Bands come in the order of their names, coarser ones by the nearest value.

    Raises:
        BadInput: the folder is such a product and lacks its bands.
    """
    metadata = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if metadata is None:
        return None
    files = _finest_files(folder)
    names = [name for name in CENTRES_NM if name in files]
    if not names:
        raise BadInput(f"{folder}: {field}: holds {metadata.name} and no band such as GRANULE/*/IMG_DATA/*_B02*.jp2")
    opened: dict[str, Layer] = {name: open_rasters((files[name],), given, f"{field}.{name}") for name in names}
    finest = min(opened.values(), key=_pixel_size).grid
    placed = tuple(_onto(layer, finest, f"{field}.{name}") for name, layer in opened.items())
    quality: tuple[QualityMask, ...] = ()
    if "SCL" in files:
        codes = open_rasters((files["SCL"],), Given(nodata=NO_CODE, crs_wkt=given.crs_wkt), f"{field}.SCL")
        quality = (QualityMask(_onto(codes, finest, f"{field}.SCL"), MISSING_CODES),)
    centres = CENTRES_NM | _centres(metadata)
    wavelengths = tuple(centres[name] for name in names)
    return {"msi": ProductLayer(StackedLayer(tuple(names), placed), wavelengths, quality=quality)}


def _finest_files(folder: Path) -> dict[str, Path]:
    """Each band's file of the finest resolution, by the band's name."""
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.rglob("*")):
        match = BAND_FILE.search(path.name)
        if match is None or "QI_DATA" in path.parts:
            continue
        name, metres = match[1].upper(), int(match[2] or 0)
        if name not in found or metres < found[name][0]:
            found[name] = (metres, path)
        elif metres == found[name][0]:
            raise BadInput(
                f"{path}: band {name} is in the product twice (also {found[name][1]}); name one granule's folder"
            )
    return {name: path for name, (_, path) in found.items()}


def _pixel_size(layer: Layer) -> float:
    return abs(layer.grid.transform[0]) if layer.grid.transform is not None else 0.0


def _onto(layer: Layer, grid: Grid, field: str) -> Layer:
    same = (layer.grid.height, layer.grid.width, layer.grid.transform) == (grid.height, grid.width, grid.transform)
    return layer if same else resample(layer, grid, "nearest", field)


def _centres(metadata: Path) -> dict[str, float]:
    """Centre wavelengths in nanometres that the metadata tell, by the band's name."""
    centres: dict[str, float] = {}
    for band in read_xml(metadata).iter():
        if local_name(band) != "Spectral_Information":
            continue
        number = band.get("physicalBand", "").removeprefix("B")
        for centre in band.iter():
            if local_name(centre) == "CENTRAL" and centre.text and centre.get("unit", "nm") == "nm":
                try:
                    centres[f"B{number.zfill(2)}"] = float(centre.text)
                except ValueError:
                    raise BadInput(f"{metadata}: CENTRAL of B{number}: {centre.text!r}, expected a number") from None
    return centres
