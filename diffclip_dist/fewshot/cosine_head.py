"""The cosine head: from the features of a pixel to its class, by a projection and a cosine under a learnable scale.

Shapes: P pixels, M modalities, F read-out width, J joined width, E text width, C classes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics, PixelFeatures

# CLIP's temperature at the start of training, 14.3 as a factor
INITIAL_LOG_SCALE = math.log(1 / 0.07)


class CosineHead(nn.Module):
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
            member_CP = (targets_P[None, :] == torch.arange(len(text_CE), device=targets_P.device)[:, None]).float()
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
