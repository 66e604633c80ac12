"""Wavelength, width and bad-band marks as GeoTIFF and ENVI files carry them."""

import re
from collections.abc import Sequence
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

# A wavelength with its unit at the end of a band's description, as GDAL writes it for ENVI: "red (665.0 Nanometers)"
DESCRIBED = re.compile(r"(?:^|[\s(])(\d+(?:\.\d+)?)\s*([^\W\d]+)\)?\s*$")
# GDAL's own tags of a band, in micrometres
IMAGERY = ("CENTRAL_WAVELENGTH_UM", "FWHM_UM")

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
        raster: an open rasterio dataset; tags of the bands come first, then ENVI's lists, then GDAL's tags of images,
            then the bands' descriptions.
    """
    per_band = [{key.lower(): value for key, value in raster.tags(band).items()} for band in raster.indexes]
    envi = {key.lower().replace(" ", "_"): value for key, value in raster.tags(ns="ENVI").items()}

    def values(key: str) -> tuple[float, ...] | None:
        texts = [tags.get(key) for tags in per_band]
        return _numbers(re.findall(r"[^\s,{}]+", envi.get(key, "")) if None in texts else texts, raster.count)

    good = values("bbl")
    bad_bands = tuple(band for band, mark in enumerate(good or (), start=1) if mark == 0)
    units = per_band[0].get("wavelength_units") or envi.get("wavelength_units")
    # a number without a length unit (GHz, index, unknown) is no wavelength
    if units is not None and (factor := NM_PER_UNIT.get(units.strip().lower())) is not None:
        wavelengths = values("wavelength")
        return _scaled(wavelengths, factor), None if wavelengths is None else _scaled(values("fwhm"), factor), bad_bands
    images = [raster.tags(band, ns="IMAGERY") for band in raster.indexes]
    wavelengths, fwhm = (
        _scaled(_numbers([tags.get(key) for tags in images], raster.count), NM_PER_UNIT["um"]) for key in IMAGERY
    )
    if wavelengths is None:
        return _described(raster.descriptions), None, bad_bands
    return wavelengths, fwhm, bad_bands


def _numbers(texts: Sequence[str | None], count: int) -> tuple[float, ...] | None:
    """The numbers that texts stand for; None unless there are so many."""
    try:
        numbers = tuple(float(text) for text in texts if text is not None)
    except ValueError:
        return None
    return numbers if len(numbers) == count else None


def _scaled(values: tuple[float, ...] | None, factor: float) -> tuple[float, ...] | None:
    return None if values is None else tuple(value * factor for value in values)


def _described(descriptions: Sequence[str | None]) -> tuple[float, ...] | None:
    """Wavelengths in nanometres that end the descriptions of all bands, each with its unit."""
    found = [DESCRIBED.search(text or "") for text in descriptions]
    factors = [None if match is None else NM_PER_UNIT.get(match[2].lower()) for match in found]
    if None in factors:
        return None
    return tuple(
        float(match[1]) * factor for match, factor in zip(found, factors, strict=True) if match and factor is not None
    )
