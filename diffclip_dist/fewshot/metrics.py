"""Overall accuracy, average accuracy, kappa and accuracy per class, and what they are worth over several seeds."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.fewshot.intervals import Interval, mean_interval

# Lowest and highest value of a figure
PERCENT: Final = (0.0, 100.0)
PERCENT_DIFFERENCE: Final = (-100.0, 100.0)
KAPPA: Final = (-1.0, 1.0)


@dataclass(frozen=True)
class Scores:
    """How one classifier did on one set of query pixels.

    Attributes:
        oa: overall accuracy, percent.
        aa: mean over the tested classes of the accuracy per class, percent.
        kappa: Cohen's kappa, -1 to 1.
        per_class: percent a class, NaN for a class without a query pixel.
        confusion: pixels (true class, predicted class).
    """

    oa: float
    aa: float
    kappa: float
    per_class: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """A figure over seeds.

    Attributes:
        mean: over the seeds that have the figure; None where none has.
        std: sample standard deviation; None below two seeds.
        ci95: lower and upper end of the 95 % interval of the mean, see `mean_interval`; None below two seeds.
        per_seed: the figure of each seed, None where it has none.
    """

    mean: float | None
    std: float | None
    ci95: Interval | None
    per_seed: tuple[float | None, ...]


def score(true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> Scores:
    """Scores predictions.

    Args:
        true: class index of each query pixel (pixel), 0 to classes - 1; at least one pixel.
        predicted: the same for the predictions.
        classes: number of classes.
    """
    return score_confusion(np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes))


def score_confusion(confusion: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> Scores:
    """Scores a confusion matrix (true class, predicted class) of at least one pixel; counts may be weighted."""
    total, classes = confusion.sum(), len(confusion)
    in_class = confusion.sum(axis=1)
    per_class = np.full(classes, np.nan)
    np.divide(100.0 * np.diag(confusion), in_class, out=per_class, where=in_class > 0)
    observed = np.trace(confusion) / total
    expected = float(in_class @ confusion.sum(axis=0)) / float(total) ** 2
    # Only one class, all of it right: agreement is full though chance explains it
    kappa = 1.0 if expected == 1.0 else (observed - expected) / (1.0 - expected)
    return Scores(
        oa=100.0 * float(observed),
        aa=float(np.nanmean(per_class)),
        kappa=float(kappa),
        per_class=per_class,
        confusion=confusion,
    )


def summarise(per_seed: list[float], limits: Interval) -> Summary:
    """Mean, standard deviation and 95 % interval of a figure over seeds.

    Args:
        per_seed: the figure of each seed; NaN marks a seed without it.
        limits: lowest and highest value that the figure can have.
    """
    listed = tuple(None if np.isnan(value) else float(value) for value in per_seed)
    values = np.array([value for value in listed if value is not None])
    if len(values) == 0:
        return Summary(None, None, None, listed)
    mean = float(values.mean())
    if len(values) == 1:
        return Summary(mean, None, None, listed)
    std = float(values.std(ddof=1))
    return Summary(mean, std, mean_interval(mean, std, len(values), limits), listed)
