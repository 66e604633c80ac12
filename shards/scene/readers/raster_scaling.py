"""Scale and offset as rasters carry them: GDAL's tags, ENVI's header, Sentinel-2's product metadata."""

import functools
import re
from pathlib import Path
from typing import Any

from shards.errors import BadInput
from shards.scene.source import Scaling

SENTINEL2_METADATA = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
# in the order of the metadata's band_id
SENTINEL2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SENTINEL2_NODATA = 0.0
# folders between a band's file and the product's metadata
SENTINEL2_DEPTH = 6


def raster_scaling(path: Path, raster: Any) -> tuple[Scaling | None, float | None]:
    """Scale and offset that a file carries itself, and the nodata value of its product where the file has none.

    Args:
        path: the file.
        raster: the open rasterio dataset.

    Returns:
        None where nothing is said; a scale of 1 and an offset of 0 count as nothing.
    """
    scale, offset = tuple(map(float, raster.scales)), tuple(map(float, raster.offsets))
    if set(scale) != {1.0} or set(offset) != {0.0}:
        return Scaling(scale, offset), None
    envi = {key.lower().replace(" ", "_"): value for key, value in raster.tags(ns="ENVI").items()}
    if (divisor := _number(envi.get("reflectance_scale_factor"))) not in (None, 0.0, 1.0):
        assert divisor is not None
        return Scaling((1 / divisor,) * raster.count, (0.0,) * raster.count), None
    if raster.count == 1 and (found := _sentinel2(path)) is not None:
        return Scaling((found[0],), (found[1],)), SENTINEL2_NODATA
    return None, None


def _sentinel2(path: Path) -> tuple[float, float] | None:
    """Scale and offset of a band of a Sentinel-2 product, to reflectance: (counts + added offset) / quantification.

    Source: Sentinel-2 Products Specification Document, processing baseline 04.00 (RADIO_ADD_OFFSET, BOA_ADD_OFFSET).
    """
    match = re.search(r"_(B\d{2}|B8A)(?:_\d{2}m)?$", path.stem)
    if match is None or match[1] not in SENTINEL2_BANDS:
        return None
    for folder in list(path.resolve().parents)[:SENTINEL2_DEPTH]:
        for name in SENTINEL2_METADATA:
            if (folder / name).is_file():
                quantification, added = _sentinel2_product(folder / name, (folder / name).stat().st_mtime_ns)
                if quantification is None:
                    return None
                return 1 / quantification, added.get(SENTINEL2_BANDS.index(match[1]), 0.0) / quantification
    return None


@functools.lru_cache(maxsize=64)
def _sentinel2_product(metadata: Path, _stamp: int) -> tuple[float | None, dict[int, float]]:
    """Quantification value, and the added offset by band_id (none before processing baseline 04.00)."""
    text = metadata.read_text(encoding="utf-8", errors="replace")
    quantification = re.search(r"<(?:L2A_)?(?:BOA_)?QUANTIFICATION_VALUE[^>]*>([^<]*)<", text)
    added = re.findall(r'<(?:BOA|RADIO)_ADD_OFFSET\s+band_id="(\d+)"\s*>([^<]*)<', text)
    try:
        value = float(quantification[1]) if quantification else 0.0
        return value or None, {int(band): float(offset) for band, offset in added}
    except ValueError as error:
        raise BadInput(f"{metadata}: QUANTIFICATION_VALUE or ADD_OFFSET: expected numbers: {error}") from None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
