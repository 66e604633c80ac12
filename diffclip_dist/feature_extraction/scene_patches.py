"""Square patches of a scene, laid side by side as one small scene."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.archive.archive import ReadableScene, Scene
from shards.scene.source import Mask

Corners = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Patches:
    """Patches with their margins, side by side.

    Attributes:
        scene: its labels are left out; between the patches pixels are missing.
        corners: int64 (patch, 2), row and column in it of each patch's upper left pixel.
        pixels: bool (row, col), the patches without their margins.
    """

    scene: Scene
    corners: Corners
    pixels: Mask


def slot_side(side: int, margin: int, stride: int) -> int:
    """Pixels along a side that one patch takes, in whole strides."""
    return -(-(side + 2 * margin + stride) // stride) * stride


def side_by_side(
    scene: ReadableScene, names: Sequence[str], corners: Corners, side: int, margin: int, stride: int
) -> Patches:
    """Reads patches of a scene.

    Each patch keeps its place on the scene's grid of windows, so that its pixels are read from the same windows.

    Args:
        scene: the scene, in memory or in an archive.
        names: modalities to read.
        corners: int64 (patch, 2), row and column of each patch's upper left pixel.
        side: of a patch in pixels; at the scene's edges patches are cut.
        margin: pixels around a patch that are read too, in whole strides.
        stride: pixels between the windows.
    """
    record = scene.record
    slot = slot_side(side, margin, stride)
    across = max(int(np.sqrt(len(corners))), 1)
    shape = (-(-len(corners) // across) * slot, across * slot)
    used = [modality for modality in record.modalities if modality.name in names]
    values = {one.name: np.zeros((*shape, one.bands), one.dtype) for one in used}
    valid = {one.name: np.zeros(shape, np.bool_) for one in used}
    pixels = np.zeros(shape, np.bool_)
    moved = np.zeros_like(corners)
    for number, corner in enumerate(corners.tolist()):
        parts, places, cores = [], [], []
        slots = (number // across * slot, number % across * slot)
        for axis, (first, length, begin) in enumerate(zip(corner, (record.height, record.width), slots, strict=True)):
            origin = (first - margin) // stride * stride
            part = slice(max(origin, 0), min(first + side + margin, length))
            parts.append(part)
            places.append(slice(begin + part.start - origin, begin + part.stop - origin))
            cores.append(slice(begin + first - origin, begin + min(first + side, length) - origin))
            moved[number, axis] = begin + first - origin
        read = scene.read(tuple(values), *parts)
        for name in values:
            values[name][*places] = read.values[name]
            valid[name][*places] = read.valid[name]
        pixels[*cores] = True
    return Patches(Scene(record, values, valid, None, None), moved, pixels)
