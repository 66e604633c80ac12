"""How far spectra of one thing differ, learned from a scene without labels.

Neighbouring pixels mostly show the same thing, so the covariance of their differences stands in for the covariance
within a class. What is left after whitening by it is what tells things apart (minimum noise fraction: Green et al.
1988, A transformation for ordering multispectral data in terms of image quality).

Shapes: P pixels, S = 2 scales (the pixel, the mean of its 3 x 3 neighbourhood), C bands of all modalities, K
components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.fewshot.views import Positions
from diffclip_dist.stream.windows import SceneWindows

SCALES: Final = 2
COMPONENTS: Final = 15
# Pairs across an edge differ most and say nothing of a class
ALIKE_SHARE: Final = 0.7
# Drawn towards the mean variance, for bands are many and some barely vary
SHRINKAGE: Final = 0.1
MOST_PIXELS: Final = 20_000


def read_bands(scene: SceneWindows, rows: Positions, cols: Positions) -> Tensor:
    """Standardised bands (P, S, C) of pixels and of their neighbourhoods, 0 where a modality has no data."""
    own, around = [], []
    windows, valid = scene.around(rows, cols)
    for name, values_PNC in windows.items():
        own.append(values_PNC[:, values_PNC.shape[1] // 2])
        around.append(values_PNC.sum(dim=1) / valid[name].sum(dim=1, keepdim=True).clamp_min(1))
    return torch.stack([torch.cat(own, dim=1), torch.cat(around, dim=1)], dim=1)


@dataclass(frozen=True)
class BandMetric:
    """Takes bands to components whose scatter within a thing is the same in every direction, and to comparable values.

    Attributes:
        mean_SC: what is taken off first.
        projection_SCK: to the components, those with most signal to noise.
        weight_SC: of each band, so that every modality has the same part in the scene's mean squared length of 1.
    """

    mean_SC: Tensor
    projection_SCK: Tensor
    weight_SC: Tensor

    def components(self, bands_PSC: Tensor) -> Tensor:
        """Components (P, S, K)."""
        components_PSK: Tensor = torch.einsum("psc,sck->psk", bands_PSC - self.mean_SC, self.projection_SCK)
        return components_PSK

    def weighted(self, bands_PSC: Tensor) -> Tensor:
        """The bands themselves (P, S, C), weighted."""
        return bands_PSC * self.weight_SC


def learn_band_metric(scene: SceneWindows, present: npt.NDArray[np.bool_]) -> BandMetric:
    """Learns the metric from evenly spread pixels that have data, and their neighbours to the right and below."""
    rows, cols = np.nonzero(present)
    kept = np.linspace(0, len(rows) - 1, min(len(rows), MOST_PIXELS)).astype(np.int64)
    rows, cols = rows[kept], cols[kept]
    bands_PSC = read_bands(scene, rows, cols).double()
    differences = [torch.zeros(1, *bands_PSC.shape[1:], dtype=torch.float64)]
    for down, right in ((1, 0), (0, 1)):
        inside = (rows + down < present.shape[0]) & (cols + right < present.shape[1])
        inside[inside] = present[rows[inside] + down, cols[inside] + right]
        beside_PSC = read_bands(scene, rows[inside] + down, cols[inside] + right).double()
        differences.append(bands_PSC[torch.from_numpy(inside)] - beside_PSC)
    mean_SC = bands_PSC.mean(dim=0)
    projections = [
        _signal_to_noise(bands_PSC[:, scale] - mean_SC[scale], torch.cat(differences)[:, scale])
        for scale in range(SCALES)
    ]
    weight_SC = _equal_parts(torch.split(bands_PSC, list(scene.bands.values()), dim=2))
    return BandMetric(mean_SC.float(), torch.stack(projections).float(), weight_SC.float())


def _equal_parts(modalities: Sequence[Tensor]) -> Tensor:
    """Weights (S, C) that give each modality's bands (P, S, its C) the same part in a mean squared length of 1."""
    weights = []
    for bands_PSC in modalities:
        power_S = bands_PSC.square().sum(dim=2).mean(dim=0).clamp_min(1e-6)
        weights.append((len(modalities) * power_S).rsqrt()[:, None].expand(bands_PSC.shape[1:]))
    return torch.cat(weights, dim=1)


def _signal_to_noise(centred_PC: Tensor, differences_PC: Tensor) -> Tensor:
    """The projection (C, K) that whitens the noise and keeps the directions with most signal."""
    length_P = differences_PC.square().sum(dim=1)
    alike_PC = differences_PC[length_P <= length_P.quantile(ALIKE_SHARE)]
    noise_CC = alike_PC.T @ alike_PC / (2 * len(alike_PC))
    bands = len(noise_CC)
    level = float(noise_CC.trace()) / bands
    noise_CC = (1 - SHRINKAGE) * noise_CC + (SHRINKAGE * level + 1e-6) * torch.eye(bands, dtype=torch.float64)
    variance_C, axes_CC = torch.linalg.eigh(noise_CC)
    whitening_CC = axes_CC / variance_C.sqrt()
    _, order_CC = torch.linalg.eigh(whitening_CC.T @ (centred_PC.T @ centred_PC) @ whitening_CC)
    projection_CK: Tensor = whitening_CC @ order_CC.flip(1)[:, :COMPONENTS]
    return projection_CK
