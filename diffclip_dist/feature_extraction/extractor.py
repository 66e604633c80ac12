"""Features of pixels, fitted to a scene without labels: the encoder's features and the bands, smoothed.

Smoothing averages a pixel over the neighbours that differ little from it. It removes noise and keeps edges (bilateral
filter: Tomasi and Manduchi 1998; for hyperspectral classification: Kang et al. 2014). The right bandwidth depends on
the scene and on how coarsely its classes are drawn. The band metric takes neighbours for alike; where a sensor's errors
lie side by side, as stripes and vapour do, it takes errors for signal. So each pixel gets several feature sets, and a
classifier weighs them by its labelled pixels:

1. encoder and bands, averaged over neighbours that differ by noise alone (over none, where pixels are mixed);
2. the same, averaged over neighbours that mostly show the same thing;
3. the bands alone, averaged over neighbours that differ by noise alone.

Shapes: P pixels, M modalities, F read-out width, C bands of all modalities, J joined width, A = 2 sets of axes, K kept
width, S feature sets; H rows and W columns of a scene.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
# Of squared distances between neighbours; below it, neighbours differ by noise alone
NOISE_QUANTILE: Final = 0.1
# Of the same; below it, neighbours mostly show the same thing
THING_QUANTILE: Final = 0.3
# Chosen on generated scenes
SHARPNESS: Final = 0.5
# The set of axes of each feature set: 0 encoder and bands, 1 the bands alone
_AXES_OF_SET: Final = (0, 0, 1)


class FeatureExtractor(nn.Module):
    """Features and bands of pixels to one vector each.

    Encoder features, components of the band metric and bands are scaled to the same variance over the scene, so that
    none outweighs the others. A modality without data contributes 0. The joined vector is projected onto the scene's
    principal axes; the bands are also projected onto principal axes of their own.
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
        """Fits to pixels that are evenly spread over a scene.

        Args:
            encoder: knows the scene's modalities and no others.
            scene: any scene; its labels are not used.
            config: the read-out, and how many windows are read.
        """
        read = read_sample(encoder, scene, config)
        features = read.features.cpu()  # fitted in double precision on the CPU
        statistics = FeatureStatistics.of(features)
        metric = fit_band_metric(scene.windows, scene.complete)
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
            _bandwidths(*_on_grid(scene.present.shape, read.rows, read.cols, found_PK.float()))
            for found_PK in centred_PJ @ axes_AJK
        )
        bilateral_bandwidth_S = torch.stack([every.noise, every.within_a_thing, bands.noise])
        fitted = cls(statistics, metric, centre_J.float(), axes_AJK.float().contiguous(), bilateral_bandwidth_S)
        return fitted.to(device_of(encoder))

    def forward(self, features: PixelFeatures, bands_PC: Tensor) -> Tensor:
        """Features (A, P, K) of pixels, before smoothing."""
        statistics = FeatureStatistics(self.mean_MF, self.deviation_MF)
        metric = BandMetric(self.band_mean_C, self.band_projection_CK)
        joined_PJ = torch.cat(_parts(statistics, metric, features, bands_PC), dim=1)
        features_APK: Tensor = (joined_PJ - self.centre_J) @ self.axes_AJK
        return features_APK


@dataclass(frozen=True)
class SceneFeatures:
    """Features of a scene's pixels.

    Attributes:
        values_SHWK: float32, each feature set; a pixel that was not wanted may hold anything.
        valid_HW: bool, pixels that were wanted and have data.
    """

    values_SHWK: Tensor
    valid_HW: Tensor

    def where(self, pixels: Mask) -> Tensor:
        """The known pixels (S, P, K) among the given ones, bool (row, col), row by row."""
        return self.values_SHWK[:, self.valid_HW & torch.from_numpy(pixels).to(self.valid_HW.device)]

    def listed(self, pixels: Mask) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Tensor]:
        """Rows, columns and features (S, P, K) of the known pixels among the given ones, row by row."""
        rows, cols = np.nonzero(self.valid_HW.cpu().numpy() & pixels)
        return rows, cols, self.where(pixels)

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Tensor:
        """The pixels (S, P, K) at the given places."""
        return self.values_SHWK[:, rows, cols]


def extract_features(
    extractor: FeatureExtractor, encoder: FeatureEncoder, scene: SceneView, wanted: Mask, config: FeatureConfig
) -> SceneFeatures:
    """Features of the wanted pixels of a scene, or of a block of it.

    Without smoothing the first two feature sets are the same, and the second is left out.

    Args:
        extractor: fitted to this scene or to another of the same modalities.
        encoder: the one that it was fitted with.
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
        sets = zip(_AXES_OF_SET, extractor.bilateral_bandwidth_S.tolist(), strict=True)
        values_AHWK = [_smoothed(values_AHWK[axes], valid_HW, bandwidth, config.smoothing) for axes, bandwidth in sets]
    return SceneFeatures(torch.stack(values_AHWK), valid_HW & torch.from_numpy(wanted).to(valid_HW.device))


def feature_set_count(config: FeatureConfig) -> int:
    """S, the number of feature sets."""
    return len(_AXES_OF_SET) if config.smoothing else len(set(_AXES_OF_SET))


def _parts(
    statistics: FeatureStatistics, metric: BandMetric, features: PixelFeatures, bands_PC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, components and bands of pixels, each (P, its width)."""
    standard_PMF = (features.values_PMF - statistics.mean_MF) / statistics.deviation_MF
    present_PMF = standard_PMF * features.present_PM[..., None]
    return present_PMF.flatten(1), normalize(metric.components(bands_PC), dim=-1), bands_PC


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


class _Bandwidths(NamedTuple):
    """Squared distances by which neighbours differ."""

    noise: Tensor
    within_a_thing: Tensor


def _bandwidths(values_HWK: Tensor, valid_HW: Tensor) -> _Bandwidths:
    """Squared distances between neighbours that differ by noise alone, and that show the same thing.

    Noise does not depend on how far two pixels are apart; what they show does. So noise is the difference at distance
    0, extrapolated from the differences at one and two pixels (nugget of a variogram: Matheron 1963). It is 0 without
    noise, and without neighbours.
    """
    at_1, at_2 = (_differences(values_HWK, valid_HW, ((0, step), (step, 0))) for step in (1, 2))
    near, far = torch.quantile(at_1, NOISE_QUANTILE), torch.quantile(at_2, NOISE_QUANTILE)
    return _Bandwidths((2 * near - far).clamp_min(0.0), torch.quantile(at_1, THING_QUANTILE))


def _differences(values_HWK: Tensor, valid_HW: Tensor, shifts: Sequence[tuple[int, int]]) -> Tensor:
    """Squared distances between valid pixels at the given shifts; a single 0 where there are none."""
    found = []
    for here, there in _pairs(values_HWK.shape[:2], shifts):
        both = valid_HW[here] & valid_HW[there]
        found.append((values_HWK[here] - values_HWK[there]).square().sum(dim=-1)[both])
    distances = torch.cat(found)
    return distances if len(distances) else torch.zeros(1)


def _smoothed(values_HWK: Tensor, valid_HW: Tensor, bandwidth: float, rounds: int) -> Tensor:
    """Averages over neighbours; the weights come from the values before the first round.

    Args:
        values_HWK: the features.
        valid_HW: pixels with features.
        bandwidth: squared distance at which a neighbour's weight is exp(-SHARPNESS); 0 changes nothing.
        rounds: of averaging, at least 1.
    """
    if bandwidth == 0.0:
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
        alike_HW = torch.exp(-SHARPNESS * distance_HW / bandwidth)
        weights.append(alike_HW * (valid_HW[here] & valid_HW[there]))
    total_HW = torch.zeros(valid_HW.shape, device=valid_HW.device)
    for (here, _), weight_HW in zip(pairs, weights, strict=True):
        total_HW[here] += weight_HW
    total_HW.clamp_min_(1.0)  # a valid pixel has weight 1 for itself; others stay 0
    for _ in range(rounds):
        sum_HWK = torch.zeros_like(values_HWK)
        for (here, there), weight_HW in zip(pairs, weights, strict=True):
            sum_HWK[here] += weight_HW[..., None] * values_HWK[there]
        values_HWK = sum_HWK / total_HW[..., None]
    return values_HWK


def _pairs(
    shape: torch.Size, shifts: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For each shift: the slices of a grid's pixels that have a neighbour there, and of those neighbours."""
    height, width = shape
    for down, right in shifts:
        yield (
            (slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))),
            (slice(max(down, 0), height - max(-down, 0)), slice(max(right, 0), width - max(-right, 0))),
        )
