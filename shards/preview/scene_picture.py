"""A scene of any size as a small picture: every n-th pixel of the modality that shows it best."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.archive.archive import ReadableScene
from shards.preview.overview import shown_bands
from shards.preview.stretch import stretched_colours
from shards.preview.thinning import thinned_parts, thinned_shape, thinning_step


@dataclass(frozen=True)
class ScenePicture:
    """A picture of a scene.

    Attributes:
        step: n, where every n-th row and column is kept.
        title: the modality and its bands.
        colours: red, green, blue and opacity from 0 to 1 (row, col, 4); transparent where there is no data.
    """

    step: int
    title: str
    colours: npt.NDArray[np.float32]


def scene_picture(scene: ReadableScene, largest_side: int) -> ScenePicture:
    """Draws the first modality of three bands or more, rather one with wavelengths; else the first of all.

    Args:
        scene: in memory or in an archive.
        largest_side: of the picture, in pixels.
    """
    record = scene.record
    modality = min(record.modalities, key=lambda one: (one.bands < 3, one.wavelengths_nm is None))
    shown = shown_bands(modality)
    step = thinning_step(record, largest_side)
    shape = thinned_shape(record, step)
    values = np.full((*shape, len(shown.bands)), np.nan, np.float32)
    valid = np.zeros(shape, dtype=np.bool_)
    for one in thinned_parts(scene, step, (modality.name,)):
        valid[one.place] = one.part.valid[modality.name][one.thin]
        values[one.place] = one.part.values[modality.name][one.thin][..., list(shown.bands)]
    values[~valid] = np.nan
    return ScenePicture(step, shown.title, stretched_colours(values, valid))
