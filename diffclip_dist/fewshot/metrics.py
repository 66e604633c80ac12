"""Overall accuracy, average accuracy, kappa and accuracy per class, and what they are worth over several seeds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95


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
    confusion: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Summary:
    """A figure over seeds.

    Attributes:
        mean: over the seeds that have the figure; None where none has.
        std: sample standard deviation; None below two seeds.
        ci95: lower and upper end of the 95 % interval of the mean (Student's t); None below two seeds.
        per_seed: the figure of each seed, None where it has none.
    """

    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    per_seed: tuple[float | None, ...]


def score(true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> Scores:
    """Scores predictions.

    Args:
        true: class index of each query pixel (pixel), 0 to classes - 1; at least one pixel.
        predicted: the same for the predictions.
        classes: number of classes.
    """
    confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
    total = confusion.sum()
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


def summarise(per_seed: list[float]) -> Summary:
    """Mean, standard deviation and 95 % interval of a figure over seeds; NaN marks a seed without it."""
    listed = tuple(None if np.isnan(value) else float(value) for value in per_seed)
    values = np.array([value for value in listed if value is not None])
    if len(values) == 0:
        return Summary(None, None, None, listed)
    mean = float(values.mean())
    if len(values) == 1:
        return Summary(mean, None, None, listed)
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * std / float(np.sqrt(len(values)))
    return Summary(mean, std, (mean - half, mean + half), listed)
