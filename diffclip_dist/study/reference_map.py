"""The labels of a scene as a map, to be drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffclip_dist.mapping.predict import ClassMap


@dataclass(frozen=True)
class ReferenceMap:
    """The labels of a scene.

    Attributes:
        class_ids: (row, col), thinned, 0 where unlabelled.
        pixels: labelled pixels of each class id in the whole scene.
    """

    class_ids: ClassMap
    pixels: Mapping[int, int]


def thinned_classes(class_map: ClassMap, largest_side: int) -> ClassMap:
    """A class map (row, col) of which no side is longer; each pixel has the first class that it stands for, if any.

    A few labels, far apart, do not vanish so.
    """
    step = -(-max(class_map.shape) // largest_side)
    if step <= 1:
        return class_map
    thinned = class_map[::step, ::step].copy()
    for row in range(step):
        for col in range(step):
            part = class_map[row::step, col::step]
            place = thinned[: part.shape[0], : part.shape[1]]
            np.copyto(place, part, where=place == 0)
    return thinned
