"""Pixels that stand for a scene, with the values of some modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.words.spectral_library import Reals
from shards.archive.archive import ReadableScene

PIXELS: Final = 2**14
# A larger scene is read in blocks of this side, evenly spread
BLOCK: Final = 32


@dataclass(frozen=True)
class ScenePixels:
    """Some pixels of a scene.

    Attributes:
        values: modality to (P, band); NaN where missing.
        rows_P, cols_P: where they lie.
    """

    values: Mapping[str, Reals]
    rows_P: npt.NDArray[np.int64]
    cols_P: npt.NDArray[np.int64]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The values as tensors."""
        return {name: torch.from_numpy(values) for name, values in self.values.items()}


def sample_pixels(scene: ReadableScene, names: Sequence[str]) -> ScenePixels:
    """Evenly spread pixels that have data of at least one of the modalities."""
    height, width = scene.record.height, scene.record.width
    blocks = [(row, col) for row in range(0, height, BLOCK) for col in range(0, width, BLOCK)]
    wanted = max(4 * PIXELS // BLOCK**2, 1)
    chosen = np.unique(np.linspace(0, len(blocks) - 1, min(wanted, len(blocks))).astype(int))
    parts: dict[str, list[Reals]] = {name: [] for name in names}
    places: list[npt.NDArray[np.int64]] = []
    for place in chosen.tolist():
        row, col = blocks[place]
        block = scene.read(tuple(names), slice(row, row + BLOCK), slice(col, col + BLOCK))
        present = np.logical_or.reduce([block.valid[name] for name in names])
        for name in names:
            values = block.values[name].astype(np.float64)
            values[~block.valid[name]] = np.nan
            parts[name].append(values[present])
        places.append(np.argwhere(present) + np.array([row, col]))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    count = len(joined[names[0]])
    kept = np.unique(np.linspace(0, count - 1, min(PIXELS, count)).astype(int)) if count else np.arange(0)
    rows_P, cols_P = np.concatenate(places)[kept].T
    return ScenePixels({name: values[kept] for name, values in joined.items()}, rows_P, cols_P)
