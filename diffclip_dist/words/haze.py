"""Light that the air or the instrument adds, estimated from the darkest pixels of a scene.

Dark-object subtraction with a relative scattering model (Chavez 1988, Remote Sens. Environ. 24, 459): what the air adds
falls with wavelength as a power between 1 (thick haze) and 4 (Rayleigh), and no pixel is darker than it. Some scenes
carry light that is the same at all wavelengths as well, from instrument or processing. It looks like dark grey ground.
So it is taken off only where dense green vegetation, whose red reflectance is known (Kaufman et al. 1997, IEEE Trans.
Geosci. Remote Sens. 35, 1286), is too bright by as much.

Shapes: P pixels, G groups of bands.
"""

from typing import Final

import numpy as np

from diffclip_dist.words.spectral_library import Reals

EXPONENTS: Final = (1.0, 2.0, 3.0, 4.0)
# Per cent of the pixels that may be darker, to pass over faults
DARKEST_PERCENT: Final = 1.0
# What the darkest ground reflects itself
DARK_GROUND: Final = 0.01
# Where even the darkest pixels are brighter in every band, none is dark, and they tell nothing
MOST_DARK: Final = 0.1
# More than this at 550 nm is not haze through which ground is seen
MOST_AT_550: Final = 0.08
# Groups below this wavelength tell the haze
LAST_NM: Final = 900.0
RED_NM: Final = (630.0, 685.0)
NEAR_INFRARED_NM: Final = (780.0, 900.0)
# Least difference of near infrared and red in dense vegetation, its red reflectance, and its least share of the pixels
VEGETATION_EDGE: Final = 0.2
VEGETATION_RED: Final = 0.03
VEGETATION_PERCENT: Final = 2.0


def estimate_haze(reflectance_PG: Reals, centres_nm: Reals) -> Reals:
    """Reflectance (G) that is added to the ground's, at least 0.

    Args:
        reflectance_PG: pixels of a scene; NaN where missing.
        centres_nm: of the groups.
    """
    seen_G = ~np.isnan(reflectance_PG).all(axis=0)
    darkest = np.zeros(len(centres_nm))
    darkest[seen_G] = np.nanpercentile(reflectance_PG[:, seen_G], DARKEST_PERCENT, axis=0)
    if darkest.min() > MOST_DARK:
        return np.zeros_like(darkest)
    room = np.maximum(darkest - DARK_GROUND, 0.0)
    even = min(float(room.min()), _too_bright_vegetation(reflectance_PG, centres_nm))
    return even + _scattered(room - even, centres_nm)


def _scattered(room: Reals, centres_nm: Reals) -> Reals:
    """The most that scattering can add without exceeding `room`."""
    seen = centres_nm < LAST_NM
    best = np.zeros_like(room)
    if not seen.any():
        return best
    for exponent in EXPONENTS:
        shape = (centres_nm / 550.0) ** -exponent
        haze = min(float((room / shape)[seen].min()), MOST_AT_550) * shape
        if haze[seen].sum() > best[seen].sum():
            best = haze
    return best


def _too_bright_vegetation(reflectance_PG: Reals, centres_nm: Reals) -> float:
    """By how much dense vegetation is brighter in the red than it can be; 0 where there is none to be seen."""
    red_G, near_G = ((centres_nm >= low) & (centres_nm <= high) for low, high in (RED_NM, NEAR_INFRARED_NM))
    if not red_G.any() or not near_G.any():
        return 0.0
    red_P, near_P = reflectance_PG[:, red_G].mean(axis=1), reflectance_PG[:, near_G].mean(axis=1)
    green = near_P - red_P > VEGETATION_EDGE
    if 100.0 * green.mean() < VEGETATION_PERCENT:
        return 0.0
    return max(float(np.percentile(red_P[green], DARKEST_PERCENT)) - VEGETATION_RED, 0.0)
