"""A scene read in rectangular blocks, in memory that grows neither with its height nor with its width.

A block is read with a margin: the windows and the neighbours that its pixels' features depend on. Its corner lies on
the scene's own grid of windows. So its features are those that the whole scene, read at once, would give.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder, window_side
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.scene_view import SceneView, view_scene
from shards.archive.archive import ReadableScene
from shards.archive.manifest import ModalityRecord

# A block's values and features stay below this; the encoder's own memory comes on top
BLOCK_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class SceneBlock:
    """A block of a scene.

    Attributes:
        rows: of the scene, without the margin.
        cols: of the scene, without the margin.
        view: the block with its margin.
        core: where `rows` and `cols` lie in the view.
    """

    rows: slice
    cols: slice
    view: SceneView
    core: tuple[slice, slice]

    @property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """bool (row, col) of the view: the block without its margin."""
        wanted = np.zeros(self.view.present.shape, dtype=np.bool_)
        wanted[self.core] = True
        return wanted


def view_blocks(
    scene: ReadableScene,
    modalities: Sequence[ModalityRecord],
    encoder: FeatureEncoder,
    config: FeatureConfig,
    values_per_pixel: int,
    block_bytes: int = BLOCK_BYTES,
    height: int | None = None,
) -> Iterator[SceneBlock]:
    """Reads a scene block by block, from left to right, then from top to bottom.

    Args:
        scene: the scene, in memory or in an archive.
        modalities: statistics to standardise with. Modalities of the scene that are not among them are not read; those
            that the scene lacks are missing.
        encoder: sets the window.
        config: sets the stride and the reach of smoothing.
        values_per_pixel: float32 values that are held for each pixel of a block.
        block_bytes: bound on those values in memory. A block is at least one stride high and wide.
        height: rows to read, from the first; None reads all.
    """
    record = scene.record
    names = {modality.name for modality in record.modalities}
    used = tuple(modality.name for modality in modalities if modality.name in names)
    height = record.height if height is None else min(height, record.height)
    window = window_side(encoder)
    stride = min(config.stride, window)
    margin = -(-(window // 2 + stride // 2 + config.smoothing_reach) // stride) * stride
    block_rows, block_cols = _block_shape(record.width, margin, stride, block_bytes // (4 * values_per_pixel))
    for top in range(0, height, block_rows):
        rows = slice(top, min(top + block_rows, height))
        for left in range(0, record.width, block_cols):
            cols = slice(left, min(left + block_cols, record.width))
            read_rows, read_cols = _widened(rows, margin, record.height), _widened(cols, margin, record.width)
            view = view_scene(scene.read(used, read_rows, read_cols), modalities, encoder, config)
            yield SceneBlock(rows, cols, view, (_within(rows, read_rows), _within(cols, read_cols)))


def _block_shape(width: int, margin: int, stride: int, pixels: int) -> tuple[int, int]:
    """Rows and columns of a block that has at most so many pixels with its margin, in whole strides; about square."""
    cols = max((math.isqrt(pixels) - 2 * margin) // stride, 1) * stride
    if cols >= width:
        cols = width
    rows = pixels // min(cols + 2 * margin, width) - 2 * margin
    return max(rows // stride, 1) * stride, cols


def _widened(part: slice, margin: int, length: int) -> slice:
    return slice(max(part.start - margin, 0), min(part.stop + margin, length))


def _within(part: slice, read: slice) -> slice:
    return slice(part.start - read.start, part.stop - read.start)
