"""Whether a scene's values come in the units that an encoder or a classifier knows.

A classifier standardises every scene by the statistics of its own scene, so values in other units are classes without
sense. An encoder standardises each scene by the scene's own statistics. So a factor or an offset alone changes nothing
that it sees. But the classifier that is then fitted keeps the scene's units, and classifiers of one encoder differ in
theirs. So both are compared.

What is compared are means and standard deviations of the bands that agree, as the archive's manifest has them.

Scale. The ratio of a modality is the median over its bands of the ratio of standard deviations, or of root mean
squares, whichever is nearer to 1: other land changes either, other units change both alike.

Offset, for modalities of `LEAST_BANDS` or more; a single band, such as a height above the sea, may lie anywhere. Other
land moves the means of bands by amounts that go with their deviations or with the means themselves; an offset moves all
alike. So an offset is told by its size, by the evenness of the moves, and by how much better one offset for all bands
explains them than one factor for all. It is also told where means of bands are negative and none was, or the other way
round: -1000 in counts and -0.1 in reflectance make dark bands so.

The thresholds come from pairs of places of one sensor: ninths of the real scenes that tests use (56 to 72 ordered pairs
for each of 13 modalities), and 12 generated places (132 pairs for each of 2). `tests/feature_extraction/test_units.py`
prints how many are refused:

===============  ===========  ============  ===========  ===========
pairs of         as they are  times 1/10^4  0.1 added    0.1 taken
===============  ===========  ============  ===========  ===========
EnMAP vnir       0 %          100 %         41 %         100 %
EnMAP swir       0 %          100 %         16 %         57 %
Sentinel-2       0 %          100 %         81 %         100 %
Landsat 5        0 %          100 %         89 %         100 %
five airborne    0 to 3 %     100 %         3 to 25 %    3 to 100 %
four of heights  0 %          100 %         not looked at
generated bands  0 %          100 %         100 %        100 %
===============  ===========  ============  ===========  ===========

So another scale is always found. Another offset is found between places that show similar land, and not always between
others. The 3 % are of crops of 17 x 29 pixels, some of which lie in shade. Of generated places of 32 x 32 pixels 0.5 %
of the pairs are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.data.modality_statistics import ModalityStatistics
from diffclip_dist.feature_extraction.band_match import BandMatch
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.errors import BadInput

# Other land reaches 4.4; the least factor between units in use is 100 (percent, centimetres)
MOST_RATIO: Final = 20.0
LEAST_BANDS: Final = 4
# Of the median move of the bands, in median standard deviations
LEAST_OFFSET: Final = 0.7
# Median difference from the median move, as part of it
MOST_UNEVENNESS: Final = 0.3
# The same as part of what one factor for all bands leaves unexplained
MOST_UNEXPLAINED: Final = 0.35
# Part of the bands whose mean has another sign, and how far below 0 such a mean lies, in standard deviations
LEAST_NEGATIVE: Final = 0.1
BELOW_ZERO: Final = 0.1

Reals = npt.NDArray[np.float64]


def check_units(
    known: Sequence[ModalityStatistics], record: SceneRecord, matches: Mapping[str, BandMatch], knower: str
) -> None:
    """Refuses a scene in other units than all known scenes of the same modality.

    Args:
        known: statistics of scenes that an encoder or a classifier learned from; a modality without any is not checked.
        record: the scene, with the matched bands alone.
        matches: what each modality stands for.
        knower: the encoder or the classifier, for messages.

    Raises:
        BadInput: a modality has another scale or another offset.
    """
    for modality in record.modalities:
        if modality.name not in matches:
            continue
        key = matches[modality.name].known.key
        faults = [_fault(one, modality) for one in known if one.key == key]
        found = [fault for fault in faults if fault is not None]
        if faults and len(found) == len(faults):
            raise BadInput(
                f"scene {record.name}: modality {modality.name}: {found[0]} that {knower} knows: other units? Give "
                "scale: and offset: in its scene.yaml and build the archive anew, or pass --trust-units"
            )


def _fault(known: ModalityStatistics, modality: ModalityRecord) -> str | None:
    """How the modality's units differ from the known ones, as a phrase; None where they may be the same."""
    own = ModalityStatistics.of(modality, known.scene)
    varies = (np.array(known.std) > 0) & (np.array(own.std) > 0)
    if not varies.any():
        return None
    mean_0, std_0, mean_1, std_1 = (
        np.array(values)[varies] for values in (known.mean, known.std, own.mean, own.std)
    )  # fmt: skip
    ratio = _ratio_of_scale(mean_0, std_0, mean_1, std_1)
    if not 1 / MOST_RATIO < ratio < MOST_RATIO:
        return f"its values are about {_figure(ratio)} times those"
    if len(mean_0) < LEAST_BANDS:
        return None
    offset = float(np.median(mean_1 - mean_0))
    if _is_offset(mean_0, std_0, mean_1, std_1) or _changes_sign(mean_0, std_0, mean_1, std_1):
        return f"its values lie about {_figure(abs(offset))} {'above' if offset > 0 else 'below'} those"
    return None


def _ratio_of_scale(mean_0: Reals, std_0: Reals, mean_1: Reals, std_1: Reals) -> float:
    of_deviations = float(np.median(np.log(std_1 / std_0)))
    of_squares = float(np.median(np.log(np.hypot(mean_1, std_1) / np.hypot(mean_0, std_0))))
    if of_deviations * of_squares <= 0:
        return 1.0
    return float(np.exp(min(of_deviations, of_squares, key=abs)))


def _is_offset(mean_0: Reals, std_0: Reals, mean_1: Reals, std_1: Reals) -> bool:
    moved = mean_1 - mean_0
    offset = np.median(moved)
    if abs(offset) < LEAST_OFFSET * np.median(np.maximum(std_0, std_1)):
        return False
    uneven = np.median(np.abs(moved - offset))
    factors = [of for of in (std_0, std_1, mean_0) if np.all(of != 0)]
    unexplained = min(np.median(np.abs(moved - np.median(moved / of) * of)) for of in factors)
    return bool(uneven <= MOST_UNEVENNESS * abs(offset) and uneven <= MOST_UNEXPLAINED * unexplained)


def _changes_sign(mean_0: Reals, std_0: Reals, mean_1: Reals, std_1: Reals) -> bool:
    negative_0, negative_1 = (float(np.mean(m < -BELOW_ZERO * s)) for m, s in ((mean_0, std_0), (mean_1, std_1)))
    return min(negative_0, negative_1) == 0.0 and max(negative_0, negative_1) >= LEAST_NEGATIVE


def _figure(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
