"""95 % intervals of figures that have a lowest and a highest value, such as percentages; none goes beyond them."""

import math
from typing import Final

from scipy import stats

CONFIDENCE: Final = 0.95

Interval = tuple[float, float]


def mean_interval(mean: float, std: float, count: int, limits: Interval) -> Interval:
    """95 % interval of a mean: Student's t on the logit scale.

    With s the standard error, an interval of the logit of the mean has the standard error s / (mean (1 - mean)) (delta
    method) and is brought back to the figure's scale. Far from the limits it is Student's interval; near them it is
    longer towards the middle. It holds the mean.

    Args:
        mean: of the values, within the limits.
        std: their sample standard deviation.
        count: of the values, at least 2.
        limits: lowest and highest value that a figure can have.
    """
    low, high = limits
    share = (mean - low) / (high - low)
    # all values are the same there, up to rounding
    if not 0.0 < share < 1.0:
        return mean, mean
    error = std / (high - low) / math.sqrt(count)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * error / (share * (1.0 - share))
    middle = math.log(share / (1.0 - share))
    ends = (_logistic(middle - half), _logistic(middle + half))
    return low + (high - low) * ends[0], low + (high - low) * ends[1]


def _logistic(value: float) -> float:
    """1 / (1 + exp(-value)), for any value without overflow."""
    return 0.5 * (1.0 + math.tanh(value / 2.0))
