"""A classifier that a study keeps, with all that its report shows of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffclip_dist.fewshot.calibration import Reliability
from diffclip_dist.fewshot.classifier import Classifier
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.metrics import Summary
from diffclip_dist.mapping.predict import ClassMap, MapJob


@dataclass(frozen=True)
class KeptCalibration:
    """How well probabilities hold on tested pixels.

    Attributes:
        reliability: confidence and accuracy over all tests.
        error: expected calibration error, percent.
    """

    reliability: Reliability
    error: Summary


@dataclass(frozen=True)
class KeptClassifier:
    """A classifier and its figures.

    Attributes:
        name: what it learned from, in a table, such as ``2 shots``.
        title: the same in a sentence, such as ``2 labelled pixels a class``.
        file_key: part of the names of its files, such as ``2shot``.
        model_folder: where it is kept.
        classifier: what is kept.
        learned: the labelled pixels that it was fitted to.
        tested: labelled pixels that were classified without learning from them.
        right: of each tested pixel, whether its class was found.
        figures: ``oa`` and ``aa`` in percent, ``kappa``.
        per_class: accuracy of each class in percent, by name.
        confusion: tested pixels (true class, predicted class).
        calibration: of its probabilities; None where they are not calibrated.
        names: how class names did, see `names_of_shots`; None where they do not act.
        class_map: class ids (row, col), 0 where there is none, or the map to be computed; None where none is made.
    """

    name: str
    title: str
    file_key: str
    model_folder: str
    classifier: Classifier
    learned: Pixels
    tested: Pixels
    right: npt.NDArray[np.bool_]
    figures: Mapping[str, Summary]
    per_class: Mapping[str, Summary]
    confusion: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    calibration: KeptCalibration | None
    names: Mapping[str, Any] | None
    class_map: ClassMap | MapJob | None
