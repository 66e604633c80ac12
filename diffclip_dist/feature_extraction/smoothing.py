"""Averages pixels over the neighbours that differ little from them.

Only pixels that are asked for are averaged, and those that they depend on. Each round reaches `SMOOTHING_RADIUS` pixels
further, so each round is computed for fewer pixels than the one before.

Shapes: P pixels, N = 25 neighbours, the pixel among them, K feature width; H rows and W columns of a scene.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from diffclip_dist.feature_extraction.feature_config import SMOOTHING_RADIUS
from diffclip_dist.feature_extraction.threads import in_threads

# Chosen on generated scenes
SHARPNESS: Final = 0.5
# Pixels whose distances to neighbours are computed at once, so that they stay in a processor's cache
DISTANCE_BATCH: Final = 512
# Pixels that a thread computes at once
PIECE: Final = 2**13


@dataclass(frozen=True)
class Neighbourhood:
    """Pixels of a scene and their neighbours, nearest to the wanted ones first.

    Attributes:
        rows: of the pixels.
        cols: of the pixels.
        within: how many of the pixels, from the first, lie within 0, 1, .. rounds of smoothing of a wanted one.
        neighbours_PN: int64, place in this list of each neighbour, row by row; the pixel's own where there is none.
        known_PN: bool, whether there is one.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    within: tuple[int, ...]
    neighbours_PN: Tensor
    known_PN: Tensor

    @classmethod
    def around(
        cls, wanted: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_], rounds: int, device: torch.device
    ) -> "Neighbourhood":
        """The wanted pixels, and all that their averages depend on.

        Args:
            wanted: bool (row, col).
            present: bool (row, col), pixels that have data; others are left out.
            rounds: of smoothing, at least 1.
            device: where values will be.
        """
        rounds_away = -(-distance_transform_cdt(~wanted, "chessboard") // SMOOTHING_RADIUS)
        rows, cols = np.nonzero(present & (rounds_away <= rounds))
        away = rounds_away[rows, cols]
        order = np.argsort(away, kind="stable")
        rows, cols = rows[order], cols[order]
        within = tuple(np.searchsorted(away[order], np.arange(rounds + 1), side="right").tolist())
        return cls(rows, cols, within, *_neighbours(rows, cols, wanted.shape, device))

    def distances(self, values_PK: Tensor) -> Tensor:
        """Squared distances (P, N) to the neighbours, of all pixels that are averaged in some round."""
        averaged = self.within[-2]
        distance_PN = values_PK.new_empty(averaged, self.neighbours_PN.shape[1])

        def measure(many: slice) -> None:
            for start in range(many.start, many.stop, DISTANCE_BATCH):
                piece = slice(start, min(start + DISTANCE_BATCH, many.stop))
                beside_PNK = values_PK[self.neighbours_PN[piece]].sub_(values_PK[piece, None])
                distance_PN[piece] = torch.linalg.vector_norm(beside_PNK, dim=2).square_()

        deque(in_threads(measure, _pieces(averaged)), maxlen=0)
        return distance_PN

    def smoothed(self, values_PK: Tensor, distance_PN: Tensor, bandwidth: float) -> Tensor:
        """Averages of the wanted pixels; the weights come from the values before the first round.

        Args:
            values_PK: of the listed pixels.
            distance_PN: their `distances`.
            bandwidth: squared distance at which a neighbour's weight is exp(-SHARPNESS); 0 changes nothing.
        """
        if bandwidth == 0.0:
            return values_PK[: self.within[0]]
        weight_PN = torch.empty_like(distance_PN)

        def weigh(piece: slice) -> None:
            weight = torch.exp(distance_PN[piece] * (-SHARPNESS / bandwidth)).mul_(self.known_PN[piece])
            weight_PN[piece] = weight.div_(weight.sum(dim=1, keepdim=True))  # at least 1, the pixel's own

        deque(in_threads(weigh, _pieces(len(distance_PN))), maxlen=0)
        for count in reversed(self.within[:-1]):
            values_PK = self._averaged(values_PK, weight_PN[:count])
        return values_PK

    def _averaged(self, values_PK: Tensor, weight_PN: Tensor) -> Tensor:
        """Averages of the first pixels, as many as there are weights for."""
        averaged_PK = values_PK.new_empty(len(weight_PN), values_PK.shape[1])

        def average(piece: slice) -> None:
            averaged_PK[piece] = embedding_bag(
                self.neighbours_PN[piece], values_PK, per_sample_weights=weight_PN[piece], mode="sum"
            )

        deque(in_threads(average, _pieces(len(weight_PN))), maxlen=0)
        return averaged_PK


def _pieces(pixels: int) -> Iterator[slice]:
    """The pixels, `PIECE` at a time."""
    return (slice(start, min(start + PIECE, pixels)) for start in range(0, pixels, PIECE))


def _neighbours(
    rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64], shape: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Place of each pixel's neighbours in the list, and whether there is one; both (P, N)."""
    reach = SMOOTHING_RADIUS
    count = len(rows)
    row_P, col_P = torch.from_numpy(rows).to(device), torch.from_numpy(cols).to(device)
    place_HW = torch.full(shape, -1, dtype=torch.int64, device=device)
    place_HW[row_P, col_P] = torch.arange(count, device=device)
    place_HW = pad(place_HW, (reach,) * 4, value=-1)
    steps_N = torch.arange(-reach, reach + 1, device=device)
    offset_N = (steps_N[:, None] * place_HW.shape[1] + steps_N).flatten()
    place_PN = place_HW.flatten()[((row_P + reach) * place_HW.shape[1] + col_P + reach)[:, None] + offset_N]
    known_PN = place_PN >= 0
    return torch.where(known_PN, place_PN, torch.arange(count, device=device)[:, None]), known_PN
