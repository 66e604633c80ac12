"""A head that needs no steps: kernel ridge regression from what is known of a pixel to the text of its class.

A pixel is known by the encoder's features and by its bands in a metric that the unlabelled scene gives.

Shapes: P pixels, Q support pixels, M modalities, F read-out width, S scales and K components of the band metric,
J joined width, E text width, C classes.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.fewshot.band_metric import BandMetric
from diffclip_dist.fewshot.head import FeatureStatistics, PixelFeatures

# Both chosen on the two generated scenes, for 2 and 10 shots
KERNEL_SHARPNESS: Final = 0.5
RIDGE: Final = 0.01


class KernelHead(nn.Module):
    """Gaussian kernel to each support pixel, then to the text width.

    A pixel's features, each scale's components and each scale's bands have a length of about 1, so that none drowns the
    others; a modality without data contributes nothing.
    """

    def __init__(
        self, statistics: FeatureStatistics, metric: BandMetric, support_QJ: Tensor, answers_QE: Tensor
    ) -> None:
        super().__init__()
        self.mean_MF: Tensor
        self.deviation_MF: Tensor
        self.band_mean_SC: Tensor
        self.band_projection_SCK: Tensor
        self.band_weight_SC: Tensor
        self.support_QJ: Tensor
        self.answers_QE: Tensor
        self.offset_E: Tensor
        self.register_buffer("mean_MF", statistics.mean_MF)
        self.register_buffer("deviation_MF", statistics.deviation_MF)
        self.register_buffer("band_mean_SC", metric.mean_SC)
        self.register_buffer("band_projection_SCK", metric.projection_SCK)
        self.register_buffer("band_weight_SC", metric.weight_SC)
        self.register_buffer("support_QJ", support_QJ)
        self.register_buffer("answers_QE", answers_QE)
        self.register_buffer("offset_E", torch.zeros(answers_QE.shape[1]))

    @classmethod
    def fitted(
        cls,
        statistics: FeatureStatistics,
        metric: BandMetric,
        support: PixelFeatures,
        bands_QSC: Tensor,
        targets_Q: Tensor,
        text_CE: Tensor,
    ) -> "KernelHead":
        """Solves for the support in closed form; every class weighs the same, however many pixels it has.

        Args:
            statistics: of the encoder's features in the scene.
            metric: of the bands in the scene.
            support: what the encoder says of the labelled pixels.
            bands_QSC: their bands.
            targets_Q: class index of each.
            text_CE: unit class vectors.
        """
        width = text_CE.shape[1]
        head = cls(statistics, metric, torch.zeros(0), torch.zeros(0, width))
        support_QJ = head._join(support, bands_QSC)
        member_QC = (targets_Q[:, None] == torch.arange(len(text_CE))).double()
        count_C = member_QC.sum(dim=0)
        classes = int((count_C > 0).sum())
        ridge_Q = RIDGE * count_C[targets_Q] * classes / len(targets_Q)
        kernel_QQ = _kernel(support_QJ, support_QJ).double()
        answers_QC = torch.linalg.solve(kernel_QQ + torch.diag(ridge_Q), member_QC)
        from_text_EC = torch.linalg.pinv(text_CE.double())
        head.support_QJ = support_QJ
        head.answers_QE = (answers_QC @ from_text_EC.T).float()
        # a class without shots is farther than any other
        head.offset_E = (from_text_EC @ -(count_C == 0).double()).float()
        return head

    def forward(self, features: PixelFeatures, bands_PSC: Tensor, text_CE: Tensor) -> Tensor:
        """Cosines (P, C) of pixels and unit class vectors."""
        projected_PE = _kernel(self._join(features, bands_PSC), self.support_QJ) @ self.answers_QE + self.offset_E
        cosines_PC: Tensor = normalize(projected_PE, dim=-1) @ text_CE.T
        return cosines_PC

    def _join(self, features: PixelFeatures, bands_PSC: Tensor) -> Tensor:
        standard_PMF = (features.values_PMF - self.mean_MF) / self.deviation_MF
        said_PMF = normalize(standard_PMF, dim=-1) * features.present_PM[..., None]
        said_PMF = said_PMF / features.present_PM.sum(dim=1).clamp_min(1).sqrt()[:, None, None]
        metric = BandMetric(self.band_mean_SC, self.band_projection_SCK, self.band_weight_SC)
        seen_PSK = normalize(metric.components(bands_PSC), dim=-1)
        parts = (said_PMF, seen_PSK, metric.weighted(bands_PSC))
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def _kernel(one_PJ: Tensor, other_QJ: Tensor) -> Tensor:
    return torch.exp(
        -KERNEL_SHARPNESS * torch.cdist(one_PJ, other_QJ, compute_mode="donot_use_mm_for_euclid_dist").square()
    )
