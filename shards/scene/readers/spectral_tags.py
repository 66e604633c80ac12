"""Wavelength, width and bad-band marks as GeoTIFF and ENVI files carry them."""

import re
from typing import Any

from shards.errors import BadInput

NM_PER_UNIT = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometers": 1.0,
    "nanometre": 1.0,
    "nanometres": 1.0,
    "um": 1000.0,
    "µm": 1000.0,
    "μm": 1000.0,
    "micron": 1000.0,
    "microns": 1000.0,
    "micrometer": 1000.0,
    "micrometers": 1000.0,
    "micrometre": 1000.0,
    "micrometres": 1000.0,
}

SpectralTags = tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[int, ...]]


def nm_per_unit(units: str, where: str) -> float:
    """Nanometres in one of the unit named.

    Raises:
        BadInput: the unit is unknown.
    """
    factor = NM_PER_UNIT.get(units.strip().lower())
    if factor is None:
        raise BadInput(f"{where}: unit {units!r} of wavelengths is unknown; expected nm or um")
    return factor


def spectral_tags(raster: Any) -> SpectralTags:
    """Wavelengths and widths in nanometres (None where a band lacks them) and the bands marked bad (from 1).

    Args:
        raster: an open rasterio dataset; tags of the bands come first, then ENVI's lists.
    """
    per_band = [{key.lower(): value for key, value in raster.tags(band).items()} for band in raster.indexes]
    envi = {key.lower().replace(" ", "_"): value for key, value in raster.tags(ns="ENVI").items()}

    def values(key: str) -> list[float] | None:
        texts = [tags.get(key) for tags in per_band]
        if None in texts:
            texts = re.findall(r"[^\s,{}]+", envi.get(key, ""))
        try:
            numbers = [float(text) for text in texts if text is not None]
        except ValueError:
            return None
        return numbers if len(numbers) == raster.count else None

    wavelengths, fwhm, good = values("wavelength"), values("fwhm"), values("bbl")
    units = per_band[0].get("wavelength_units") or envi.get("wavelength_units")
    if wavelengths is None or units is None or units.strip().lower() not in NM_PER_UNIT:
        wavelengths = fwhm = None  # a number without a length unit (GHz, index, unknown) is no wavelength
    factor = NM_PER_UNIT[units.strip().lower()] if wavelengths is not None and units is not None else 1.0
    return (
        tuple(value * factor for value in wavelengths) if wavelengths is not None else None,
        tuple(value * factor for value in fwhm) if fwhm is not None else None,
        tuple(band for band, mark in enumerate(good or [], start=1) if mark == 0),
    )
