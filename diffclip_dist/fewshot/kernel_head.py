"""A head that needs no steps: kernel ridge regression from a pixel's descriptions to the text of its class.

A scene is described in several ways, and what counts as near may be more or less. Each way has a regression with a
narrow kernel, a medium and a wide one, and they are weighed by how well each tells the classes of labelled pixels that
it has not seen, so that nothing but the shots chooses.

Shapes: S ways of describing a pixel, G kernels (every way's narrow one first, then its wider ones), P pixels, Q support
pixels, K width of a description, E text width, C classes.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.feature_extraction.extractor import FeatureExtractor
from diffclip_dist.fewshot.class_priors import SCORE_SHARPNESS, class_discriminant, prior_scores

# All chosen on generated scenes, at 1 to 20 shots.
KERNEL_WIDTHS: Final = (1.0, 2.0, 4.0)  # in the scene's own spread
RIDGE: Final = 0.01
# How much the likelihoods of held-out shots count, for they are few and not independent
HELD_OUT_TRUST: Final = 0.3
FIRST_WAY: Final = 2.0  # log of how much likelier the first way of describing is than another, before any shot
LEAST_WEIGHT: Final = 0.01  # of a kernel: what counts for less is left out, and a map made the sooner
MOST_PIXELS: Final = 20_000  # of a scene, that its classes are worked out from


class KernelHead(nn.Module):
    """Gaussian kernels from descriptions to each support pixel's, then to the text width.

    Attributes:
        extractor: what its descriptions come from.
        support_SQK: descriptions of the support.
        variance_S: mean squared distance of the scene's descriptions from their mean; the kernels' unit.
        weight_G: what each kernel counts for, summing to 1.
        dual_coef_GQE: what each support pixel adds.
        direction_KE: what the first description adds, in proportion.
        offset_E: what is said far from all of them.
    """

    support_SQK: Tensor
    variance_S: Tensor
    weight_G: Tensor
    dual_coef_GQE: Tensor
    direction_KE: Tensor
    offset_E: Tensor

    def __init__(
        self,
        extractor: FeatureExtractor,
        support_SQK: Tensor,
        variance_S: Tensor,
        weight_G: Tensor,
        dual_coef_GQE: Tensor,
        direction_KE: Tensor,
        offset_E: Tensor,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.register_buffer("support_SQK", support_SQK)
        self.register_buffer("variance_S", variance_S)
        self.register_buffer("weight_G", weight_G)
        self.register_buffer("dual_coef_GQE", dual_coef_GQE)
        self.register_buffer("direction_KE", direction_KE)
        self.register_buffer("offset_E", offset_E)

    @classmethod
    def fit(
        cls, extractor: FeatureExtractor, scene_SPK: Tensor, support_SQK: Tensor, targets_Q: Tensor, text_CE: Tensor
    ) -> "KernelHead":
        """Solves for the support in closed form; every class weighs the same, however many pixels it has.

        Args:
            extractor: what the descriptions come from.
            scene_SPK: descriptions of the scene's pixels, at least one.
            support_SQK: descriptions of the labelled pixels.
            targets_Q: class index of each.
            text_CE: unit class vectors.
        """
        variance_S = (scene_SPK - scene_SPK.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).clamp_min(1e-12)
        member_QC = (targets_Q[:, None] == torch.arange(len(text_CE))).double()
        count_C = member_QC.sum(dim=0)
        classes = int((count_C > 0).sum())
        ridge_Q = RIDGE * count_C[targets_Q] * classes / len(targets_Q)
        # a class without shots is farther than any other
        level_C = -(count_C == 0).double()
        each_G = torch.ones(len(variance_S) * len(KERNEL_WIDTHS))
        kernels = _kernels(support_SQK, support_SQK, variance_S, each_G)
        held_out_GQC = torch.stack([_held_out(kernel_QQ.double(), member_QC, ridge_Q) for _, kernel_QQ in kernels])
        said_GQ = torch.log_softmax(SCORE_SHARPNESS * (held_out_GQC + level_C), dim=2)[:, member_QC.bool()]
        # of a class's only shot nothing is left to tell it by
        found_G = HELD_OUT_TRUST * said_GQ[:, count_C[targets_Q] > 1].sum(dim=1)
        found_G[: len(KERNEL_WIDTHS)] += FIRST_WAY
        weight_G = torch.softmax(found_G, dim=0).float()
        weight_G = torch.where(weight_G < LEAST_WEIGHT, 0.0, weight_G)
        weight_G /= weight_G.sum()
        dual_coef_GQC = torch.zeros(len(weight_G), *member_QC.shape, dtype=torch.float64)
        # one after the other: a batch is factorised by several threads at once, and MKL then waits for ever
        for number, kernel_QQ in _kernels(support_SQK, support_SQK, variance_S, weight_G):
            ridged_QQ = kernel_QQ.double() + torch.diag(ridge_Q)
            dual_coef_GQC[number] = torch.linalg.solve(ridged_QQ, member_QC)
        from_text_EC = torch.linalg.pinv(text_CE.double())
        dual_coef_GQE = (dual_coef_GQC @ from_text_EC.T).float()
        direction_KE = torch.zeros(support_SQK.shape[2], len(from_text_EC))
        offset_E = (from_text_EC @ level_C).float()
        return cls(extractor, support_SQK, variance_S, weight_G, dual_coef_GQE, direction_KE, offset_E)

    def adapted(
        self, scene_SPK: Tensor, seen_C: Tensor, text_CE: Tensor, *, class_priors: bool, class_means: bool
    ) -> "KernelHead":
        """This head with what the scene's unlabelled pixels say of its classes.

        Args:
            scene_SPK: descriptions of the scene's pixels, at least one.
            seen_C: bool, which classes have shots.
            text_CE: unit class vectors.
            class_priors: whether a class's estimated frequency adds to its scores.
            class_means: whether a pixel's distance from the estimated class means adds to its scores.
        """
        spread_SPK = scene_SPK[:, :: -(-scene_SPK.shape[1] // MOST_PIXELS)]
        score_PC = self.scores(spread_SPK, text_CE)
        shots = self.support_SQK.shape[1] / len(text_CE)
        added_C, direction_KC = torch.zeros(len(text_CE)), torch.zeros(scene_SPK.shape[2], len(text_CE))
        if class_priors:
            added_C = prior_scores(score_PC, shots)
        if class_means:
            # the first way of describing has all that is known, with its noise averaged away
            direction_KC, offset_C = class_discriminant(spread_SPK[0], score_PC + added_C, seen_C, shots)
            added_C = added_C + offset_C
        from_text_EC = torch.linalg.pinv(text_CE.double()).float()
        return KernelHead(
            self.extractor, self.support_SQK, self.variance_S, self.weight_G, self.dual_coef_GQE,
            direction_KC @ from_text_EC.T, self.offset_E + from_text_EC @ added_C,
        )  # fmt: skip

    def forward(self, features_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """Cosines (P, C) of pixels and unit class vectors."""
        cosines_PC: Tensor = normalize(self._projected(features_SPK), dim=-1) @ text_CE.T
        return cosines_PC

    def scores(self, features_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """What each class scores (P, C): about 1 for a pixel's own, about 0 for others."""
        scores_PC: Tensor = self._projected(features_SPK) @ text_CE.T
        return scores_PC

    def logits(self, features_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """Log-likelihoods of the classes (P, C), up to a constant a pixel: class priors are estimated by the same."""
        return SCORE_SHARPNESS * self.scores(features_SPK, text_CE)

    def _projected(self, features_SPK: Tensor) -> Tensor:
        projected_PE = features_SPK[0] @ self.direction_KE + self.offset_E
        for number, kernel_PQ in _kernels(features_SPK, self.support_SQK, self.variance_S, self.weight_G):
            projected_PE += kernel_PQ @ (self.weight_G[number] * self.dual_coef_GQE[number])
        return projected_PE


def _kernels(one_SPK: Tensor, other_SQK: Tensor, variance_S: Tensor, weight_G: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each kernel that counts: its number, and the Gaussian (P, Q) of the distance between each two descriptions."""
    weights_SW = weight_G.view(len(variance_S), len(KERNEL_WIDTHS)).tolist()
    for way, weights in enumerate(weights_SW):
        if not any(weights):
            continue
        distance_PQ = torch.cdist(one_SPK[way], other_SQK[way], compute_mode="donot_use_mm_for_euclid_dist").square()
        for number, (width, weight) in enumerate(zip(KERNEL_WIDTHS, weights, strict=True), way * len(KERNEL_WIDTHS)):
            if weight:
                yield number, torch.exp(-distance_PQ / (2 * width**2 * variance_S[way]))


def _held_out(kernel_QQ: Tensor, score_QC: Tensor, ridge_Q: Tensor) -> Tensor:
    """What a regression on all others says of each pixel (Q, C), in closed form (Rasmussen and Williams, eq. 5.12)."""
    inverse_QQ = torch.linalg.inv(kernel_QQ + torch.diag(ridge_Q))
    held_out_QC: Tensor = score_QC - inverse_QQ @ score_QC / inverse_QQ.diagonal()[:, None]
    return held_out_QC
