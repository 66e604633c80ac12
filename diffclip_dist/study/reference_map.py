"""The labels of a scene as a map, to be drawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffclip_dist.feature_extraction.scene_survey import STRIP_ROWS
from diffclip_dist.mapping.predict import ClassMap, count_classes, map_dtype
from shards.archive.archive import ReadableScene
from shards.preview.thinning import thinning_step


@dataclass(frozen=True)
class ReferenceMap:
    """The labels of a scene.

    Attributes:
        class_ids: (row, col), thinned, 0 where unlabelled.
        pixels: labelled pixels of each class id in the whole scene.
    """

    class_ids: ClassMap
    pixels: Mapping[int, int]


def read_reference(scene: ReadableScene, class_ids: Sequence[int], largest_side: int) -> ReferenceMap:
    """The labels of a scene, those of an official split among them, read strip by strip.

    Args:
        scene: has labels.
        class_ids: of the classes to show.
        largest_side: of the thinned map in pixels.
    """
    record = scene.record
    step = thinning_step(record, largest_side)
    shown = np.zeros(np.iinfo(np.uint16).max + 1, map_dtype(max(class_ids)))  # of each class id
    shown[list(class_ids)] = class_ids
    thinned, pixels = [], Counter[int]()
    for top in range(0, record.height, strip := step * -(-STRIP_ROWS // step)):
        part = scene.read((), slice(top, min(top + strip, record.height)))
        assert part.labels is not None
        labels = part.labels if part.split is None else np.maximum(part.labels, np.maximum(*part.split))
        class_map = shown[labels]
        thinned.append(thinned_classes(class_map, step))
        pixels += count_classes(class_map)
    return ReferenceMap(np.concatenate(thinned), pixels)


def thinned_classes(class_map: ClassMap, step: int) -> ClassMap:
    """A class map (row, col) of one pixel for `step` x `step`: the first class among them, if any.

    A few labels, far apart, do not vanish so.
    """
    thinned = class_map[::step, ::step].copy()
    for row in range(step):
        for col in range(step):
            part = class_map[row::step, col::step]
            place = thinned[: part.shape[0], : part.shape[1]]
            np.copyto(place, part, where=place == 0)
    return thinned
