"""Features of pixels: read out of an encoder's windows, and their statistics over a scene.

Shapes: P pixels, B windows, M modalities, N tokens of a window, D encoder width, F read-out width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffclip_dist.feature_extraction.feature_config import Readout
from diffclip_dist.model.encoder import WindowFeatures

# Lower bound of a feature's standard deviation, so that a constant feature stays near 0
LEAST_DEVIATION = 1e-4


@dataclass(frozen=True)
class PixelFeatures:
    """The encoder's features of pixels.

    Attributes:
        values_PMF: float32, a row a modality.
        present_PM: bool, whether the modality has data there.
    """

    values_PMF: Tensor
    present_PM: Tensor

    def cpu(self) -> "PixelFeatures":
        """The same in the host's memory."""
        return PixelFeatures(self.values_PMF.cpu(), self.present_PM.cpu())

    @classmethod
    def joined(cls, parts: Sequence["PixelFeatures"]) -> "PixelFeatures":
        """The pixels of all parts, in their order."""
        return cls(torch.cat([part.values_PMF for part in parts]), torch.cat([part.present_PM for part in parts]))


def read_out(
    features: WindowFeatures, windows_P: Tensor, tokens_P: Tensor, readout: Readout, wanted_T: Tensor | None = None
) -> PixelFeatures:
    """Reads pixels out of windows.

    Args:
        features: of the windows.
        windows_P: int64, which of the windows each pixel is read from.
        tokens_P: int64, which token of that window it is.
        readout: class token of the window, the pixel's own token, or both side by side.
        wanted_T: int64, ascending, the tokens that the features are of; None where they are of all.

    Returns:
        For ``class`` a modality is present where it has data anywhere in the window; for the others, where it has data
        at the pixel.
    """
    class_PMD = features.class_BMD[windows_P]
    if readout == "class":
        return PixelFeatures(class_PMD, features.valid_BMN.any(dim=2)[windows_P])
    places_P = tokens_P if wanted_T is None else torch.searchsorted(wanted_T, tokens_P)
    pixel_PMD = features.tokens_BMTD[windows_P, :, places_P]
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
