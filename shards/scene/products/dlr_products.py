"""EnMAP and DESIS products: a folder with METADATA.XML and SPECTRAL_IMAGE.TIF.

Sources: DLR, EnMAP HSI Level 1B, Level 1C and Level 2A Product Specification (EN-PCV-ICD-2009-2): reflectance =
counts * gain + offset of each band (1e-4 and 0 at Level 2A), counts of -32768 are no data, QL_QUALITY_CLASSES 3 is
background; and DLR, DESIS Product Specification (PAV-DLR-ICD-003), which names the same things otherwise. Other quality
layers (clouds, haze, shadow, snow, test flags) leave pixels as they are: which of them count depends on the task.
"""

import re
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

from shards.errors import BadInput
from shards.scene.products.product_layer import NO_CODE, ProductLayer, QualityMask
from shards.scene.products.xml_metadata import local_name, numbers, read_xml
from shards.scene.readers.layer import Given, Layer
from shards.scene.readers.raster import open_rasters
from shards.scene.source import Scaling

METADATA: Final = re.compile(r"(?:^|.*-)METADATA\.XML$", re.IGNORECASE)
BACKGROUND_COUNT: Final = -32768.0
BACKGROUND_CLASS: Final = 3
# the element of one band and its children: centre, width, gain, offset
ENMAP_BAND: Final = ("bandID", "wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
DESIS_BAND: Final = ("band", "wavelengthCenterOfBand", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand")


def dlr_layers(folder: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The product's one layer, `hsi`; None for another folder.

    Raises:
        BadInput: the folder is such a product and its metadata or image are not as expected.
    """
    found = sorted(path for path in folder.iterdir() if METADATA.match(path.name))
    images = _beside(folder, "SPECTRAL_IMAGE")
    if not found or not images:
        return None
    if len(found) > 1 or len(images) > 1:
        raise BadInput(
            f"{folder}: {field}: holds {len(found)} METADATA.XML and {len(images)} SPECTRAL_IMAGE; expected one"
        )
    metadata, nodata = found[0], BACKGROUND_COUNT if given.nodata is None else given.nodata
    layer = open_rasters(images, Given(nodata, given.scale, given.offset, given.crs_wkt), field)
    bands, (_, centre, width, gain, offset) = _bands(metadata, field)
    if len(bands) != layer.bands:
        raise BadInput(f"{metadata}: {field}: describes {len(bands)} bands, and {images[0].name} has {layer.bands}")
    quality = tuple(
        QualityMask(open_rasters((path,), Given(nodata=NO_CODE, crs_wkt=given.crs_wkt), field), (BACKGROUND_CLASS,))
        for path in _beside(folder, "QL_QUALITY_CLASSES")
    )
    return {
        "hsi": ProductLayer(
            layer,
            numbers(metadata, bands, centre),
            numbers(metadata, bands, width),
            scaling=Scaling(numbers(metadata, bands, gain), numbers(metadata, bands, offset)),
            quality=quality,
        )
    }


def _beside(folder: Path, kind: str) -> tuple[Path, ...]:
    """The rasters of one kind; some archives deliver them as cloud-optimised copies, named _COG."""
    name = re.compile(rf"(?:^|.*-){kind}(?:_COG)?\.(?:TIFF?|GEOTIFF|JP2)$", re.IGNORECASE)
    return tuple(sorted(path for path in folder.iterdir() if name.match(path.name)))


def _bands(metadata: Path, field: str) -> tuple[list[Element], tuple[str, str, str, str, str]]:
    """The elements that tell of the bands, and the names of their children."""
    root = read_xml(metadata)
    inside = next((element for element in root.iter() if local_name(element) == "bandCharacterisation"), None)
    for names in (ENMAP_BAND, DESIS_BAND):
        bands = [] if inside is None else inside.findall(names[0])
        if bands:
            return bands, names
    raise BadInput(f"{metadata}: {field}: expected the bands' wavelengths in bandCharacterisation")
