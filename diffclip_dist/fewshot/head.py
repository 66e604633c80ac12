"""From what the encoder says of a pixel to its class: read-out, projection and cosine under a learnable scale.

Shapes: P pixels, M modalities, N tokens of a window, D encoder width, F read-out width, J joined width, E text width,
C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.fewshot.config import Readout
from diffclip_dist.model.encoder import WindowFeatures

# CLIP's temperature at the start of training, 14.3 as a factor
INITIAL_LOG_SCALE = math.log(1 / 0.07)
# Standard deviations of features are kept above this, so that a feature that never varies stays near 0
LEAST_DEVIATION = 1e-4


@dataclass(frozen=True)
class PixelFeatures:
    """What the encoder says of pixels.

    Attributes:
        values_PMF: float32, a row a modality.
        present_PM: bool, whether the modality has data there.
    """

    values_PMF: Tensor
    present_PM: Tensor

    @classmethod
    def joined(cls, parts: Sequence["PixelFeatures"]) -> "PixelFeatures":
        """The pixels of all parts, in their order."""
        return cls(torch.cat([part.values_PMF for part in parts]), torch.cat([part.present_PM for part in parts]))


def read_out(features: WindowFeatures, windows_P: Tensor, tokens_P: Tensor, readout: Readout) -> PixelFeatures:
    """Reads pixels out of windows.

    Args:
        features: of the windows.
        windows_P: int64, which of the windows each pixel is read from.
        tokens_P: int64, which token of that window it is.
        readout: class token of the window, the pixel's own token, or both side by side.

    Returns:
        For ``class`` a modality is present where it has data anywhere in the window; for the others, where it has data
        at the pixel.
    """
    class_PMD = features.class_BMD[windows_P]
    if readout == "class":
        return PixelFeatures(class_PMD, features.valid_BMN.any(dim=2)[windows_P])
    pixel_PMD = features.tokens_BMND[windows_P, :, tokens_P]
    present_PM = features.valid_BMN[windows_P, :, tokens_P]
    values_PMF = pixel_PMD if readout == "pixel" else torch.cat([class_PMD, pixel_PMD], dim=2)
    return PixelFeatures(values_PMF, present_PM)


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and standard deviation (M, F) of features over pixels of a scene."""

    mean_MF: Tensor
    deviation_MF: Tensor

    @classmethod
    def of(cls, features: PixelFeatures) -> "FeatureStatistics":
        """Over the pixels where each modality has data."""
        count_M1 = features.present_PM.sum(dim=0).clamp_min(1)[:, None]
        weight_PM1 = features.present_PM[..., None]
        mean_MF = (features.values_PMF * weight_PM1).sum(dim=0) / count_M1
        variance_MF = ((features.values_PMF - mean_MF).square() * weight_PM1).sum(dim=0) / count_M1
        return cls(mean_MF, variance_MF.sqrt().clamp_min(LEAST_DEVIATION))


class Head(nn.Module):
    """Standardises a pixel's features, joins the modalities to one direction and projects it to the text width.

    A modality without data contributes nothing; the direction is then that of the others.
    """

    def __init__(self, statistics: FeatureStatistics, text_width: int) -> None:
        super().__init__()
        self.mean_MF: Tensor
        self.deviation_MF: Tensor
        self.register_buffer("mean_MF", statistics.mean_MF)
        self.register_buffer("deviation_MF", statistics.deviation_MF)
        self.projection_MFE = nn.Parameter(torch.zeros(*statistics.mean_MF.shape, text_width))
        self.offset_E = nn.Parameter(torch.zeros(text_width))
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))

    def start_from(self, support: PixelFeatures, targets_P: Tensor, text_CE: Tensor) -> None:
        """Sets the projection so that the nearest text is the text of the class with the nearest mean.

        Learning starts from there: from random weights it ends in a worse place, for the shots are few.

        Args:
            support: labelled pixels.
            targets_P: class index of each.
            text_CE: unit class vectors, C at most E of them linearly independent.
        """
        with torch.no_grad():
            joined_PJ = self._join(support)
            member_CP = (targets_P[None, :] == torch.arange(len(text_CE))[:, None]).float()
            mean_CJ = member_CP @ joined_PJ / member_CP.sum(dim=1, keepdim=True).clamp_min(1)
            # |x - m|^2 is least where x.m - |m|^2 / 2 is greatest; a class without shots is farther than any other
            level_C = torch.where(member_CP.any(dim=1), -mean_CJ.square().sum(dim=1) / 2, -1.0)
            from_text_EC = torch.linalg.pinv(text_CE)
            self.projection_MFE.copy_((from_text_EC @ mean_CJ).T.view_as(self.projection_MFE))
            self.offset_E.copy_(from_text_EC @ level_C)

    def forward(self, features: PixelFeatures, text_CE: Tensor) -> Tensor:
        """Scaled cosines (P, C) of pixels and unit class vectors (DiffCLIP, stage 2)."""
        projected_PE = self._join(features) @ self.projection_MFE.flatten(0, 1) + self.offset_E
        logits_PC: Tensor = self.log_scale.exp() * normalize(projected_PE, dim=-1) @ text_CE.T
        return logits_PC

    def _join(self, features: PixelFeatures) -> Tensor:
        """Unit vectors (P, J = M * F); 0 where no modality has data."""
        standard_PMF = (features.values_PMF - self.mean_MF) / self.deviation_MF
        return normalize((standard_PMF * features.present_PM[..., None]).flatten(1), dim=-1)
