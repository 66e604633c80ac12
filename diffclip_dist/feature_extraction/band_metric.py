"""A metric of spectra, fitted to a scene without labels.

Neighbouring pixels mostly show the same thing. So the covariance of their differences estimates the covariance within a
class. Bands are whitened by it; the directions of most variance that remain separate the classes (minimum noise
fraction: Green et al. 1988, A transformation for ordering multispectral data in terms of image quality).

Shapes: P pixels, C bands of all modalities, K components.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.data.windows import SceneWindows

COMPONENTS: Final = 15
# Part of the pairs that is used: the others differ most, and lie across edges
ALIKE_PART: Final = 0.7
# Of the covariance, towards the mean variance: bands are many, and some barely vary
SHRINKAGE: Final = 0.1
MOST_PIXELS: Final = 20_000


@dataclass(frozen=True)
class BandMetric:
    """Projects bands to components with equal noise in every direction.

    Attributes:
        mean_C: subtracted first.
        projection_CK: to the components, in order of their signal-to-noise ratio, the highest first.
    """

    mean_C: Tensor
    projection_CK: Tensor

    def components(self, bands_PC: Tensor) -> Tensor:
        """Components (P, K)."""
        components_PK: Tensor = (bands_PC - self.mean_C) @ self.projection_CK
        return components_PK


def fit_band_metric(scene: SceneWindows, present: npt.NDArray[np.bool_]) -> BandMetric:
    """Fits the metric to evenly spread pixels that have data, and their neighbours to the right and below."""
    rows, cols = np.nonzero(present)
    kept = np.linspace(0, len(rows) - 1, min(len(rows), MOST_PIXELS)).astype(np.int64)
    rows, cols = rows[kept], cols[kept]
    bands_PC = scene.bands_at(rows, cols).cpu().double()
    differences = [torch.zeros(1, bands_PC.shape[1], dtype=torch.float64)]
    for down, right in ((1, 0), (0, 1)):
        inside = (rows + down < present.shape[0]) & (cols + right < present.shape[1])
        inside[inside] = present[rows[inside] + down, cols[inside] + right]
        beside_PC = scene.bands_at(rows[inside] + down, cols[inside] + right).cpu().double()
        differences.append(bands_PC[torch.from_numpy(inside)] - beside_PC)
    mean_C = bands_PC.mean(dim=0)
    return BandMetric(mean_C.float(), _signal_to_noise(bands_PC - mean_C, torch.cat(differences)).float())


def _signal_to_noise(centred_PC: Tensor, differences_PC: Tensor) -> Tensor:
    """The projection (C, K) that whitens the noise and keeps the directions with most signal."""
    length_P = differences_PC.square().sum(dim=1)
    alike_PC = differences_PC[length_P <= length_P.quantile(ALIKE_PART)]
    noise_CC = alike_PC.T @ alike_PC / (2 * len(alike_PC))
    bands = len(noise_CC)
    level = float(noise_CC.trace()) / bands
    noise_CC = (1 - SHRINKAGE) * noise_CC + (SHRINKAGE * level + 1e-6) * torch.eye(bands, dtype=torch.float64)
    variance_C, axes_CC = torch.linalg.eigh(noise_CC)
    whitening_CC = axes_CC / variance_C.sqrt()
    _, order_CC = torch.linalg.eigh(whitening_CC.T @ (centred_PC.T @ centred_PC) @ whitening_CC)
    projection_CK: Tensor = whitening_CC @ order_CC.flip(1)[:, :COMPONENTS]
    return projection_CK
