"""Windows around pixels: the one a pixel is read from, and rotated, mirrored and shifted ones for training.

All modalities of a window are transformed together.

Shapes: P pixels, N = window**2 tokens, C bands, G = 8 symmetries of a square.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.data.windows import SceneWindows

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """One window for each of several pixels.

    Attributes:
        windows: modality name to standardised values (P, N, C).
        valid: modality name to bool (P, N).
        tokens_P: int64, which token of its window each pixel is.
    """

    windows: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    tokens_P: Tensor


@dataclass(frozen=True)
class Grid:
    """The windows of a scene that its pixels are read from.

    Attributes:
        height: of the scene, in pixels.
        width: of the scene, in pixels.
        window: side of a window in pixels, odd.
        stride: pixels between the centres of neighbouring windows, at most ``window``.
    """

    height: int
    width: int
    window: int
    stride: int

    @property
    def footprint(self) -> int:
        """Side in pixels of the square around a pixel that any of its windows can cover; odd."""
        return self.window + 2 * (self.stride // 2)

    def centres(self, rows: Positions, cols: Positions) -> tuple[Positions, Positions]:
        """Centre of the window that each pixel is read from; every centre lies in the scene."""
        half = self.stride // 2
        return (
            np.minimum(rows // self.stride * self.stride + half, self.height - 1),
            np.minimum(cols // self.stride * self.stride + half, self.width - 1),
        )

    @property
    def wanted_tokens(self) -> Positions:
        """The tokens of a window that pixels are read from, ascending: the stride x stride around its centre."""
        half, reach = self.stride // 2, self.window // 2
        along = np.arange(reach - half, reach - half + self.stride)
        return (along[:, None] * self.window + along).ravel()

    def tokens(self, rows: Positions, cols: Positions, centre_rows: Positions, centre_cols: Positions) -> Positions:
        """Which token of the window around a centre a pixel is."""
        reach = self.window // 2
        return (rows - centre_rows + reach) * self.window + cols - centre_cols + reach


def plain_view(scene: SceneWindows, grid: Grid, rows: Positions, cols: Positions) -> View:
    """The windows that the pixels are read from."""
    centres = grid.centres(rows, cols)
    windows, valid = scene.gather(*centres)
    tokens_P = torch.from_numpy(grid.tokens(rows, cols, *centres)).to(scene.device)
    return View(windows, valid, tokens_P)


def training_view(
    scene: SceneWindows, grid: Grid, rows: Positions, cols: Positions, position: tuple[int, ...], dropout: float
) -> View:
    """Windows for training: each pixel up to half a stride off the centre, the window rotated or mirrored.

    Args:
        scene: where windows are cut.
        grid: how its pixels are read.
        rows: of the pixels.
        cols: of the pixels.
        position: seeds a pixel's draw together with the pixel: seed, view.
        dropout: probability that one modality of a window is hidden.
    """
    draws = [np.random.default_rng([*position, *pixel]) for pixel in zip(rows.tolist(), cols.tolist(), strict=True)]
    half = grid.stride // 2
    shifts = np.array([draw.integers(-half, half + 1, size=2) for draw in draws])
    centre_rows = np.clip(rows - shifts[:, 0], 0, grid.height - 1)
    centre_cols = np.clip(cols - shifts[:, 1], 0, grid.width - 1)
    windows, valid = scene.gather(centre_rows, centre_cols)
    modalities = len(valid)
    moves_GN = square_symmetries(grid.window).to(scene.device)
    symmetry_P = torch.tensor([int(draw.integers(len(moves_GN))) for draw in draws]).to(scene.device)
    moves_PN = moves_GN[symmetry_P]
    hidden = [int(draw.integers(modalities)) if modalities > 1 and draw.random() < dropout else -1 for draw in draws]
    hidden_P = torch.tensor(hidden).to(scene.device)
    tokens_P = torch.from_numpy(grid.tokens(rows, cols, centre_rows, centre_cols)).to(scene.device)
    seen = {name: valid[name] & (hidden_P != index)[:, None] for index, name in enumerate(valid)}
    return View(
        windows={
            name: (values * seen[name][..., None]).gather(1, moves_PN[..., None].expand(-1, -1, values.shape[2]))
            for name, values in windows.items()
        },
        valid={name: seen_PN.gather(1, moves_PN) for name, seen_PN in seen.items()},
        tokens_P=torch.argsort(moves_PN, dim=1).gather(1, tokens_P[:, None])[:, 0],
    )


def square_symmetries(window: int) -> Tensor:
    """int64 (G, N): for each symmetry of a square, the token that comes to lie at each place."""
    places_WW = torch.arange(window**2).view(window, window)
    turned = [torch.rot90(places_WW, quarter) for quarter in range(4)]
    return torch.stack([places.flatten() for square in turned for places in (square, square.flip(1))])
