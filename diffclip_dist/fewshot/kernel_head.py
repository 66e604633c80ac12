"""A head that needs no steps: kernel ridge regression from a pixel's description to the text of its class.

Shapes: P pixels, Q support pixels, K width of a description, E text width, C classes.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.fewshot.description import Describer

# Both chosen on the two generated scenes, for 2 and 10 shots
KERNEL_SHARPNESS: Final = 0.5
RIDGE: Final = 0.01
# How class shares are estimated; chosen there for OA at 1 to 10 shots
SHARE_SHARPNESS: Final = 5.0
SHARE_ROUNDS: Final = 3
EQUAL_PART: Final = 0.2  # of pixels, imagined beside those of the scene and spread equally over the classes
EQUAL_SHOTS: Final = 2.0  # shots that weigh as much for equal shares as those at hand for the estimated
MOST_PIXELS: Final = 20_000


class KernelHead(nn.Module):
    """Gaussian kernel from a description to each support pixel's, then to the text width.

    Attributes:
        describer: what its descriptions come from.
    """

    support_QK: Tensor
    answers_QE: Tensor
    offset_E: Tensor

    def __init__(self, describer: Describer, support_QK: Tensor, answers_QE: Tensor, offset_E: Tensor) -> None:
        super().__init__()
        self.describer = describer
        self.register_buffer("support_QK", support_QK)
        self.register_buffer("answers_QE", answers_QE)
        self.register_buffer("offset_E", offset_E)

    @classmethod
    def fitted(cls, describer: Describer, support_QK: Tensor, targets_Q: Tensor, text_CE: Tensor) -> "KernelHead":
        """Solves for the support in closed form; every class weighs the same, however many pixels it has.

        Args:
            describer: what the descriptions come from.
            support_QK: descriptions of the labelled pixels.
            targets_Q: class index of each.
            text_CE: unit class vectors.
        """
        member_QC = (targets_Q[:, None] == torch.arange(len(text_CE))).double()
        count_C = member_QC.sum(dim=0)
        classes = int((count_C > 0).sum())
        ridge_Q = RIDGE * count_C[targets_Q] * classes / len(targets_Q)
        # a class without shots is farther than any other
        level_C = -(count_C == 0).double()
        return cls.through(describer, support_QK, member_QC + level_C, ridge_Q, level_C, text_CE)

    @classmethod
    def through(
        cls,
        describer: Describer,
        support_QK: Tensor,
        score_QC: Tensor,
        ridge_Q: Tensor,
        level_C: Tensor,
        text_CE: Tensor,
    ) -> "KernelHead":
        """The head that gives pixels the scores asked for, as nearly as each one's ridge allows.

        Args:
            describer: what the descriptions come from.
            support_QK: descriptions of the pixels.
            score_QC: float64, what is asked for.
            ridge_Q: float64, how little each is trusted.
            level_C: float64, the scores far from all of them.
            text_CE: unit class vectors.
        """
        kernel_QQ = _kernel(support_QK, support_QK).double()
        answers_QC = torch.linalg.solve(kernel_QQ + torch.diag(ridge_Q), score_QC - level_C)
        from_text_EC = torch.linalg.pinv(text_CE.double())
        offset_E = from_text_EC @ level_C
        return cls(describer, support_QK, (answers_QC @ from_text_EC.T).float(), offset_E.float())

    def with_class_shares(self, described_PK: Tensor, text_CE: Tensor) -> "KernelHead":
        """This head, drawn to the classes that the scene holds much of.

        Shots are as many of each class, and a scene is not: the shares are estimated from its unlabelled pixels by
        expectation maximisation (Saerens et al. 2002), and trusted the more, the more shots there are.

        Args:
            described_PK: descriptions of the scene's pixels, at least one.
            text_CE: unit class vectors.
        """
        spread_PK = described_PK[:: -(-len(described_PK) // MOST_PIXELS)]
        score_PC = self.scores(spread_PK, text_CE)
        likely_PC = torch.softmax(SHARE_SHARPNESS * score_PC, dim=1)
        classes = len(text_CE)
        share_C = torch.full((classes,), 1.0 / classes)
        for _ in range(SHARE_ROUNDS):
            weighted_PC = likely_PC * share_C
            found_C = (weighted_PC / weighted_PC.sum(dim=1, keepdim=True)).mean(dim=0)
            share_C = (found_C + EQUAL_PART / classes) / (1.0 + EQUAL_PART)
        shots = len(self.support_QK) / classes
        shift_C = shots / (shots + EQUAL_SHOTS) * torch.log(share_C * classes) / SHARE_SHARPNESS
        from_text_EC = torch.linalg.pinv(text_CE.double()).float()
        return KernelHead(self.describer, self.support_QK, self.answers_QE, self.offset_E + from_text_EC @ shift_C)

    def forward(self, described_PK: Tensor, text_CE: Tensor) -> Tensor:
        """Cosines (P, C) of pixels and unit class vectors."""
        cosines_PC: Tensor = normalize(self._projected(described_PK), dim=-1) @ text_CE.T
        return cosines_PC

    def scores(self, described_PK: Tensor, text_CE: Tensor) -> Tensor:
        """What each class scores (P, C): about 1 for a pixel's own, about 0 for others."""
        scores_PC: Tensor = self._projected(described_PK) @ text_CE.T
        return scores_PC

    def _projected(self, described_PK: Tensor) -> Tensor:
        return _kernel(described_PK, self.support_QK) @ self.answers_QE + self.offset_E


def _kernel(one_PK: Tensor, other_QK: Tensor) -> Tensor:
    return torch.exp(
        -KERNEL_SHARPNESS * torch.cdist(one_PK, other_QK, compute_mode="donot_use_mm_for_euclid_dist").square()
    )
