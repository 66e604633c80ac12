"""How far the centre of a band may lie off a known one of the same sensor, and still be that band."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

# Part of its wavelength that a band may lie off the known one. Sentinel-2A and 2B differ by up to 0.8 %, Landsat 5 and
# 8 by up to 4 %
REACH: Final = 0.05
# Bands that are nearer are always taken for the same, in nm; between scenes of one spectrometer, centres drift by less
LEAST_TOLERANCE_NM: Final = 2.0


def tolerance_nm(known_nm: Sequence[float]) -> npt.NDArray[np.float64]:
    """For each known band: half the median spacing, at least `LEAST_TOLERANCE_NM`, at most `REACH` of the wavelength.

    Args:
        known_nm: centres of the known bands, in any order.
    """
    centres_nm = np.array(known_nm, dtype=np.float64)
    half_spacing = float(np.median(np.diff(np.sort(centres_nm)))) / 2 if len(centres_nm) > 1 else np.inf
    return np.minimum(max(half_spacing, LEAST_TOLERANCE_NM), REACH * centres_nm)
