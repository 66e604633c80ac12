"""Draws spectra of materials: ingredients mixed, wet, in shade.

Shapes: n draws, w wavelengths of `spectral_library.GRID_NM`.
"""

from typing import Final

import numpy as np

from diffclip_dist.words.materials import CLEAR_WATER, FORMULAS, SNOW, TURBID_WATER, Material, Part
from diffclip_dist.words.snow_spectra import snow_reflectance
from diffclip_dist.words.spectral_library import GRID_NM, LibrarySpectra, Reals
from diffclip_dist.words.water_spectra import water_reflectance

# Light that reaches shaded ground at 550 nm as part of that in the sun; it comes from the blue sky
SKY_LIGHT: Final = (0.05, 0.2)
SKY_EXPONENT: Final = 1.5
# A soaked soil reflects about this part of what a dry one does (Lobell and Asner 2002, Soil Sci. Soc. Am. J. 66, 722)
SOAKED: Final = 0.4


def draw_material(material: Material, library: LibrarySpectra, count: int, random: np.random.Generator) -> Reals:
    """Reflectance (n, w) of `count` pixels of one material, nothing else mixed in."""
    shares = np.stack([random.uniform(*part.share, count) for part in material.parts])
    shares /= np.maximum(shares.sum(axis=0), 1e-9)
    mixed = sum(
        share[:, None] * _draw_part(part, material, library, count, random)
        for share, part in zip(shares, material.parts, strict=True)
    )
    assert isinstance(mixed, np.ndarray)
    shaded = random.uniform(*material.shade, count)[:, None]
    sky = random.uniform(*SKY_LIGHT, count)[:, None] * (GRID_NM / 550.0) ** -SKY_EXPONENT
    lit: Reals = mixed * (1.0 - shaded + shaded * np.minimum(sky, 0.6))
    return lit


def _draw_part(
    part: Part, material: Material, library: LibrarySpectra, count: int, random: np.random.Generator
) -> Reals:
    if part.of in FORMULAS:
        return _FORMULAS[part.of](count, random)
    # each group counts alike, however many spectra it has
    pools = [library.of((group,), part.leaf_area) for group in part.of]
    pools = [pool for pool in pools if len(pool)]
    chosen = random.integers(0, len(pools), count)
    places = random.random(count)
    drawn = np.stack([pools[pool][int(place * len(pools[pool]))] for pool, place in zip(chosen, places, strict=True)])
    if material.wetness[1] > 0 and {"soil", "dirt", "sand"} & {*part.of}:
        wet = random.uniform(*material.wetness, count)[:, None]
        drawn = drawn * (1.0 - (1.0 - SOAKED) * wet)
    return drawn


def _clear_water(count: int, random: np.random.Generator) -> Reals:
    return _water(count, random, chlorophyll=(0.1, 10.0), sediment=(0.1, 5.0), dissolved=(0.02, 1.0))


def _turbid_water(count: int, random: np.random.Generator) -> Reals:
    return _water(count, random, chlorophyll=(2.0, 60.0), sediment=(3.0, 150.0), dissolved=(0.2, 4.0))


def _water(
    count: int,
    random: np.random.Generator,
    chlorophyll: tuple[float, float],
    sediment: tuple[float, float],
    dissolved: tuple[float, float],
) -> Reals:
    def drawn(low: float, high: float) -> Reals:
        return np.exp(random.uniform(np.log(low), np.log(high), count))

    return water_reflectance(GRID_NM, drawn(*chlorophyll), drawn(*sediment), drawn(*dissolved), drawn(0.001, 0.03))


def _snow(count: int, random: np.random.Generator) -> Reals:
    grain_mm, soot = random.uniform(0.1, 2.0, count), np.exp(random.uniform(np.log(1e-6), np.log(5e-3), count))
    return snow_reflectance(GRID_NM, grain_mm, soot)


_FORMULAS = {CLEAR_WATER: _clear_water, TURBID_WATER: _turbid_water, SNOW: _snow}
