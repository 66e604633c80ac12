"""A classifier of pixels, fitted to shots.

Shapes: C classes, E text width.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.fewshot.calibration import UNCALIBRATED, Calibration
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.names_prior import NamesPrior


@dataclass(frozen=True)
class FittedClassifier:
    """A classifier of pixels.

    Attributes:
        encoder: the given one, unless it was tuned.
        head: fitted to the shots.
        text_CE: unit class vectors.
        by_pattern: classifiers for pixels that have data of some modalities alone. Each one's encoder knows these
            modalities and no others. All other pixels are left to this classifier.
        calibration: of the probabilities, its own and its parts'.
        prior: what class names add, the same for its parts; None where they add nothing.
    """

    encoder: FeatureEncoder
    head: CosineHead | KernelHead
    text_CE: Tensor
    by_pattern: tuple["FittedClassifier", ...] = ()
    calibration: Calibration = UNCALIBRATED
    prior: NamesPrior | None = None

    def logits(self, features_SPK: Tensor, names_PC: Tensor | None) -> Tensor:
        """Log-likelihoods (P, C) by a kernel head and the class names, up to a constant a pixel.

        Args:
            features_SPK: of the pixels.
            names_PC: what the names tell of them; None where there is no prior by names.
        """
        assert isinstance(self.head, KernelHead)
        logits_PC = self.head.logits(features_SPK, self.text_CE)
        if self.prior is None:
            return logits_PC
        assert names_PC is not None
        return self.prior.logits(logits_PC, names_PC.to(logits_PC.device))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it knows."""
        return tuple(schema.name for schema in self.encoder.modalities)

    def to(self, device: torch.device | str) -> "FittedClassifier":
        """The same on another device, where it then reads and classifies scenes; this one stays where it is."""
        return FittedClassifier(
            copy.deepcopy(self.encoder).to(device),
            copy.deepcopy(self.head).to(device),
            self.text_CE.to(device),
            tuple(part.to(device) for part in self.by_pattern),
            self.calibration,
            None if self.prior is None else self.prior.to(device),
        )
