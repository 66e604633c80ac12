"""Features of pixels, fitted to a scene without labels: the encoder's features and the bands, smoothed.

Smoothing averages a pixel over the neighbours that differ little from it. It removes noise and keeps edges (bilateral
filter: Tomasi and Manduchi 1998; for hyperspectral classification: Kang et al. 2014). The right bandwidth depends on
the scene and on how coarsely its classes are drawn. The band metric takes neighbours for alike; where a sensor's errors
lie side by side, as stripes and vapour do, it takes errors for signal. So each pixel gets several feature sets, and a
classifier weighs them by its labelled pixels:

1. encoder and bands, averaged over neighbours that differ by noise alone (over none, where pixels are mixed);
2. the same, averaged over neighbours that mostly show the same thing;
3. the bands alone, averaged over neighbours that differ by noise alone;
4. the components of the band metric with their lengths, averaged over neighbours that differ by noise alone. In the
   joined vector of the others they have length 1, which takes brightness off and makes noise of dark pixels large.

Shapes: P pixels, M modalities, F read-out width, C bands of all modalities, J joined width, A = 2 sets of principal
axes, D = 3 vectors of a pixel before smoothing, K kept width, S feature sets; H rows and W columns of a scene.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from diffclip_dist.feature_extraction.band_metric import BandMetric, fit_band_metric
from diffclip_dist.feature_extraction.bands_only import FeatureEncoder, device_of
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics, PixelFeatures
from diffclip_dist.feature_extraction.reading import WindowsToRead, batches, read_batch, windows_at_once
from diffclip_dist.feature_extraction.scene_view import SceneView, read_sample
from diffclip_dist.feature_extraction.smoothing import Neighbourhood
from diffclip_dist.feature_extraction.threads import in_threads
from shards.archive.manifest import ModalityRecord

Mask = npt.NDArray[np.bool_]

# Principal axes that are kept
AXES: Final = 64
# Of squared distances between neighbours; below it, neighbours differ by noise alone
NOISE_QUANTILE: Final = 0.1
# Of the same; below it, neighbours mostly show the same thing
THING_QUANTILE: Final = 0.3
# Which vector of a pixel each feature set smooths: 0 encoder and bands, 1 the bands alone, 2 components of the metric
_VECTOR_OF_SET: Final = (0, 0, 1, 2)


class FeatureExtractor(nn.Module):
    """Features and bands of pixels to one vector each.

    Encoder features, components of the band metric and bands are scaled to the same variance over the scene, so that
    none outweighs the others. A modality without data contributes 0. The joined vector is projected onto the scene's
    principal axes; the bands are also projected onto principal axes of their own, and the components of the band metric
    stay as they are.

    Attributes:
        bilateral_bandwidth_S: squared distance, in the vector that a feature set smooths, by which its neighbours
            differ. A classifier that was saved before the fourth feature set was made has three.
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
    def fit(cls, encoder: FeatureEncoder, scene: SceneView, among: Mask, config: FeatureConfig) -> "FeatureExtractor":
        """Fits to pixels that are evenly spread over a scene.

        Args:
            encoder: knows the scene's modalities and no others.
            scene: any scene, or patches of it; its labels are not used.
            among: bool (row, col), pixels to choose from.
            config: the read-out, and how many windows are read.
        """
        usable = scene.complete_among(among)
        read = read_sample(encoder, scene, usable, config)
        features = read.features.cpu()  # fitted in double precision on the CPU
        statistics = FeatureStatistics.of(features)
        metric = fit_band_metric(scene.windows, usable)
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
        components_PK = metric.components(scene.windows.bands_at(read.rows, read.cols).cpu())
        components = _bandwidths(*_on_grid(scene.present.shape, read.rows, read.cols, components_PK))
        bilateral_bandwidth_S = torch.stack([every.noise, every.within_a_thing, bands.noise, components.noise])
        fitted = cls(statistics, metric, centre_J.float(), axes_AJK.float().contiguous(), bilateral_bandwidth_S)
        return fitted.to(device_of(encoder))

    def forward(self, features: PixelFeatures, bands_PC: Tensor) -> Tensor:
        """Features (D, P, K) of pixels, before smoothing."""
        statistics = FeatureStatistics(self.mean_MF, self.deviation_MF)
        metric = BandMetric(self.band_mean_C, self.band_projection_CK)
        joined_PJ = torch.cat(_parts(statistics, metric, features, bands_PC), dim=1)
        features_DPK: Tensor = (joined_PJ - self.centre_J) @ self.axes_AJK
        if len(self.bilateral_bandwidth_S) < len(_VECTOR_OF_SET):
            return features_DPK
        components_PK = metric.components(bands_PC)
        empty = features_DPK.shape[2] - components_PK.shape[1]
        return torch.cat([features_DPK, pad(components_PK, (0, empty))[None]])

    def vectors_of_sets(self, config: FeatureConfig) -> tuple[int, ...]:
        """Which vector (of D) each feature set smooths. Without smoothing, sets of one vector are one set."""
        smoothed = _VECTOR_OF_SET[: len(self.bilateral_bandwidth_S)]
        return smoothed if config.smoothing else tuple(sorted(set(smoothed)))


@dataclass(frozen=True)
class ListedFeatures:
    """Features of listed pixels, row by row.

    Attributes:
        rows: of the pixels.
        cols: of the pixels.
        values_SPK: float32, each feature set.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    values_SPK: Tensor

    def among(self, pixels: Mask) -> "ListedFeatures":
        """Those of the given pixels, bool (row, col), that are listed."""
        kept = pixels[self.rows, self.cols]
        if kept.all():
            return self
        kept_P = torch.from_numpy(np.flatnonzero(kept)).to(self.values_SPK.device)
        return ListedFeatures(self.rows[kept], self.cols[kept], self.values_SPK.index_select(1, kept_P))

    def moved(self, down: int, right: int) -> "ListedFeatures":
        """The same pixels, counted from another first row and column."""
        return ListedFeatures(self.rows + down, self.cols + right, self.values_SPK)

    @classmethod
    def none_like(cls, values_SPK: Tensor) -> "ListedFeatures":
        """No pixel, with features of the given kind."""
        nowhere = np.zeros(0, dtype=np.int64)
        return cls(nowhere, nowhere, values_SPK[:, :0])

    @classmethod
    def joined(cls, parts: Sequence["ListedFeatures"]) -> "ListedFeatures":
        """The pixels of all parts, row by row; none is in two parts."""
        rows, cols = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "cols"))
        order = np.lexsort((cols, rows))
        values_SPK = torch.cat([part.values_SPK for part in parts], dim=1)
        return cls(rows[order], cols[order], values_SPK[:, torch.from_numpy(order).to(values_SPK.device)])

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Tensor:
        """The pixels (S, P, K) at the given places; all must be listed."""
        width = int(max(self.cols.max(initial=0), cols.max(initial=0))) + 1
        listed, asked = self.rows * width + self.cols, rows * width + cols
        places = np.minimum(np.searchsorted(listed, asked), len(listed) - 1)
        assert np.array_equal(listed[places], asked), "a pixel is not listed"
        return self.values_SPK.index_select(1, torch.from_numpy(places).to(self.values_SPK.device))


def extract_features(
    extractor: FeatureExtractor, encoder: FeatureEncoder, scene: SceneView, wanted: Mask, config: FeatureConfig
) -> ListedFeatures:
    """Features of the wanted pixels of a scene, or of a block of it, that have data.

    Without smoothing the first two feature sets are the same, and the second is left out (`vectors_of_sets`).

    Args:
        extractor: fitted to this scene or to another of the same modalities.
        encoder: the one that it was fitted with.
        scene: where windows are cut.
        wanted: bool (row, col).
        config: the read-out, the rounds of smoothing and the size of a batch.
    """
    device = extractor.axes_AJK.device
    vectors, width = extractor.vectors_of_sets(config), extractor.axes_AJK.shape[2]
    chosen = wanted & scene.present
    rows, cols = np.nonzero(chosen)
    if not len(rows):
        return ListedFeatures(rows, cols, torch.zeros(len(vectors), 0, width, device=device))
    around = Neighbourhood.around(wanted, scene.present, config.smoothing, device) if config.smoothing else None
    read_rows, read_cols = (rows, cols) if around is None else (around.rows, around.cols)
    place = np.full(wanted.shape, -1, dtype=np.int64)
    place[read_rows, read_cols] = np.arange(len(read_rows))
    values_DPK = torch.empty(max(vectors) + 1, len(read_rows), width, device=device)

    def extract(batch: WindowsToRead) -> None:
        read = read_batch(encoder, scene.windows, scene.grid, batch, config)
        places_P = torch.from_numpy(place[batch.rows, batch.cols]).to(device)
        values_DPK[:, places_P] = extractor(read.features, scene.windows.bands_at(batch.rows, batch.cols))

    deque(in_threads(extract, batches(scene.grid, place >= 0, windows_at_once(encoder, config))), maxlen=0)
    if around is None:
        return ListedFeatures(rows, cols, values_DPK)
    # the components of the band metric are few: what is beyond them is 0 and stays so
    used = [width, width, extractor.band_projection_CK.shape[1]]
    read_D = [values_PK[:, :few].contiguous() for values_PK, few in zip(values_DPK, used, strict=False)]
    distance_D = [around.distances(values_PK) for values_PK in read_D]
    values_SPK = torch.stack(
        [
            pad(around.smoothed(read_D[vector], distance_D[vector], bandwidth), (0, width - read_D[vector].shape[1]))
            for vector, bandwidth in zip(vectors, extractor.bilateral_bandwidth_S.tolist(), strict=True)
        ]
    )
    return ListedFeatures(rows, cols, values_SPK)


def held_values(modalities: Sequence[ModalityRecord], config: FeatureConfig) -> int:
    """float32 values that are held for each pixel whose features are extracted: bands, and features at each stage."""
    sets = len(_VECTOR_OF_SET) if config.smoothing else len(set(_VECTOR_OF_SET))
    return sum(modality.bands for modality in modalities) + AXES * (4 + sets)


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
