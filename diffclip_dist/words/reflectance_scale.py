"""By what a modality's values are divided to give reflectance from 0 to 1."""

from typing import Final

import numpy as np

from diffclip_dist.words.spectral_library import Reals
from diffclip_dist.words.words_unavailable import WordsUnavailable

# reflectance itself, per cent, ten thousandths
DIVISORS: Final = (1.0, 100.0, 10000.0)
# The median of a scene's reflectance below 1300 nm lies in here
TYPICAL: Final = (0.02, 0.6)


def reflectance_divisor(values_PG: Reals, centres_nm: Reals, modality: str) -> float:
    """1, 100 or 10000, whichever makes the values reflectance.

    Args:
        values_PG: pixels of a scene, NaN where missing.
        centres_nm: of the groups of bands.
        modality: for the message.

    Raises:
        WordsUnavailable: none does.
    """
    near = values_PG[:, centres_nm < 1300.0]
    median = float(np.nanmedian(near if near.size else values_PG))
    for divisor in DIVISORS:
        if TYPICAL[0] <= median / divisor <= TYPICAL[1]:
            return divisor
    raise WordsUnavailable(
        f"class names: {modality}: values with the median {median:.4g} are no reflectance; give `scale:` and `offset:` "
        "in its scene.yaml that make them reflectance"
    )
