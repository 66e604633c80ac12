"""Pixels that stand for all of a scene: the whole of a small scene, evenly spread patches of a large one.

What is learned without labels needs some ten thousand pixels, and no more where a scene has more.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.blocks import reading_margin, reading_stride
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.scene_patches import side_by_side, slot_side
from diffclip_dist.feature_extraction.scene_survey import CELL
from diffclip_dist.feature_extraction.scene_view import SceneView, view_scene
from shards.archive.archive import ReadableScene
from shards.archive.manifest import ModalityRecord
from shards.scene.source import Mask

# A scene of no more pixels is taken whole
WHOLE_SCENE_PIXELS: Final = 2**17
# Patches of a larger one, of CELL pixels a side
PATCHES: Final = 64
# Pixels that are wanted; where few of a patch count, as many more patches are drawn as their bound allows
LEAST_PIXELS: Final = 2_048
# Bound on the values of the patches, with their margins
PATCH_BYTES: Final = 256 * 2**20
SEED: Final = 0


@dataclass(frozen=True)
class SceneSample:
    """Pixels of a scene.

    Attributes:
        view: the scene, or patches of it side by side, each with its margin.
        pixels: bool (row, col) of the view, the pixels that stand for the scene's.
    """

    view: SceneView
    pixels: Mask


def draw_patches(
    scene: ReadableScene,
    modalities: Sequence[ModalityRecord],
    encoder: FeatureEncoder,
    config: FeatureConfig,
    counts: npt.NDArray[np.int64],
) -> SceneSample:
    """Patches of a scene, drawn from its cells, evenly along its rows.

    Args:
        scene: the scene, in memory or in an archive.
        modalities: statistics to standardise with.
        encoder: sets the window.
        config: sets the stride and the reach of smoothing.
        counts: pixels of interest (cell row, cell column), at least one.
    """
    stride, margin = reading_stride(encoder, config), reading_margin(encoder, config)
    bands = sum(modality.bands for modality in modalities)
    affordable = max(PATCH_BYTES // (4 * bands * slot_side(CELL, margin, stride) ** 2), 1)
    cells = np.flatnonzero(counts)
    in_cells = counts.ravel()[cells]
    wanted = max(PATCHES, math.ceil(LEAST_PIXELS * in_cells.sum() / np.square(in_cells).sum()))
    if len(cells) > (most := min(wanted, affordable)):
        cells = cells[_spread(in_cells, most)]
    corners = np.stack(np.divmod(cells, counts.shape[1]), axis=1) * CELL
    names = [modality.name for modality in modalities]
    patches = side_by_side(scene, names, corners, CELL, margin, stride)
    return SceneSample(view_scene(patches.scene, modalities, encoder, config, None), patches.pixels)


def _spread(in_cells: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Numbers of cells, one of each of equal shares of the pixels: one drawn in proportion to its pixels.

    Where the drawn one has less than half as many pixels as the fullest of its share, the fullest is taken: patches of
    scattered pixels hold few each.
    """
    cumulated = in_cells.cumsum()
    draws = (np.arange(most) + np.random.default_rng(SEED).random(most)) / most * cumulated[-1]
    drawn = np.searchsorted(cumulated, draws, side="right")
    bounds = np.searchsorted(cumulated, np.arange(most + 1) / most * cumulated[-1], side="left")
    shares = [slice(first, max(last, first + 1)) for first, last in itertools.pairwise(bounds.tolist())]
    fullest = np.array([share.start + int(in_cells[share].argmax()) for share in shares])
    return np.unique(np.where(2 * in_cells[drawn] < in_cells[fullest], fullest, drawn))
