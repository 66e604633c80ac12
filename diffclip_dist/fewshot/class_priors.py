"""What a scene's unlabelled pixels say of its classes: how frequent each is, and where its middle lies.

Both are found by expectation maximisation, begun from the scores of a head that has seen the shots alone, and both add
to those scores.

Shapes: P pixels, K width of a description, C classes.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

# All chosen on generated scenes, at 1 to 20 shots.
SCORE_SHARPNESS: Final = 5.0  # scores to log-likelihoods
PRIOR_ROUNDS: Final = 3
UNIFORM_PRIOR_WEIGHT: Final = 0.2  # of pixels, imagined beside those of the scene and spread equally over the classes
UNIFORM_PRIOR_SHOTS: Final = 2.0  # shots that weigh as much for equal shares as those at hand for the estimated
MEAN_ROUNDS: Final = 6
MEMBER_SHARPNESS: Final = 10.0  # scores to log-likelihoods of a pixel's being counted to a class
MEAN_TRUST: Final = 8.0
MEAN_SHOTS: Final = 2.0  # the more shots beyond these, the less the middles count
SHRINKAGE: Final = 0.02  # of the scatter within classes, towards the same in every direction


def prior_scores(score_PC: Tensor, shots: float) -> Tensor:
    """What each class's frequency adds to its scores (C,).

    Shots are as many of each class, and a scene is not: the shares are those of the scene's pixels (Saerens et al.
    2002, Adjusting the outputs of a classifier to new a priori probabilities). More shots make them count for more.

    Args:
        score_PC: of the scene's pixels, about 1 for a pixel's own class and about 0 for others.
        shots: labelled pixels a class.
    """
    likely_PC = torch.softmax(SCORE_SHARPNESS * score_PC, dim=1)
    classes = score_PC.shape[1]
    prior_C = torch.full((classes,), 1.0 / classes)
    for _ in range(PRIOR_ROUNDS):
        weighted_PC = likely_PC * prior_C
        found_C = (weighted_PC / weighted_PC.sum(dim=1, keepdim=True)).mean(dim=0)
        prior_C = (found_C + UNIFORM_PRIOR_WEIGHT / classes) / (1.0 + UNIFORM_PRIOR_WEIGHT)
    return shots / (shots + UNIFORM_PRIOR_SHOTS) * torch.log(prior_C * classes) / SCORE_SHARPNESS


class Discriminant(NamedTuple):
    """Adds to a pixel's scores, the nearer it lies to a class's middle.

    Attributes:
        direction_KC: a description's product with it is added.
        offset_C: added everywhere.
    """

    direction_KC: Tensor
    offset_C: Tensor


def class_discriminant(features_PK: Tensor, score_PC: Tensor, seen_C: Tensor, shots: float) -> Discriminant:
    """Classes as Gaussians of one covariance, fitted to all of a scene's pixels (linear discriminant analysis by EM).

    The fewer the shots, the less they say where the middle of a class lies, and the more the scene's pixels do.

    Args:
        features_PK: the scene's pixels.
        score_PC: of the same, about 1 for a pixel's own class and about 0 for others.
        seen_C: bool, which classes have shots; to the others nothing is added, and no pixel is counted.
        shots: labelled pixels a class.
    """
    values_PK, score_PC = features_PK.double(), score_PC[:, seen_C].double()
    mean_K = values_PK.mean(dim=0)
    values_PK = values_PK - mean_K
    pixels, width = values_PK.shape
    trust = MEAN_TRUST / (MEAN_SHOTS + shots) / SCORE_SHARPNESS / width**0.5
    scatter_KK = values_PK.T @ values_PK / pixels
    even_KK = scatter_KK.diagonal().mean().clamp_min(1e-12) * torch.eye(width)
    found = Discriminant(values_PK.new_zeros(width, score_PC.shape[1]), score_PC.new_zeros(score_PC.shape[1]))
    for _ in range(MEAN_ROUNDS):
        added_PC = values_PK @ found.direction_KC + found.offset_C
        member_PC = torch.softmax(MEMBER_SHARPNESS * (score_PC + added_PC), dim=1)
        count_C = member_PC.sum(dim=0).clamp_min(1e-9)
        class_mean_CK = member_PC.T @ values_PK / count_C[:, None]
        within_KK = scatter_KK - (class_mean_CK.T * count_C) @ class_mean_CK / pixels
        towards_KC = torch.linalg.solve((1 - SHRINKAGE) * within_KK + SHRINKAGE * even_KK, class_mean_CK.T)
        halfway_C = (class_mean_CK.T * towards_KC).sum(dim=0) / 2
        found = Discriminant(trust * _less_mean(towards_KC), -trust * _less_mean(halfway_C))
    direction_KC, offset_C = torch.zeros(width, len(seen_C)), torch.zeros(len(seen_C))
    direction_KC[:, seen_C] = found.direction_KC.float()
    offset_C[seen_C] = (found.offset_C - mean_K @ found.direction_KC).float()
    return Discriminant(direction_KC, offset_C)


def _less_mean(of_classes: Tensor) -> Tensor:
    """What all classes have in common tells none apart."""
    return of_classes - of_classes.mean(dim=-1, keepdim=True)
