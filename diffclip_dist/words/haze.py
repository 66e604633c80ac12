"""Light that the air adds, estimated from the darkest pixels of a scene.

Dark-object subtraction with a relative scattering model (Chavez 1988, Remote Sens. Environ. 24, 459): what the air adds
falls with wavelength as a power between 1 (thick haze) and 4 (Rayleigh), and no pixel is darker than it.

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
# More than this at 550 nm is not haze through which ground is seen
MOST_AT_550: Final = 0.08
# Groups below this wavelength tell the haze
LAST_NM: Final = 900.0


def estimate_haze(reflectance_PG: Reals, centres_nm: Reals) -> Reals:
    """Reflectance (G) that the air adds, at least 0.

    Args:
        reflectance_PG: pixels of a scene; NaN where missing.
        centres_nm: of the groups.
    """
    darkest = np.nanpercentile(reflectance_PG, DARKEST_PERCENT, axis=0)
    room = np.maximum(darkest - DARK_GROUND, 0.0)
    seen = centres_nm < LAST_NM
    if not seen.any():
        return np.zeros_like(room)
    best = np.zeros_like(room)
    for exponent in EXPONENTS:
        shape = (centres_nm / 550.0) ** -exponent
        haze = min(float((room / shape)[seen].min()), MOST_AT_550) * shape
        if haze[seen].sum() > best[seen].sum():
            best = haze
    return best
