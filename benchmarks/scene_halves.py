"""A scene cut in two, each half a scene of its own: to learn in one place and test in another of the same sensor."""

from dataclasses import replace

import numpy as np
from pixel_descriptions import present

from shards.archive.archive import Scene
from shards.build.statistics import BandStatistics

# Around the middle, where the cut may lie
MIDDLE_PART = 0.2


def halves(scene: Scene) -> tuple[Scene, Scene]:
    """Both halves, cut across the longer side where the fewest pixels near the middle have data."""
    known = present(scene)
    down = known.shape[0] >= known.shape[1]
    held = known.sum(axis=1 if down else 0)
    first, last = (round(len(held) * (0.5 + side * MIDDLE_PART / 2)) for side in (-1, 1))
    # of equally empty lines the one nearest the middle
    lines = np.arange(first, last + 1)
    cut = int(lines[np.lexsort((np.abs(lines - len(held) / 2), held[lines]))[0]])
    parts = (slice(0, cut), slice(cut, len(held)))
    one, other = (_part(scene, *((part, slice(None)) if down else (slice(None), part))) for part in parts)
    return one, other


def _part(scene: Scene, rows: slice, cols: slice) -> Scene:
    part = scene.read(None, rows, cols)
    records = []
    for record in scene.record.modalities:
        found = BandStatistics.of(part.values[record.name], part.valid[record.name])
        std = tuple(deviation or 1.0 for deviation in found.std)
        records.append(replace(record, mean=found.mean, std=std, valid_pixels=found.count))
    height, width = present(part).shape
    # ids are as the arrays hold them
    whole = replace(part.record, height=height, width=width, modalities=tuple(records), tiles=(), class_id_shift=0)
    return replace(part, record=whole)
