"""A head that needs no steps: kernel ridge regression from a pixel's descriptions to the text of its class.

A scene is described in several ways. Each has a regression of its own, and they are weighed by how well each tells the
classes of labelled pixels that it has not seen, so that nothing but the shots chooses.

Shapes: S ways of describing a pixel, P pixels, Q support pixels, K width of a description, E text width, C classes.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.fewshot.description import Describer
from diffclip_dist.fewshot.scene_classes import SCORE_SHARPNESS, class_discriminant, share_scores

# All chosen on generated scenes, at 1 to 20 shots.
KERNEL_WIDTH: Final = 2.0  # in the scene's own spread
RIDGE: Final = 0.01
# How much the likelihoods of held-out shots count, for they are few and not independent
HELD_OUT_TRUST: Final = 0.3
FIRST_WAY: Final = 2.0  # log of how much likelier the first way of describing is than another, before any shot
MOST_PIXELS: Final = 20_000  # of a scene, that its classes are worked out from


class KernelHead(nn.Module):
    """Gaussian kernels from descriptions to each support pixel's, then to the text width.

    Attributes:
        describer: what its descriptions come from.
        support_SQK: descriptions of the support.
        spread_S: mean squared distance of the scene's descriptions from their mean; the kernel's unit.
        weight_S: what each way of describing counts for, summing to 1.
        answers_SQE: what each support pixel adds.
        direction_KE: what the first description adds, in proportion.
        offset_E: what is said far from all of them.
    """

    support_SQK: Tensor
    spread_S: Tensor
    weight_S: Tensor
    answers_SQE: Tensor
    direction_KE: Tensor
    offset_E: Tensor

    def __init__(
        self,
        describer: Describer,
        support_SQK: Tensor,
        spread_S: Tensor,
        weight_S: Tensor,
        answers_SQE: Tensor,
        direction_KE: Tensor,
        offset_E: Tensor,
    ) -> None:
        super().__init__()
        self.describer = describer
        self.register_buffer("support_SQK", support_SQK)
        self.register_buffer("spread_S", spread_S)
        self.register_buffer("weight_S", weight_S)
        self.register_buffer("answers_SQE", answers_SQE)
        self.register_buffer("direction_KE", direction_KE)
        self.register_buffer("offset_E", offset_E)

    @classmethod
    def fitted(
        cls, describer: Describer, scene_SPK: Tensor, support_SQK: Tensor, targets_Q: Tensor, text_CE: Tensor
    ) -> "KernelHead":
        """Solves for the support in closed form; every class weighs the same, however many pixels it has.

        Args:
            describer: what the descriptions come from.
            scene_SPK: descriptions of the scene's pixels, at least one.
            support_SQK: descriptions of the labelled pixels.
            targets_Q: class index of each.
            text_CE: unit class vectors.
        """
        spread_S = (scene_SPK - scene_SPK.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).clamp_min(1e-12)
        member_QC = (targets_Q[:, None] == torch.arange(len(text_CE))).double()
        count_C = member_QC.sum(dim=0)
        classes = int((count_C > 0).sum())
        ridge_Q = RIDGE * count_C[targets_Q] * classes / len(targets_Q)
        # a class without shots is farther than any other
        level_C = -(count_C == 0).double()
        held_out_SQC = _held_out(_kernels(support_SQK, support_SQK, spread_S).double(), member_QC, ridge_Q)
        said_SQ = torch.log_softmax(SCORE_SHARPNESS * (held_out_SQC + level_C), dim=2)[:, member_QC.bool()]
        # of a class's only shot nothing is left to tell it by
        found_S = HELD_OUT_TRUST * said_SQ[:, count_C[targets_Q] > 1].sum(dim=1)
        found_S[0] += FIRST_WAY
        weight_S = torch.softmax(found_S, dim=0).float()
        return cls.through(describer, support_SQK, spread_S, weight_S, member_QC + level_C, ridge_Q, level_C, text_CE)

    @classmethod
    def through(
        cls,
        describer: Describer,
        support_SQK: Tensor,
        spread_S: Tensor,
        weight_S: Tensor,
        score_QC: Tensor,
        ridge_Q: Tensor,
        level_C: Tensor,
        text_CE: Tensor,
    ) -> "KernelHead":
        """The head that gives pixels the scores asked for, as nearly as each one's ridge allows.

        Args:
            describer: what the descriptions come from.
            support_SQK: descriptions of the pixels.
            spread_S: the kernel's unit for each way of describing.
            weight_S: what each way of describing counts for.
            score_QC: float64, what is asked for.
            ridge_Q: float64, how little each is trusted.
            level_C: float64, the scores far from all of them.
            text_CE: unit class vectors.
        """
        ridged_SQQ = _kernels(support_SQK, support_SQK, spread_S).double() + torch.diag(ridge_Q)
        # one after the other: a batch is factorised by several threads at once, and MKL then waits for ever
        answers_SQC = torch.stack([torch.linalg.solve(ridged_QQ, score_QC - level_C) for ridged_QQ in ridged_SQQ])
        from_text_EC = torch.linalg.pinv(text_CE.double())
        answers_SQE = (answers_SQC @ from_text_EC.T).float()
        direction_KE = torch.zeros(support_SQK.shape[2], len(from_text_EC))
        offset_E = (from_text_EC @ level_C).float()
        return cls(describer, support_SQK, spread_S, weight_S, answers_SQE, direction_KE, offset_E)

    def adapted(
        self, scene_SPK: Tensor, seen_C: Tensor, text_CE: Tensor, *, shares: bool, discriminant: bool
    ) -> "KernelHead":
        """This head with what the scene's unlabelled pixels say of its classes.

        Args:
            scene_SPK: descriptions of the scene's pixels, at least one.
            seen_C: bool, which classes have shots.
            text_CE: unit class vectors.
            shares: whether classes count for more, the more frequent they are.
            discriminant: whether pixels count for more, the nearer they lie to a class's middle.
        """
        spread_SPK = scene_SPK[:, :: -(-scene_SPK.shape[1] // MOST_PIXELS)]
        score_PC = self.scores(spread_SPK, text_CE)
        shots = self.support_SQK.shape[1] / len(text_CE)
        added_C, direction_KC = torch.zeros(len(text_CE)), torch.zeros(scene_SPK.shape[2], len(text_CE))
        if shares:
            added_C = share_scores(score_PC, shots)
        if discriminant:
            # the first way of describing has all that is known, with its noise averaged away
            direction_KC, offset_C = class_discriminant(spread_SPK[0], score_PC + added_C, seen_C, shots)
            added_C = added_C + offset_C
        from_text_EC = torch.linalg.pinv(text_CE.double()).float()
        return KernelHead(
            self.describer, self.support_SQK, self.spread_S, self.weight_S, self.answers_SQE,
            direction_KC @ from_text_EC.T, self.offset_E + from_text_EC @ added_C,
        )  # fmt: skip

    def forward(self, described_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """Cosines (P, C) of pixels and unit class vectors."""
        cosines_PC: Tensor = normalize(self._projected(described_SPK), dim=-1) @ text_CE.T
        return cosines_PC

    def scores(self, described_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """What each class scores (P, C): about 1 for a pixel's own, about 0 for others."""
        scores_PC: Tensor = self._projected(described_SPK) @ text_CE.T
        return scores_PC

    def _projected(self, described_SPK: Tensor) -> Tensor:
        added_SPE = _kernels(described_SPK, self.support_SQK, self.spread_S) @ self.answers_SQE
        projected_PE: Tensor = torch.tensordot(self.weight_S, added_SPE, dims=1) + self.offset_E
        projected_PE += described_SPK[0] @ self.direction_KE
        return projected_PE


def _kernels(one_SPK: Tensor, other_SQK: Tensor, spread_S: Tensor) -> Tensor:
    """Gaussian of the distance between each two descriptions (S, P, Q)."""
    distance_SPQ = torch.cdist(one_SPK, other_SQK, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.exp(-distance_SPQ / (2 * KERNEL_WIDTH**2 * spread_S[:, None, None]))


def _held_out(kernel_SQQ: Tensor, score_QC: Tensor, ridge_Q: Tensor) -> Tensor:
    """What a regression on all others says of each pixel (S, Q, C), in closed form (Rasmussen, Williams, eq. 5.12)."""
    # one after the other, as above
    inverse_SQQ = torch.stack([torch.linalg.inv(ridged_QQ) for ridged_QQ in kernel_SQQ + torch.diag(ridge_Q)])
    held_out_SQC: Tensor = score_QC - inverse_SQQ @ score_QC / inverse_SQQ.diagonal(dim1=1, dim2=2)[..., None]
    return held_out_SQC
