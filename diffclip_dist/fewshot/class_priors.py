"""Class priors and class means, estimated from a scene's unlabelled pixels.

Both come from expectation maximisation that starts at the scores of a head fitted to the shots alone. Both add to those
scores.

Shapes: P pixels, K feature width, C classes.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

# All chosen on generated scenes, at 1 to 20 shots.
SCORE_SHARPNESS: Final = 5.0  # scores to log-likelihoods
PRIOR_ROUNDS: Final = 3
UNIFORM_PRIOR_WEIGHT: Final = 0.2  # of a uniform prior, beside 1 for the scene's pixels
UNIFORM_PRIOR_SHOTS: Final = 2.0  # with so many shots, the estimated prior counts half
MEAN_ROUNDS: Final = 6
MEMBER_SHARPNESS: Final = 10.0  # scores to log-likelihoods of class membership
MEAN_TRUST: Final = 8.0
LEAST_WIDTH: Final = 8  # features of fewer axes count as if they had so many
MEAN_SHOTS: Final = 2.0  # with so many shots, the class means count half of what they do with none
SHRINKAGE: Final = 0.02  # of the covariance within classes, towards a multiple of the identity
# Of the entropy of the classes, the share that scores explain: below the first, nothing is estimated from them; above
# the second, estimates count in full
LEAST_EXPLAINED: Final = 0.4
WELL_EXPLAINED: Final = 0.6


def score_trust(score_PC: Tensor, seen_C: Tensor) -> float:
    """Weight, 0 to 1, of what is estimated from unlabelled pixels that have these scores.

    Estimates start at the scores. Where these hardly tell classes apart, as by heights alone, expectation maximisation
    strengthens their errors. The measure is the mutual information of pixel and class as a share of the entropy of the
    classes (uncertainty coefficient: Theil 1970). `benchmarks/coverage.py` measures what it is for.

    Args:
        score_PC: of the scene's pixels, about 1 for a pixel's own class and about 0 for others.
        seen_C: bool, which classes have shots.
    """
    member_PC = torch.softmax(MEMBER_SHARPNESS * score_PC[:, seen_C], dim=1)
    within = torch.special.entr(member_PC).sum(dim=1).mean()
    whole = torch.special.entr(member_PC.mean(dim=0)).sum().clamp_min(1e-9)
    explained = 1.0 - float(within / whole)
    return min(max((explained - LEAST_EXPLAINED) / (WELL_EXPLAINED - LEAST_EXPLAINED), 0.0), 1.0)


def prior_scores(score_PC: Tensor, shots: float) -> Tensor:
    """What each class's prior adds to its scores (C,).

    Shots are balanced and scenes are not. The priors are the frequencies of the classes among the scene's pixels
    (Saerens et al. 2002, Adjusting the outputs of a classifier to new a priori probabilities). The more shots, the more
    they count.

    Args:
        score_PC: of the scene's pixels, about 1 for a pixel's own class and about 0 for others.
        shots: labelled pixels a class.
    """
    likely_PC = torch.softmax(SCORE_SHARPNESS * score_PC, dim=1)
    classes = score_PC.shape[1]
    prior_C = score_PC.new_full((classes,), 1.0 / classes)
    for _ in range(PRIOR_ROUNDS):
        weighted_PC = likely_PC * prior_C
        found_C = (weighted_PC / weighted_PC.sum(dim=1, keepdim=True)).mean(dim=0)
        prior_C = (found_C + UNIFORM_PRIOR_WEIGHT / classes) / (1.0 + UNIFORM_PRIOR_WEIGHT)
    return shots / (shots + UNIFORM_PRIOR_SHOTS) * torch.log(prior_C * classes) / SCORE_SHARPNESS


class Discriminant(NamedTuple):
    """A linear function of the features that is added to the scores.

    Attributes:
        direction_KC: its slope.
        offset_C: its value at 0.
    """

    direction_KC: Tensor
    offset_C: Tensor


def class_discriminant(
    features_PK: Tensor,
    score_PC: Tensor,
    seen_C: Tensor,
    shots: float,
    trust: float,
    start_PC: Tensor | None = None,
) -> Discriminant:
    """Classes as Gaussians of one covariance, fitted to all of a scene's pixels (linear discriminant analysis by EM).

    The fewer the shots, the less they tell of a class's mean, and the more weight the scene's pixels get.

    Args:
        features_PK: the scene's pixels.
        score_PC: of the same, about 1 for a pixel's own class and about 0 for others.
        seen_C: bool, which classes have shots; to the others nothing is added, and no pixel is counted.
        shots: labelled pixels a class.
        trust: weight, 0 to 1, see `score_trust`.
        start_PC: what is added to the scores in the first round; None adds nothing.
    """
    values_PK, score_PC = features_PK.double(), score_PC[:, seen_C].double()
    mean_K = values_PK.mean(dim=0)
    values_PK = values_PK - mean_K
    pixels, width = values_PK.shape
    weight = trust * MEAN_TRUST / (MEAN_SHOTS + shots) / SCORE_SHARPNESS / max(width, LEAST_WIDTH) ** 0.5
    scatter_KK = values_PK.T @ values_PK / pixels
    even_KK = scatter_KK.diagonal().mean().clamp_min(1e-12) * torch.eye(width, device=values_PK.device)
    added_PC = torch.zeros_like(score_PC) if start_PC is None else start_PC[:, seen_C].double()
    for _ in range(MEAN_ROUNDS):
        member_PC = torch.softmax(MEMBER_SHARPNESS * (score_PC + added_PC), dim=1)
        count_C = member_PC.sum(dim=0).clamp_min(1e-9)
        class_mean_CK = member_PC.T @ values_PK / count_C[:, None]
        within_KK = scatter_KK - (class_mean_CK.T * count_C) @ class_mean_CK / pixels
        towards_KC = torch.linalg.solve((1 - SHRINKAGE) * within_KK + SHRINKAGE * even_KK, class_mean_CK.T)
        halfway_C = (class_mean_CK.T * towards_KC).sum(dim=0) / 2
        found = Discriminant(weight * _less_mean(towards_KC), -weight * _less_mean(halfway_C))
        added_PC = values_PK @ found.direction_KC + found.offset_C
    direction_KC, offset_C = features_PK.new_zeros(width, len(seen_C)), features_PK.new_zeros(len(seen_C))
    direction_KC[:, seen_C] = found.direction_KC.float()
    offset_C[seen_C] = (found.offset_C - mean_K @ found.direction_KC).float()
    return Discriminant(direction_KC, offset_C)


def _less_mean(of_classes: Tensor) -> Tensor:
    """Subtracts the mean over classes, which separates none."""
    return of_classes - of_classes.mean(dim=-1, keepdim=True)
