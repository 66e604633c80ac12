"""An evenly spread sample of labelled pixels, for scenes with more labels than a classifier takes."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.labelled_pixels import Positions

# Bits of a row or a column that order pixels along the Z-order curve
CURVE_BITS: Final = 20


def balanced_quotas(counts: Mapping[int, int], most: int) -> dict[int, int]:
    """Labels to take of each class, `most` in all: small classes whole, the others equally many.

    Args:
        counts: labels of each class id, at least one each.
        most: labels in all, at least one a class.
    """
    quotas: dict[int, int] = {}
    left = most
    for place, class_id in enumerate(sorted(counts, key=lambda one: (counts[one], one))):
        quotas[class_id] = min(counts[class_id], left // (len(counts) - place))
        left -= quotas[class_id]
    return quotas


def proportional_quotas(counts: Mapping[int, int], most: int, least: int) -> dict[int, int]:
    """Labels to take of each class: its share of about `most`, but `least` where it has so many.

    Args:
        counts: labels of each class id.
        most: labels in all; all are taken where there are no more.
        least: labels of a class that has so many.
    """
    total = sum(counts.values())
    if total <= most:
        return dict(counts)
    return {class_id: min(count, max(least, count * most // total)) for class_id, count in counts.items()}


def spread_sample(labels: Pixels, quotas: Mapping[int, int], seed: int) -> Pixels:
    """So many pixels of each class, evenly spread over where the class lies.

    Of each class every n-th pixel along a Z-order curve is taken, from a start that the seed and the class give.

    Args:
        labels: the labelled pixels.
        quotas: class id to how many, at most as many as it has.
        seed: of the starts.

    Returns:
        The chosen pixels, in the order of the given ones.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for class_id, quota in quotas.items():
        of_class = np.flatnonzero(labels.class_ids == class_id)
        if quota < len(of_class):
            start = np.random.default_rng([seed, class_id]).random()
            along = of_class[np.argsort(_along_curve(labels.rows[of_class], labels.cols[of_class]), kind="stable")]
            of_class = along[((start + np.arange(quota)) * (len(along) / quota)).astype(np.int64)]
        chosen[of_class] = True
    return Pixels(labels.rows[chosen], labels.cols[chosen], labels.class_ids[chosen])


def _along_curve(rows: Positions, cols: Positions) -> Positions:
    """Place of each pixel along a Z-order curve, which interleaves the bits of row and column."""
    place = np.zeros_like(rows)
    for bit in range(CURVE_BITS):
        place |= ((rows >> bit) & 1) << (2 * bit + 1) | ((cols >> bit) & 1) << (2 * bit)
    return place
