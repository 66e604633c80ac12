"""Tells what stands above the ground from what lies on it, by a modality marked `surface_height`.

The ground below a surface model is the opening of the surface by a wide window: lowest heights of square cells, then
the highest of the lowest around each (Zhang et al. 2003, IEEE Trans. Geosci. Remote Sens. 41, 872, with one window).

Shapes: P pixels, Y by X cells.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.ndimage import grey_opening
from torch import Tensor

from diffclip_dist.words.spectral_library import Reals
from shards.archive.archive import ReadableScene

# Side of a cell in pixels, at least, and the most cells a side
CELL: Final = 16
MOST_CELLS: Final = 256
# Cells that the window of the opening spans
WINDOW: Final = 5
# A cell's ground: this per cent of its pixels lie lower, to pass over faults
LOWEST_PERCENT: Final = 2.0
# What stands at least so high is tall, in metres, and over which range the answer turns
TALL_M: Final = 2.0
SOFT_M: Final = 0.5
# Heights that spread less than this are in no unit of metres; the threshold is then found from their histogram
LEAST_SPREAD_M: Final = 4.0
# Zeros in so large a share of the pixels, and nothing lower, show heights above the ground
ZEROS: Final = 0.01


@dataclass(frozen=True)
class HeightSplit:
    """How a scene's heights split into tall and low.

    Attributes:
        modality: whose heights they are.
        cell: side of a cell in pixels.
        cells: cells along the rows and along the columns.
        threshold, softness: above the ground, in the modality's unit.
    """

    modality: str
    cell: int
    cells: tuple[int, int]
    threshold: float
    softness: float

    def tall(self, heights_P: Tensor, ground_YX: Tensor, rows_P: Tensor | None, cols_P: Tensor | None) -> Tensor:
        """Probability (P) that a pixel stands above the ground; NaN where its height is missing.

        Args:
            heights_P: the modality's values.
            ground_YX: ground of each cell.
            rows_P, cols_P: where the pixels lie in the scene; None takes the scene's middle ground for all.
        """
        if rows_P is None or cols_P is None:
            ground_P = ground_YX.median().expand(len(heights_P))
        else:
            ground_P = self._ground(ground_YX, rows_P, cols_P)
        return ((heights_P - ground_P - self.threshold) / self.softness).sigmoid()

    def _ground(self, ground_YX: Tensor, rows_P: Tensor, cols_P: Tensor) -> Tensor:
        """Between the middles of cells the ground is taken as straight."""
        (below_y, above_y, part_y), (below_x, above_x, part_x) = (
            self._between(places_P, cells) for places_P, cells in zip((rows_P, cols_P), self.cells, strict=True)
        )
        left = ground_YX[below_y, below_x].lerp(ground_YX[above_y, below_x], part_y)
        return left.lerp(ground_YX[below_y, above_x].lerp(ground_YX[above_y, above_x], part_y), part_x)

    def _between(self, places_P: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """The cells before and after each place along one axis, and how far it lies from the first to the second."""
        along = ((places_P + 0.5) / self.cell - 0.5).clamp(0, cells - 1)
        below = along.floor().long()
        return below, (below + 1).clamp_max(cells - 1), along - below


def find_split(scene: ReadableScene) -> tuple[HeightSplit, Tensor] | None:
    """How the first modality marked `surface_height` splits, and its ground (Y, X); None where there is none."""
    marked = next((one for one in scene.record.modalities if one.surface_height), None)
    if marked is None:
        return None
    height, width = scene.record.height, scene.record.width
    cell = max(CELL, -(-max(height, width) // MOST_CELLS))
    lowest: Reals = np.full((-(-height // cell), -(-width // cell)), np.nan)
    samples: list[Reals] = []
    cells: list[Reals] = []
    for y in range(lowest.shape[0]):
        strip = scene.read((marked.name,), slice(y * cell, (y + 1) * cell))
        values, valid = strip.values[marked.name][..., 0].astype(np.float64), strip.valid[marked.name]
        for x in range(lowest.shape[1]):
            held = values[:, x * cell : (x + 1) * cell][valid[:, x * cell : (x + 1) * cell]]
            if held.size:
                lowest[y, x] = np.percentile(held, LOWEST_PERCENT)
                samples.append(held[:: max(held.size // 64, 1)])
                cells.append(np.full(len(samples[-1]), y * lowest.shape[1] + x))
    sample = np.concatenate(samples)
    above_ground = (sample == 0).mean() >= ZEROS and sample.min() >= 0
    ground = np.zeros_like(lowest) if above_ground else _ground(lowest)
    above = sample - ground.ravel()[np.concatenate(cells).astype(int)]
    low, high = np.percentile(above, [1.0, 99.0])
    threshold, softness = TALL_M, SOFT_M
    if high - low < LEAST_SPREAD_M:
        threshold = _between_groups(above[(above >= low) & (above <= high)])
        softness = max(float(high - low) * SOFT_M / LEAST_SPREAD_M, 1e-6)
    split = HeightSplit(marked.name, cell, (lowest.shape[0], lowest.shape[1]), threshold, softness)
    return split, torch.from_numpy(ground).float()


def _ground(lowest: Reals) -> Reals:
    """The opening of the lowest heights of the cells, once a plane is taken off: an opening would flatten a slope."""
    held = ~np.isnan(lowest)
    y, x = np.indices(lowest.shape)
    terms = np.stack([np.ones(lowest.shape), y, x], axis=-1)
    plane: Reals = terms @ np.linalg.lstsq(terms[held], lowest[held], rcond=None)[0]
    uneven = lowest - plane
    ground: Reals = plane + grey_opening(np.where(held, uneven, np.nanmax(uneven)), size=(WINDOW, WINDOW))
    return ground


def _between_groups(values: Reals) -> float:
    """The threshold that parts two groups best (Otsu 1979, IEEE Trans. Syst. Man Cybern. 9, 62)."""
    counts, edges = np.histogram(values, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nanargmax(variance)])
