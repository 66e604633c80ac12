"""Masks of a raster that say where its bands are valid: alpha bands, masks inside the file, and `.msk` beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from shards.scene.source import Mask

# pixels a side at which an alpha band is looked at
SAMPLE = 512
# share of an alpha band's pixels that are wholly opaque or wholly transparent; some edges are soft
SHARE_OF_ENDS = 0.98


@dataclass(frozen=True)
class RasterMask:
    """Which masks a file has.

    Attributes:
        bands: its alpha bands (from 1).
        whole: it has a mask for all bands together.
        per_band: bands (from 1) that have a mask of their own.
    """

    bands: tuple[int, ...] = ()
    whole: bool = False
    per_band: tuple[int, ...] = ()

    def used_for(self, bands: tuple[int, ...]) -> bool:
        """Whether there is anything to read for these bands; an alpha band that is asked for is data."""
        return self.whole or bool(set(bands) & set(self.per_band)) or bool(set(self.bands) - set(bands))

    def read(self, raster: Any, window: Window, bands: tuple[int, ...]) -> Mask:
        """Where the bands (from 1) are valid by these masks: (row, col, band)."""
        shape = (round(window.height), round(window.width), len(bands))
        valid: Mask = np.ones(shape, dtype=np.bool_)
        for alpha in set(self.bands) - set(bands):
            valid &= (raster.read(alpha, window=window) > 0)[..., None]
        if self.whole:
            valid &= (raster.read_masks(bands[0], window=window) > 0)[..., None]
        for place, band in enumerate(bands):
            if band in self.per_band:
                valid[..., place] &= raster.read_masks(band, window=window) > 0
        return valid


def raster_mask(path: Path, raster: Any) -> tuple[RasterMask, tuple[str, ...]]:
    """The masks of an open rasterio dataset, and what a user should know of them."""
    notes = []
    alpha = []
    for band in (
        band for band, kind in zip(raster.indexes, raster.colorinterp, strict=True) if kind == ColorInterp.alpha
    ):
        if raster.count > 1 and _is_mask(raster, band):
            alpha.append(band)
            notes.append(f"{path}: band {band} is an alpha band: taken as the mask of the others")
        else:
            # GDAL marks the fourth band of any four bands of bytes as alpha unless it is told otherwise
            notes.append(f"{path}: band {band} is marked as alpha but holds data: read as a band")
    flags = dict(zip(raster.indexes, map(set, raster.mask_flag_enums), strict=True))
    own = {
        band: kinds
        for band, kinds in flags.items()
        if not kinds & {MaskFlags.all_valid, MaskFlags.alpha} and kinds != {MaskFlags.nodata}
    }
    whole = any(MaskFlags.per_dataset in kinds for kinds in own.values())
    return RasterMask(tuple(alpha), whole, () if whole else tuple(own)), tuple(notes)


def _is_mask(raster: Any, band: int) -> bool:
    """Whether a band holds little but two values, one of them 0 or the largest."""
    shape = (min(raster.height, SAMPLE), min(raster.width, SAMPLE))
    seen = raster.read(band, out_shape=shape)
    return bool(np.mean((seen == 0) | (seen == seen.max())) >= SHARE_OF_ENDS)
