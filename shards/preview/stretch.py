"""Values of bands to colours: each on a scale of its own, without its highest and lowest values."""

from typing import Final

import numpy as np
import numpy.typing as npt

from shards.scene.source import Mask

# Percent of the values that lie beyond either end of the colour scale
STRETCH: Final = 2.0


def stretched_colours(picture: npt.NDArray[np.float32], valid: Mask) -> npt.NDArray[np.float32]:
    """Red, green, blue and opacity from 0 to 1 (row, col, 4), each colour on a scale of its own.

    Args:
        picture: (row, col, band); three bands, or one that is shown grey.
        valid: (row, col), where there are values; transparent elsewhere.
    """
    colours = np.zeros((*valid.shape, 4), np.float32)
    for place in range(3):
        values = picture[..., min(place, picture.shape[2] - 1)]
        low, high = stretch_limits(values)
        colours[..., place] = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    colours[..., 3] = valid
    return colours


def stretch_limits(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The values that the darkest and the brightest colour stand for; NaN is missing."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        return 0.0, 1.0
    low, high = np.percentile(seen, (STRETCH, 100 - STRETCH))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)
