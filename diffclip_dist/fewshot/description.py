"""What a pixel is known by, learned from a scene without labels: the encoder's features and the bands, denoised.

Pixels beside each other mostly show the same thing and differ by noise. So a description is averaged over the
neighbours that differ from it by little more than that: noise goes, edges stay (bilateral filtering: Tomasi and
Manduchi 1998; of hyperspectral classification: Kang et al. 2014).

Shapes: P pixels, M modalities, F read-out width, S scales and C bands of the band metric, J joined width, K kept width;
H rows and W columns of a scene.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.fewshot.band_metric import BandMetric, learn_band_metric, read_bands
from diffclip_dist.fewshot.config import FewshotConfig
from diffclip_dist.fewshot.head import FeatureStatistics, PixelFeatures
from diffclip_dist.fewshot.reading import read_pixels
from diffclip_dist.fewshot.scene import SceneView, read_sample
from diffclip_dist.model.encoder import MultimodalEncoder

Mask = npt.NDArray[np.bool_]

# Principal axes that are kept: 98.9 % and 99.0 % of the variance of the two generated scenes, after 400 steps
AXES: Final = 64
# Pixels on each side that one round of smoothing looks at
REACH: Final = 2
# Of squared distances between neighbours: what differs least differs by noise alone
NOISE_QUANTILE: Final = 0.1
# Chosen on the two generated scenes
SHARPNESS: Final = 0.5


class Describer(nn.Module):
    """Features and bands of pixels to one vector each.

    A pixel's features, each scale's components and each scale's bands have a length of about 1, so that none drowns the
    others; a modality without data contributes nothing. All are then turned onto the principal axes of the scene.
    """

    mean_MF: Tensor
    deviation_MF: Tensor
    band_mean_SC: Tensor
    band_projection_SCK: Tensor
    band_weight_SC: Tensor
    centre_J: Tensor
    axes_JK: Tensor
    noise: Tensor

    def __init__(
        self, statistics: FeatureStatistics, metric: BandMetric, centre_J: Tensor, axes_JK: Tensor, noise: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("mean_MF", statistics.mean_MF)
        self.register_buffer("deviation_MF", statistics.deviation_MF)
        self.register_buffer("band_mean_SC", metric.mean_SC)
        self.register_buffer("band_projection_SCK", metric.projection_SCK)
        self.register_buffer("band_weight_SC", metric.weight_SC)
        self.register_buffer("centre_J", centre_J)
        self.register_buffer("axes_JK", axes_JK)
        self.register_buffer("noise", noise)

    @classmethod
    def learned(cls, encoder: MultimodalEncoder, scene: SceneView, config: FewshotConfig) -> "Describer":
        """Learns from pixels evenly spread over a scene.

        Args:
            encoder: knows the scene's modalities and no others.
            scene: any scene; no label is looked at.
            config: the read-out, and how many windows are read.
        """
        read = read_sample(encoder, scene, config)
        statistics = FeatureStatistics.of(read.features)
        metric = learn_band_metric(scene.windows, scene.present)
        bands_PSC = read_bands(scene.windows, read.rows, read.cols)
        joined_PJ = _joined(statistics, metric, read.features, bands_PSC).double()
        centre_J = joined_PJ.mean(dim=0)
        _, axes_JJ = torch.linalg.eigh((joined_PJ - centre_J).T @ (joined_PJ - centre_J))
        axes_JK = axes_JJ.flip(1)[:, :AXES]
        known_HWK, read_HW = _on_grid(
            scene.present.shape, read.rows, read.cols, ((joined_PJ - centre_J) @ axes_JK).float()
        )
        noise = _noise(known_HWK, read_HW)
        return cls(statistics, metric, centre_J.float(), axes_JK.float().contiguous(), noise)

    def forward(self, features: PixelFeatures, bands_PSC: Tensor) -> Tensor:
        """Descriptions (P, K) of pixels by themselves."""
        statistics = FeatureStatistics(self.mean_MF, self.deviation_MF)
        metric = BandMetric(self.band_mean_SC, self.band_projection_SCK, self.band_weight_SC)
        described_PK: Tensor = (_joined(statistics, metric, features, bands_PSC) - self.centre_J) @ self.axes_JK
        return described_PK


@dataclass(frozen=True)
class Described:
    """Pixels of a scene, described.

    Attributes:
        values_HWK: float32, 0 where a pixel is not known.
        known_HW: bool.
    """

    values_HWK: Tensor
    known_HW: Tensor

    @cached_property
    def pixels(self) -> Tensor:
        """The known pixels (P, K), row by row; every classifier looks at them."""
        return self.values_HWK[self.known_HW]


def describe_scene(
    describer: Describer, encoder: MultimodalEncoder, scene: SceneView, wanted: Mask, config: FewshotConfig
) -> Described:
    """Describes the wanted pixels of a scene, and averages over neighbours as often as the configuration says.

    Args:
        describer: learned on this scene or on another of the same modalities.
        encoder: the one that it was learned with.
        scene: where windows are cut.
        wanted: bool (row, col).
        config: the read-out, the rounds of smoothing and the size of a batch.
    """
    reach = smoothing_reach(config)
    looked_at = binary_dilation(wanted, np.ones((2 * reach + 1, 2 * reach + 1))) if reach else wanted
    rows, cols, values_PK = [], [], []
    for part in read_pixels(encoder, scene.windows, scene.grid, looked_at & scene.present, config):
        values_PK.append(describer(part.features, read_bands(scene.windows, part.rows, part.cols)))
        rows.append(part.rows)
        cols.append(part.cols)
    known = np.zeros(wanted.shape, dtype=np.bool_)
    if not rows:
        return Described(torch.zeros(*wanted.shape, describer.axes_JK.shape[1]), torch.from_numpy(known))
    values_HWK, known_HW = _on_grid(wanted.shape, np.concatenate(rows), np.concatenate(cols), torch.cat(values_PK))
    if config.smoothing:
        values_HWK = _smoothed(values_HWK, known_HW, float(describer.noise), config.smoothing)
    return Described(values_HWK, known_HW & torch.from_numpy(wanted))


def smoothing_reach(config: FewshotConfig) -> int:
    """Pixels on each side of a pixel that it is classified by through smoothing."""
    return REACH * config.smoothing if config.head == "kernel" else 0


def _joined(statistics: FeatureStatistics, metric: BandMetric, features: PixelFeatures, bands_PSC: Tensor) -> Tensor:
    standard_PMF = (features.values_PMF - statistics.mean_MF) / statistics.deviation_MF
    said_PMF = normalize(standard_PMF, dim=-1) * features.present_PM[..., None]
    said_PMF = said_PMF / features.present_PM.sum(dim=1).clamp_min(1).sqrt()[:, None, None]
    seen_PSK = normalize(metric.components(bands_PSC), dim=-1)
    return torch.cat([part.flatten(1) for part in (said_PMF, seen_PSK, metric.weighted(bands_PSC))], dim=1)


def _on_grid(
    shape: tuple[int, ...], rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64], values_PK: Tensor
) -> tuple[Tensor, Tensor]:
    values_HWK = torch.zeros(*shape, values_PK.shape[1])
    known_HW = torch.zeros(*shape, dtype=torch.bool)
    values_HWK[rows, cols] = values_PK
    known_HW[rows, cols] = True
    return values_HWK, known_HW


def _noise(values_HWK: Tensor, known_HW: Tensor) -> Tensor:
    """The squared distance by which neighbours differ through noise; 0 where there are no neighbours."""
    distances = [torch.zeros(0)]
    for here, there in _pairs(values_HWK.shape[:2], ((0, 1), (1, 0))):
        both = known_HW[here] & known_HW[there]
        distances.append((values_HWK[here] - values_HWK[there]).square().sum(dim=-1)[both])
    found = torch.cat(distances)
    return torch.quantile(found, NOISE_QUANTILE) if len(found) else torch.zeros(())


def _smoothed(values_HWK: Tensor, known_HW: Tensor, noise: float, rounds: int) -> Tensor:
    """Each round averages over the neighbours, weighted by how little they differed at first."""
    shifts = [(down, right) for down in range(-REACH, REACH + 1) for right in range(-REACH, REACH + 1)]
    pairs = list(_pairs(values_HWK.shape[:2], shifts))
    weights = []
    for here, there in pairs:
        distance_HW = (values_HWK[here] - values_HWK[there]).square().sum(dim=-1)
        alike_HW = torch.exp(-SHARPNESS * distance_HW / max(noise, torch.finfo(torch.float32).tiny))
        weights.append(alike_HW * (known_HW[here] & known_HW[there]))
    total_HW = torch.zeros(known_HW.shape)
    for (here, _), weight_HW in zip(pairs, weights, strict=True):
        total_HW[here] += weight_HW
    total_HW.clamp_min_(1.0)  # a known pixel counts itself with 1, an unknown one stays 0
    for _ in range(rounds):
        sum_HWK = torch.zeros_like(values_HWK)
        for (here, there), weight_HW in zip(pairs, weights, strict=True):
            sum_HWK[here] += weight_HW[..., None] * values_HWK[there]
        values_HWK = sum_HWK / total_HW[..., None]
    return values_HWK


def _pairs(
    shape: torch.Size, shifts: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For each shift, the part of a grid that has a neighbour there, and those neighbours."""
    height, width = shape
    for down, right in shifts:
        yield (
            (slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))),
            (slice(max(down, 0), height - max(-down, 0)), slice(max(right, 0), width - max(-right, 0))),
        )
