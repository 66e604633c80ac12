"""Calibration: probabilities that say how often a classifier is right.

A temperature divides the logits before the softmax (Guo et al. 2017, On calibration of modern neural networks). It
changes no class. Scores of few shots are too sure of themselves, and the fewer the shots, the more so. So a temperature
is expected from the number of shots, and fitted to the shots, each predicted by a classifier that did not learn from
it.

Shapes: Q held-out pixels, P pixels, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

# Held-out pixels: with fewer, the temperature is little more than the expected one
LEAST_HELD_OUT: Final = 20
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0
# Chosen on generated scenes, at 2 to 20 shots
EXPECTED_EXCESS: Final = 4.0  # of the temperature over 1, with one shot a class; it falls as 1 / shots
EXPECTED_DEVIATION: Final = 0.3  # of the temperature's logarithm
HELD_OUT_TRUST: Final = 0.3  # weight of the held-out log-likelihoods: shots are few and not independent
# Equal bins of confidence, as Guo et al. take them
BINS: Final = 15


@dataclass(frozen=True)
class Calibration:
    """The temperature of a classifier's probabilities.

    Attributes:
        temperature: what logits are divided by, above 0.
        held_out_pixels: shots that it was fitted to.
    """

    temperature: float = 1.0
    held_out_pixels: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether there were enough held-out shots to fit to."""
        return self.held_out_pixels >= LEAST_HELD_OUT


UNCALIBRATED: Final = Calibration()


def fit_temperature(logits_QC: Tensor, targets_Q: Tensor, shots: float) -> Calibration:
    """The most likely temperature.

    Args:
        logits_QC: of each held-out pixel, by a classifier that did not learn from it; there may be none.
        targets_Q: class index of each.
        shots: labelled pixels a class, above 0.
    """
    expected = math.log(1.0 + EXPECTED_EXCESS / shots)
    logits_QC = logits_QC.double()

    def unlikeliness(log_temperature: float) -> float:
        loss = float(cross_entropy(logits_QC / math.exp(log_temperature), targets_Q, reduction="sum"))
        return HELD_OUT_TRUST * loss + ((log_temperature - expected) / EXPECTED_DEVIATION) ** 2 / 2

    bounds = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    found = minimize_scalar(unlikeliness, bounds=bounds, method="bounded")
    return Calibration(math.exp(float(found.x)), len(targets_Q))


@dataclass(frozen=True)
class Reliability:
    """How confidence and accuracy go together over pixels of known class.

    Attributes:
        pixels: of each bin of confidence, `BINS` equal ones from 0 to 1.
        confidence_sum: of the confidences in each bin.
        correct: pixels of each bin whose class is right.
    """

    pixels: tuple[int, ...]
    confidence_sum: tuple[float, ...]
    correct: tuple[int, ...]

    @classmethod
    def of(cls, confidence_P: npt.NDArray[np.floating], correct_P: npt.NDArray[np.bool_]) -> "Reliability":
        """Over pixels with their confidence, 0 to 1, and whether their class is right."""
        bins_P = np.minimum((confidence_P * BINS).astype(np.int64), BINS - 1)
        return cls(
            tuple(np.bincount(bins_P, minlength=BINS).tolist()),
            tuple(np.bincount(bins_P, confidence_P, minlength=BINS).tolist()),
            tuple(np.bincount(bins_P[correct_P], minlength=BINS).tolist()),
        )

    @classmethod
    def joined(cls, parts: Sequence["Reliability"]) -> "Reliability":
        """Over the pixels of all parts."""
        return cls(
            tuple(map(sum, zip(*(part.pixels for part in parts), strict=True))),
            tuple(map(sum, zip(*(part.confidence_sum for part in parts), strict=True))),
            tuple(map(sum, zip(*(part.correct for part in parts), strict=True))),
        )

    @property
    def expected_calibration_error(self) -> float:
        """Mean difference of confidence and accuracy, weighted by the pixels of each bin, percent."""
        gaps = (abs(said - right) for said, right in zip(self.confidence_sum, self.correct, strict=True))
        return 100.0 * sum(gaps) / max(sum(self.pixels), 1)


@dataclass(frozen=True)
class CalibrationTest:
    """How well the probabilities of a classifier hold on query pixels.

    Attributes:
        calibration: of the classifier.
        before: with logits as they are.
        after: with logits divided by the temperature.
    """

    calibration: Calibration
    before: Reliability
    after: Reliability

    @classmethod
    def of(cls, calibration: Calibration, logits_PC: Tensor, true_P: npt.NDArray[np.int64]) -> "CalibrationTest":
        """On pixels with their logits and the index of their class."""
        correct_P = logits_PC.argmax(dim=1).cpu().numpy() == true_P
        before, after = (
            Reliability.of(torch.softmax(logits_PC / temperature, dim=1).amax(dim=1).cpu().numpy(), correct_P)
            for temperature in (1.0, calibration.temperature)
        )
        return cls(calibration, before, after)
