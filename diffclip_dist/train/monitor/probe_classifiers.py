"""Two simple classifiers that tell how well features part classes.

Shapes: P pixels (in the classifiers those to fit), Q pixels to test, F features, K classes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS: Final = 10
_TEMPERATURE: Final = 0.07  # of the neighbours' votes, as in Wu et al. 2018
_WEIGHT_PENALTY: Final = 1e-3  # on squared weights, against the mean cross-entropy
_MOST_ITERATIONS: Final = 100
_LEAST_DEVIATION: Final = 1e-4  # of a feature, so that a constant one stays near 0


@dataclass(frozen=True)
class ProbeAccuracy:
    """Overall accuracy on the pixels to test, in percent.

    Attributes:
        knn: by the nearest neighbours among the pixels to fit.
        linear: by a logistic regression on the pixels to fit.
    """

    knn: float
    linear: float


def probe_accuracy(features_PF: Tensor, class_P: Tensor, fits_P: Tensor) -> ProbeAccuracy:
    """Fits both classifiers to a part of the pixels and tests them on the others.

    Args:
        features_PF: of each pixel, on the CPU.
        class_P: int64, class ids.
        fits_P: bool, the pixels to fit.
    """
    fit_PF, test_QF = _standardised(features_PF[fits_P], features_PF[~fits_P])
    number_P = torch.from_numpy(np.unique(class_P.numpy(), return_inverse=True)[1])
    found = (classify(fit_PF, number_P[fits_P], test_QF) for classify in (_neighbour_classes, _linear_classes))
    return ProbeAccuracy(*(100.0 * float((said_Q == number_P[~fits_P]).double().mean()) for said_Q in found))


def _standardised(fit_PF: Tensor, test_QF: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, with mean and deviation of the pixels to fit."""
    fit_PF, test_QF = fit_PF.double(), test_QF.double()
    deviation_F, mean_F = torch.std_mean(fit_PF, dim=0, correction=0)
    deviation_F = deviation_F.clamp_min(_LEAST_DEVIATION)
    return (fit_PF - mean_F) / deviation_F, (test_QF - mean_F) / deviation_F


def _neighbour_classes(fit_PF: Tensor, class_P: Tensor, test_QF: Tensor) -> Tensor:
    """The class (Q,) that the nearest neighbours by cosine vote for, nearer ones with more weight.

    The k-nearest-neighbour evaluation of Wu et al. (2018), Unsupervised feature learning via non-parametric instance
    discrimination.

    Args:
        fit_PF: standardised features.
        class_P: int64, classes counted from 0.
        test_QF: standardised features.
    """
    cosine_QP = F.normalize(test_QF, dim=1) @ F.normalize(fit_PF, dim=1).T
    nearest_QK = cosine_QP.topk(min(NEIGHBOURS, len(fit_PF)), dim=1)
    votes = F.one_hot(class_P)[nearest_QK.indices] * (nearest_QK.values / _TEMPERATURE).exp()[..., None]
    return votes.sum(dim=1).argmax(dim=1)


def _linear_classes(fit_PF: Tensor, class_P: Tensor, test_QF: Tensor) -> Tensor:
    """The class (Q,) by a multinomial logistic regression, the linear probe of Alain and Bengio (2016).

    Args:
        fit_PF: standardised features.
        class_P: int64, classes counted from 0.
        test_QF: standardised features.
    """
    classes = int(class_P.max()) + 1
    weights_FK = torch.zeros(fit_PF.shape[1], classes, dtype=fit_PF.dtype, requires_grad=True)
    bias_K = torch.zeros(classes, dtype=fit_PF.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights_FK, bias_K], max_iter=_MOST_ITERATIONS, line_search_fn="strong_wolfe")

    def penalised_loss() -> float:
        optimiser.zero_grad()
        loss = F.cross_entropy(fit_PF @ weights_FK + bias_K, class_P) + _WEIGHT_PENALTY * weights_FK.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(penalised_loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return (test_QF @ weights_FK + bias_K).argmax(dim=1)
