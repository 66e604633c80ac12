"""Windows around a bounded sample of a scene's labelled pixels, in two parts: one to fit, one to test.

The scene is read strip by strip and block by block, so that memory does not grow with it.

Shapes: P pixels, N tokens of a window, C bands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.randomness import word_keys
from shards.archive.archive import ReadableScene
from shards.errors import BadInput

_STRIP_PIXELS: Final = 2**22  # labels that are read at once
_BLOCK: Final = 64  # side of the blocks whose values are read at once, without the margin

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of labelled pixels, on the CPU.

    Attributes:
        values: modality name to standardised values, float32 (P, N, C), 0 where missing.
        valid: modality name to bool (P, N).
        class_P: int64, the pixels' class ids.
        fits_P: bool, whether a pixel is of the part to fit; the others are to test.
    """

    values: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    class_P: Tensor
    fits_P: Tensor


def labelled_windows(
    scene: ReadableScene, modalities: tuple[ModalitySchema, ...], window: int, most: int, seed: int
) -> LabelledWindows:
    """Draws labelled pixels, about equally many of each class, and cuts their windows.

    Args:
        scene: with labels.
        modalities: those that are read; the scene has them all.
        window: side of a window in pixels, odd.
        most: pixels in all.
        seed: of the draw and of the split. A class of fewer than two pixels is left out.

    Raises:
        BadInput: fewer than two classes have two labelled pixels with data.
    """
    rows_P, cols_P, class_P, fits_P = _draw(scene, most, seed)
    values, valid = _cut(scene, modalities, window, rows_P, cols_P)
    centre = window * window // 2
    present_P = torch.stack([each[:, centre] for each in valid.values()]).any(dim=0)
    drawn = LabelledWindows(
        {name: each[present_P] for name, each in values.items()},
        {name: each[present_P] for name, each in valid.items()},
        torch.from_numpy(class_P)[present_P],
        torch.from_numpy(fits_P)[present_P],
    )
    known, tested = (set(drawn.class_P[part].tolist()) for part in (drawn.fits_P, ~drawn.fits_P))
    if len(known & tested) < 2:
        raise BadInput(
            f"scene {scene.record.name}: expected two or more classes with two labelled pixels each, "
            f"found {len(known & tested)}"
        )
    return drawn


def _draw(scene: ReadableScene, most: int, seed: int) -> tuple[Positions, Positions, Positions, npt.NDArray[np.bool_]]:
    """Rows, columns and class ids of the pixels, and which of them are to fit."""
    record = scene.record
    rows_at_once = max(_STRIP_PIXELS // record.width, 1)
    # of each class the pixels with the smallest keys, ascending: key, pixel number
    kept: dict[int, tuple[npt.NDArray[np.uint64], Positions]] = {}
    for top in range(0, record.height, rows_at_once):
        labels = scene.read((), slice(top, min(top + rows_at_once, record.height))).labels
        if labels is None:
            break
        for class_id in np.unique(labels[labels > 0]).tolist():
            pixels = np.flatnonzero(labels == class_id).astype(np.int64) + top * record.width
            keys = word_keys(pixels, seed, class_id)
            if class_id in kept:
                keys, pixels = np.concatenate([kept[class_id][0], keys]), np.concatenate([kept[class_id][1], pixels])
            order = np.argsort(keys, kind="stable")[:most]
            kept[class_id] = keys[order], pixels[order]
    quota = max(most // max(len(kept), 1), 2)
    chosen = {class_id: pixels[:quota] for class_id, (_, pixels) in sorted(kept.items()) if len(pixels) > 1}
    pixels_P = np.concatenate([np.empty(0, np.int64), *chosen.values()])
    class_P = np.repeat(np.array([*chosen], np.int64), [len(pixels) for pixels in chosen.values()])
    fits_P = np.concatenate([np.empty(0, np.bool_), *(np.arange(len(pixels)) % 2 == 0 for pixels in chosen.values())])
    return pixels_P // record.width, pixels_P % record.width, class_P, fits_P


def _cut(
    scene: ReadableScene, modalities: tuple[ModalitySchema, ...], window: int, rows_P: Positions, cols_P: Positions
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values (P, N, C) and validity (P, N) of each modality around the pixels."""
    record, reach = scene.record, window // 2
    names = tuple(schema.name for schema in modalities)
    shape = len(rows_P), window * window
    values = {schema.name: torch.zeros(*shape, schema.bands) for schema in modalities}
    valid = {name: torch.zeros(shape, dtype=torch.bool) for name in names}
    block_P = rows_P // _BLOCK * (record.width // _BLOCK + 1) + cols_P // _BLOCK
    for block in np.unique(block_P):
        inside = np.flatnonzero(block_P == block)
        top, left = (max(int(each[inside].min()) - reach, 0) for each in (rows_P, cols_P))
        bottom, right = (int(each[inside].max()) + reach + 1 for each in (rows_P, cols_P))
        part = scene.read(names, slice(top, min(bottom, record.height)), slice(left, min(right, record.width)))
        height, width = part.valid[names[0]].shape
        own = replace(
            record, height=height, width=width, modalities=tuple(m for m in record.modalities if m.name in names)
        )
        cut_values, cut_valid = SceneWindows(part, own, window).gather(rows_P[inside] - top, cols_P[inside] - left)
        for name in names:
            values[name][inside] = cut_values[name]
            valid[name][inside] = cut_valid[name]
    return values, valid
