"""How a modality's values become reflectance from 0 to 1."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from diffclip_dist.words.spectral_library import Reals
from diffclip_dist.words.words_unavailable import WordsUnavailable
from shards.scene.sensors import SENSORS

# reflectance itself, per cent, ten thousandths
DIVISORS: Final = (1.0, 100.0, 10000.0)
# The median of a scene's reflectance below 1300 nm lies in here
TYPICAL: Final = (0.02, 0.6)
# Counts tell nothing of the sun. Its height over the horizon is taken as 49 degrees; a brightness is left open anyway
SUN_SINE: Final = 0.75
LARGEST_COUNT: Final = 255.0


@dataclass(frozen=True)
class ReflectanceScale:
    """Reflectance = scale * value + offset, one each a group of bands (G)."""

    scale_G: Reals
    offset_G: Reals


def reflectance_scale(values_PG: Reals, centres_nm: Reals, modality: str, sensor: str | None) -> ReflectanceScale:
    """The scale of one modality's values: reflectance, per cent, ten thousandths, or 8-bit counts of a known sensor.

    Args:
        values_PG: pixels of a scene, NaN where missing.
        centres_nm: of the groups of bands.
        modality: for the message.
        sensor: a key of `SENSORS`, where known.

    Raises:
        WordsUnavailable: they are none of these.
    """
    held = values_PG[~np.isnan(values_PG)]
    counts = None if sensor is None else SENSORS[sensor].counts
    if sensor is not None and counts is not None and _are_counts(held):
        bands = [int(np.argmin(np.abs(np.array(SENSORS[sensor].centres_nm) - centre))) for centre in centres_nm]
        return ReflectanceScale(np.array(counts.scale)[bands] / SUN_SINE, np.array(counts.offset)[bands] / SUN_SINE)
    near = values_PG[:, centres_nm < 1300.0]
    median = float(np.nanmedian(near if near.size else values_PG))
    for divisor in DIVISORS:
        if TYPICAL[0] <= median / divisor <= TYPICAL[1]:
            return ReflectanceScale(np.full(len(centres_nm), 1.0 / divisor), np.zeros(len(centres_nm)))
    raise WordsUnavailable(
        f"class names: {modality}: values with the median {median:.4g} are no reflectance; give `scale:` and `offset:` "
        "in its scene.yaml that make them reflectance"
    )


def _are_counts(values: Reals) -> bool:
    return bool(values.size and values.max() <= LARGEST_COUNT and values.max() > 2.0 and not (values % 1.0).any())
