"""A scene read in rectangular blocks, in memory that grows neither with its height nor with its width.

A block is read with a margin: the windows and the neighbours that its pixels' features depend on. What is read starts
on the scene's own grid of windows. So its features are those that the whole scene, read at once, would give.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder, window_side
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.scene_view import SceneView, view_scene
from shards.archive.archive import WHOLE, ReadableScene
from shards.archive.manifest import ModalityRecord

# A block's values and features stay below this; the encoder's own memory comes on top
BLOCK_BYTES: Final = 128 * 2**20


Mask = npt.NDArray[np.bool_]
# The pixels that are wanted of some rows and columns of a scene, bool (row, col)
Wanted = Callable[[slice, slice], Mask]


@dataclass(frozen=True)
class SceneBlock:
    """A block of a scene.

    Attributes:
        rows: of the scene, without the margin.
        cols: of the scene, without the margin.
        view: the block with its margin.
        core: where `rows` and `cols` lie in the view.
        wanted: bool (row, col) of the view: the pixels that are wanted; none lies in the margin.
    """

    rows: slice
    cols: slice
    view: SceneView
    core: tuple[slice, slice]
    wanted: Mask

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the scene where the view begins."""
        return self.rows.start - self.core[0].start, self.cols.start - self.core[1].start

    def holds(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Mask:
        """Of each pixel of the scene, whether it lies in the block."""
        inside: Mask = (rows >= self.rows.start) & (rows < self.rows.stop)
        inside &= (cols >= self.cols.start) & (cols < self.cols.stop)
        return inside


def all_pixels(rows: slice, cols: slice) -> Mask:
    """Wants every pixel."""
    return np.ones((rows.stop - rows.start, cols.stop - cols.start), dtype=np.bool_)


def view_blocks(
    scene: ReadableScene,
    modalities: Sequence[ModalityRecord],
    encoder: FeatureEncoder,
    config: FeatureConfig,
    values_per_pixel: int,
    block_bytes: int = BLOCK_BYTES,
    rows: slice = WHOLE,
    cols: slice = WHOLE,
    wanted: Wanted = all_pixels,
) -> Iterator[SceneBlock]:
    """Reads a scene, or a part of it, block by block, from left to right, then from top to bottom.

    Args:
        scene: the scene, in memory or in an archive.
        modalities: statistics to standardise with. Modalities of the scene that are not among them are not read; those
            that the scene lacks are missing.
        encoder: sets the window.
        config: sets the stride and the reach of smoothing.
        values_per_pixel: float32 values that are held for each pixel of a block.
        block_bytes: bound on those values in memory. A block is at least one stride high and wide.
        rows: of the scene, the part that the blocks cover.
        cols: of the scene, the same.
        wanted: the pixels that are wanted; a block without any is neither read nor given.
    """
    record = scene.record
    names = {modality.name for modality in record.modalities}
    used = tuple(modality.name for modality in modalities if modality.name in names)
    stride, margin = reading_stride(encoder, config), reading_margin(encoder, config)
    top, bottom, _ = rows.indices(record.height)
    left, right, _ = cols.indices(record.width)
    tall, wide = _block_shape(bottom - top, right - left, margin, stride, block_bytes // (4 * values_per_pixel))
    for row in range(top, bottom, tall):
        for col in range(left, right, wide):
            part = slice(row, min(row + tall, bottom)), slice(col, min(col + wide, right))
            asked = wanted(*part)
            if not asked.any():
                continue
            read_rows = _widened(part[0], margin, stride, record.height)
            read_cols = _widened(part[1], margin, stride, record.width)
            origin = read_rows.start, read_cols.start
            view = view_scene(scene.read(used, read_rows, read_cols), modalities, encoder, config, origin)
            core = _within(part[0], read_rows), _within(part[1], read_cols)
            wanted_in_view = np.zeros(view.present.shape, dtype=np.bool_)
            wanted_in_view[core] = asked
            yield SceneBlock(*part, view, core, wanted_in_view)


def reading_stride(encoder: FeatureEncoder, config: FeatureConfig) -> int:
    """Pixels between the windows that are read."""
    return min(config.stride, window_side(encoder))


def reading_margin(encoder: FeatureEncoder, config: FeatureConfig) -> int:
    """Pixels on each side of a pixel that its features may depend on, in whole strides."""
    stride = reading_stride(encoder, config)
    return -(-(window_side(encoder) // 2 + stride // 2 + config.smoothing_reach) // stride) * stride


def _block_shape(height: int, width: int, margin: int, stride: int, pixels: int) -> tuple[int, int]:
    """Rows and columns of equal blocks with at most so many pixels each, margin included; about square."""
    beside = 2 * margin + stride - 1
    cols = _equal_parts(width, max(math.isqrt(pixels) - beside, stride), stride)
    return _equal_parts(height, max(pixels // (cols + beside) - beside, stride), stride), cols


def _equal_parts(length: int, most: int, stride: int) -> int:
    """Length of the fewest equal parts of at most so many pixels, in whole strides unless there is but one."""
    if length <= most:
        return length
    parts = math.ceil(length / (max(most // stride, 1) * stride))
    return math.ceil(length / parts / stride) * stride


def _widened(part: slice, margin: int, stride: int, length: int) -> slice:
    return slice(max((part.start - margin) // stride * stride, 0), min(part.stop + margin, length))


def _within(part: slice, read: slice) -> slice:
    return slice(part.start - read.start, part.stop - read.start)
