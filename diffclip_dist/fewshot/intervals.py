"""95 % intervals of figures that have a lowest and a highest value, such as percentages; none goes beyond them."""

import math
from collections.abc import Sequence
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
    half = _t_quantile(count - 1) * error / (share * (1.0 - share))
    middle = math.log(share / (1.0 - share))
    ends = (_logistic(middle - half), _logistic(middle + half))
    return low + (high - low) * ends[0], low + (high - low) * ends[1]


def share_interval(share: float, count: float) -> Interval:
    """Wilson's 95 % interval of a share, in [0, 1].

    It is not empty where all or none count, and holds the share.

    Args:
        share: of those counted, in [0, 1].
        count: how many independent ones were asked, above 0.
    """
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)


def mean_share_interval(shares: Sequence[float], counts: Sequence[float]) -> Interval:
    """95 % interval of the mean of independent shares, in [0, 1], from Wilson's of each (MOVER: Zou and Donner 2008).

    Args:
        shares: at least one, each in [0, 1].
        counts: how many independent ones each is a share of.
    """
    ends = [share_interval(share, count) for share, count in zip(shares, counts, strict=True)]
    mean = math.fsum(shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, ends, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, ends, strict=True))) / len(shares)
    return max(mean - below, 0.0), min(mean + above, 1.0)


def effective_count(right: Sequence[int], counts: Sequence[int]) -> float:
    """How many independent trials as many clustered ones are worth (Korn and Graubard 1998), at most as many.

    Clusters whose shares differ more than chance explains are worth fewer; so are few clusters, which say little about
    how much they differ.

    Args:
        right: of each cluster.
        counts: trials of each cluster, at least one; at least two clusters.
    """
    clusters, total = len(counts), sum(counts)
    share = sum(right) / total
    between = sum((one - share * count) ** 2 for one, count in zip(right, counts, strict=True)) / total**2
    between *= clusters / (clusters - 1)
    if between == 0:
        return total
    chance = share * (1 - share) / total
    few_clusters = (_t_quantile(total - 1) / _t_quantile(clusters - 1)) ** 2
    return min(float(total), total * few_clusters * chance / between)


def _t_quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))


def _logistic(value: float) -> float:
    """1 / (1 + exp(-value)), for any value without overflow."""
    return 0.5 * (1.0 + math.tanh(value / 2.0))
