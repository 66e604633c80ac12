"""What a pixel is known by, learned from a scene without labels: the encoder's features and the bands, denoised.

A description is averaged over the neighbours that differ from it by little: noise goes, edges stay (bilateral
filtering: Tomasi and Manduchi 1998; of hyperspectral classification: Kang et al. 2014). How much is little depends on
the scene, and on how coarsely its classes are drawn; and where a sensor's errors lie side by side, as stripes and
vapour do, a metric that takes neighbours for alike takes errors for signal. So a scene is described in several ways,
and the shots tell which serves:

1. all that is known of a pixel, averaged over what differs by noise alone (in a scene of mixed pixels, nothing);
2. the same, averaged over what mostly lies together;
3. the bands alone, averaged over what differs by noise alone.

Shapes: P pixels, M modalities, F read-out width, C bands of all modalities, J joined width, A = 2 sets of axes, K kept
width, S ways of describing; H rows and W columns of a scene.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.feature_extraction.band_metric import BandMetric, fit_band_metric
from diffclip_dist.feature_extraction.bands_only import FeatureEncoder, device_of
from diffclip_dist.feature_extraction.feature_config import SMOOTHING_RADIUS, FeatureConfig
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics, PixelFeatures
from diffclip_dist.feature_extraction.reading import read_pixels
from diffclip_dist.feature_extraction.scene_view import SceneView, read_sample

Mask = npt.NDArray[np.bool_]

# Principal axes that are kept
AXES: Final = 64
# Of squared distances between neighbours: what differs least differs by noise alone, if by anything but its place
NOISE_QUANTILE: Final = 0.1
# Of the same: what differs less mostly lies within one thing
THING_QUANTILE: Final = 0.3
# Chosen on generated scenes
SHARPNESS: Final = 0.5
# Which axes each way of describing has: all that is known, or the bands alone
_AXES_OF_WAY: Final = (0, 0, 1)


class FeatureExtractor(nn.Module):
    """Features and bands of pixels to one vector each.

    The features, the components of the band metric and the bands have the same part in the scene's variance, so that
    none drowns the others; a modality without data contributes nothing. All are turned onto the scene's principal axes,
    and the bands alone onto theirs.
    """

    mean_MF: Tensor
    deviation_MF: Tensor
    band_mean_C: Tensor
    band_projection_CK: Tensor
    centre_J: Tensor
    axes_AJK: Tensor
    bilateral_bandwidth_S: Tensor

    def __init__(
        self,
        statistics: FeatureStatistics,
        metric: BandMetric,
        centre_J: Tensor,
        axes_AJK: Tensor,
        bilateral_bandwidth_S: Tensor,
    ) -> None:
        super().__init__()
        self.register_buffer("mean_MF", statistics.mean_MF)
        self.register_buffer("deviation_MF", statistics.deviation_MF)
        self.register_buffer("band_mean_C", metric.mean_C)
        self.register_buffer("band_projection_CK", metric.projection_CK)
        self.register_buffer("centre_J", centre_J)
        self.register_buffer("axes_AJK", axes_AJK)
        self.register_buffer("bilateral_bandwidth_S", bilateral_bandwidth_S)

    @classmethod
    def fit(cls, encoder: FeatureEncoder, scene: SceneView, config: FeatureConfig) -> "FeatureExtractor":
        """Learns from pixels evenly spread over a scene.

        Args:
            encoder: knows the scene's modalities and no others.
            scene: any scene; no label is looked at.
            config: the read-out, and how many windows are read.
        """
        read = read_sample(encoder, scene, config)
        features = read.features.cpu()  # principal axes are few and double precision is slow elsewhere
        statistics = FeatureStatistics.of(features)
        metric = fit_band_metric(scene.windows, scene.present)
        parts = _parts(statistics, metric, features, scene.windows.bands_at(read.rows, read.cols).cpu())
        joined_PJ = torch.cat(parts, dim=1).double()
        centre_J = joined_PJ.mean(dim=0)
        centred_PJ = joined_PJ - centre_J
        widths = [part.shape[1] for part in parts]
        powers = [part.square().sum(dim=1).mean().clamp_min(1e-12) for part in torch.split(centred_PJ, widths, dim=1)]
        scale_J = torch.cat([power.rsqrt().expand(width) for power, width in zip(powers, widths, strict=True)])
        bands_alone_J = scale_J.clone()
        bands_alone_J[: -widths[-1]] = 0.0
        axes_AJK = torch.stack([_principal_axes(centred_PJ, scale) for scale in (scale_J, bands_alone_J)])
        every, bands = (
            _unlike(*_on_grid(scene.present.shape, read.rows, read.cols, found_PK.float()))
            for found_PK in centred_PJ @ axes_AJK
        )
        bilateral_bandwidth_S = torch.stack([every.noise, every.within_a_thing, bands.noise])
        fitted = cls(statistics, metric, centre_J.float(), axes_AJK.float().contiguous(), bilateral_bandwidth_S)
        return fitted.to(device_of(encoder))

    def forward(self, features: PixelFeatures, bands_PC: Tensor) -> Tensor:
        """Descriptions (A, P, K) of pixels by themselves."""
        statistics = FeatureStatistics(self.mean_MF, self.deviation_MF)
        metric = BandMetric(self.band_mean_C, self.band_projection_CK)
        joined_PJ = torch.cat(_parts(statistics, metric, features, bands_PC), dim=1)
        features_APK: Tensor = (joined_PJ - self.centre_J) @ self.axes_AJK
        return features_APK


@dataclass(frozen=True)
class SceneFeatures:
    """Pixels of a scene, described.

    Attributes:
        values_SHWK: float32, each way of describing, 0 where a pixel is not known.
        valid_HW: bool.
    """

    values_SHWK: Tensor
    valid_HW: Tensor

    @cached_property
    def pixels(self) -> Tensor:
        """The known pixels (S, P, K), row by row; every classifier looks at them."""
        return self.values_SHWK[:, self.valid_HW]

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Tensor:
        """The pixels (S, P, K) at the given places."""
        return self.values_SHWK[:, rows, cols]


def extract_features(
    extractor: FeatureExtractor, encoder: FeatureEncoder, scene: SceneView, wanted: Mask, config: FeatureConfig
) -> SceneFeatures:
    """Describes the wanted pixels of a scene, and averages over neighbours as often as the configuration says.

    Without a round of smoothing there is nothing to tell the first two ways apart by, and the second is left out.

    Args:
        extractor: learned on this scene or on another of the same modalities.
        encoder: the one that it was learned with.
        scene: where windows are cut.
        wanted: bool (row, col).
        config: the read-out, the rounds of smoothing and the size of a batch.
    """
    reach = config.smoothing_reach
    looked_at = binary_dilation(wanted, np.ones((2 * reach + 1, 2 * reach + 1))) if reach else wanted
    rows, cols, values_APK = [], [], []
    for part in read_pixels(encoder, scene.windows, scene.grid, looked_at & scene.present, config):
        values_APK.append(extractor(part.features, scene.windows.bands_at(part.rows, part.cols)))
        rows.append(part.rows)
        cols.append(part.cols)
    if not rows:
        device = extractor.axes_AJK.device
        nothing_SHWK = torch.zeros(feature_set_count(config), *wanted.shape, extractor.axes_AJK.shape[2], device=device)
        return SceneFeatures(nothing_SHWK, torch.zeros(wanted.shape, dtype=torch.bool, device=device))
    places = np.concatenate(rows), np.concatenate(cols)
    grids = [_on_grid(wanted.shape, *places, values_PK) for values_PK in torch.cat(values_APK, dim=1)]
    valid_HW = grids[0][1]
    values_AHWK = [values_HWK for values_HWK, _ in grids]
    if config.smoothing:
        ways = zip(_AXES_OF_WAY, extractor.bilateral_bandwidth_S.tolist(), strict=True)
        values_AHWK = [_smoothed(values_AHWK[axes], valid_HW, unlike, config.smoothing) for axes, unlike in ways]
    return SceneFeatures(torch.stack(values_AHWK), valid_HW & torch.from_numpy(wanted).to(valid_HW.device))


def feature_set_count(config: FeatureConfig) -> int:
    """S, how often a scene is described."""
    return len(_AXES_OF_WAY) if config.smoothing else len(set(_AXES_OF_WAY))


def _parts(
    statistics: FeatureStatistics, metric: BandMetric, features: PixelFeatures, bands_PC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, components and bands of pixels, each (P, its width)."""
    standard_PMF = (features.values_PMF - statistics.mean_MF) / statistics.deviation_MF
    said_PMF = standard_PMF * features.present_PM[..., None]
    return said_PMF.flatten(1), normalize(metric.components(bands_PC), dim=-1), bands_PC


def _on_grid(
    shape: tuple[int, ...], rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64], values_PK: Tensor
) -> tuple[Tensor, Tensor]:
    values_HWK = torch.zeros(*shape, values_PK.shape[1], device=values_PK.device)
    valid_HW = torch.zeros(*shape, dtype=torch.bool, device=values_PK.device)
    values_HWK[rows, cols] = values_PK
    valid_HW[rows, cols] = True
    return values_HWK, valid_HW


def _principal_axes(centred_PJ: Tensor, scale_J: Tensor) -> Tensor:
    """The axes (J, K) of most variance of scaled vectors, the scale in them."""
    scaled_PJ = centred_PJ * scale_J
    _, axes_JJ = torch.linalg.eigh(scaled_PJ.T @ scaled_PJ)
    axes_JK: Tensor = scale_J[:, None] * axes_JJ.flip(1)[:, :AXES]
    return axes_JK


class _Unlike(NamedTuple):
    """Squared distances by which neighbours differ."""

    noise: Tensor
    within_a_thing: Tensor


def _unlike(values_HWK: Tensor, valid_HW: Tensor) -> _Unlike:
    """By how much neighbours differ through noise alone, and within one thing.

    Noise does not grow with the distance between two pixels, and what they show does: the difference at no distance is
    what the differences at one and two pixels lead back to (the nugget of a variogram: Matheron 1963). 0 where there is
    no noise, or no neighbours.
    """
    at_1, at_2 = (_differences(values_HWK, valid_HW, ((0, step), (step, 0))) for step in (1, 2))
    near, far = torch.quantile(at_1, NOISE_QUANTILE), torch.quantile(at_2, NOISE_QUANTILE)
    return _Unlike((2 * near - far).clamp_min(0.0), torch.quantile(at_1, THING_QUANTILE))


def _differences(values_HWK: Tensor, valid_HW: Tensor, shifts: Sequence[tuple[int, int]]) -> Tensor:
    """Squared distances between known pixels that lie so far apart; one of 0 where there are none."""
    found = []
    for here, there in _pairs(values_HWK.shape[:2], shifts):
        both = valid_HW[here] & valid_HW[there]
        found.append((values_HWK[here] - values_HWK[there]).square().sum(dim=-1)[both])
    distances = torch.cat(found)
    return distances if len(distances) else torch.zeros(1)


def _smoothed(values_HWK: Tensor, valid_HW: Tensor, unlike: float, rounds: int) -> Tensor:
    """Each round averages over the neighbours, weighted by how little they differed at first."""
    if unlike == 0.0:
        return values_HWK
    shifts = [
        (down, right)
        for down in range(-SMOOTHING_RADIUS, SMOOTHING_RADIUS + 1)
        for right in range(-SMOOTHING_RADIUS, SMOOTHING_RADIUS + 1)
    ]
    pairs = list(_pairs(values_HWK.shape[:2], shifts))
    weights = []
    for here, there in pairs:
        distance_HW = (values_HWK[here] - values_HWK[there]).square().sum(dim=-1)
        alike_HW = torch.exp(-SHARPNESS * distance_HW / unlike)
        weights.append(alike_HW * (valid_HW[here] & valid_HW[there]))
    total_HW = torch.zeros(valid_HW.shape, device=valid_HW.device)
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
