"""A study as JSON: figures, and the pixels that were chosen."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from diffclip_dist.feature_extraction.bands_only import window_side
from diffclip_dist.fewshot.calibration import CalibrationTest, Reliability
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.metrics import PERCENT, Summary, summarise
from diffclip_dist.study.fit_study import FitStudy
from diffclip_dist.study.names_report import matched_names, names_of_classifiers, names_of_shots
from diffclip_dist.study.study import Study


def results(study: Study | FitStudy) -> dict[str, Any]:
    """What results.json holds: OA, AA and accuracy per class in percent, kappa from -1 to 1.

    Each figure has ``mean``, ``std`` (sample), ``ci95`` ([low, high] of the mean, within the figure's range) and
    ``per_seed``, or ``per_fold`` for all labels; what needs two seeds and has one is null. Over seeds ``ci95`` is
    Student's t on the logit scale (`mean_interval`), by cross-validation it is Wilson's (`CrossValidation`).
    """
    record = study.scene.record
    common = {
        "scene": record.name,
        "generated": record.generated,
        "protocol": study.protocol,
        "text": study.text_label,
        "text_entries": study.text_entries,
        "names": None if study.told is None else matched_names(study.told.names.matches),
        "encoder": study.encoder.label,
        "encoder_training": asdict(study.encoder.training),
        "model": study.how,
        "quick": study.quick,
        "settings": asdict(study.config),
        "window": window_side(study.encoder.encoder),
        "modalities": [schema.name for schema in study.encoder.encoder.modalities],
        "classes": {str(known.user_id): known.name for known in study.classes},
        "notes": list(study.notes),
        "seconds": round(study.seconds, 1),
    }
    if isinstance(study, FitStudy):
        return {**common, "seed": study.labelled.seed, "shots": {}, "all_labels": _of_all_labels(study)}
    return {
        **common,
        "seeds": list(range(study.task.seeds)),
        "shots": {str(shots): _of_shots(study, shots) for shots in study.task.shots},
    }


def _of_all_labels(study: FitStudy) -> dict[str, Any]:
    """How many labels there were, and the figures by cross-validation over them."""
    validation, labelled = study.validation, study.labelled
    figures: dict[str, Any] = {name: _by_fold(summary) for name, summary in study.figures.items()}
    figures["per_class"] = {name: _by_fold(summary) for name, summary in study.per_class.items()}
    return {
        "names": names_of_classifiers([study.classifier.fitted]),
        "labels": {known.name: labelled.given.get(known.class_id, 0) for known in study.classes},
        "learned_from": _count_classes(labelled.learned, study),
        "figures": validation.folds.describe(),
        "folds": len(validation.folds.folds),
        "fold_kind": validation.folds.kind,
        "tested": _count_classes(validation.tested, study),
        **figures,
        "confusion": validation.by_fold.sum(axis=0).tolist(),
        "calibration": {
            "temperature": study.classifier.fitted.calibration.temperature,
            "held_out_pixels": study.classifier.fitted.calibration.held_out_pixels,
            "ece": validation.reliability.expected_calibration_error,
            "bins": _bins(validation.reliability),
        },
    }


def _by_fold(summary: Summary) -> dict[str, Any]:
    figure = asdict(summary)
    figure["per_fold"] = figure.pop("per_seed")
    return figure


def _count_classes(pixels: Pixels, study: FitStudy) -> dict[str, int]:
    """Labels of each class by name."""
    return {known.name: int(np.count_nonzero(pixels.class_ids == known.class_id)) for known in study.classes}


def _of_shots(study: Study, shots: int) -> dict[str, Any]:
    runs = study.outcome.of_shots(shots)
    figures: dict[str, Any] = {name: asdict(summary) for name, summary in study.summaries(shots).items()}
    figures["per_class"] = {name: asdict(summary) for name, summary in study.per_class(shots).items()}
    figures["confusion"] = np.sum([run.scores.confusion for run in runs], axis=0).tolist()
    figures["calibration"] = _calibration([run.calibration for run in runs if run.calibration is not None])
    figures["names"] = names_of_shots(runs)
    figures["support_pixels"] = [len(run.episode.support) for run in runs]
    figures["query_pixels"] = [len(run.predicted) for run in runs]
    return figures


def _calibration(tests: Sequence[CalibrationTest]) -> dict[str, Any] | None:
    """How well probabilities hold on query pixels; None for cosine heads, which are not calibrated.

    ``ece_before`` and ``ece_after`` are expected calibration errors in percent, without and with the temperature;
    ``bins`` has, for equal bins of confidence over all seeds, what was said and what was right with the temperature.
    """
    if not tests:
        return None
    pooled = Reliability.joined([test.after for test in tests])
    errors = {
        "ece_before": [test.before.expected_calibration_error for test in tests],
        "ece_after": [test.after.expected_calibration_error for test in tests],
    }
    return {
        "temperature": [test.calibration.temperature for test in tests],
        "held_out_pixels": [test.calibration.held_out_pixels for test in tests],
        "query_pixels": [sum(test.after.pixels) for test in tests],
        **{name: asdict(summarise(values, PERCENT)) for name, values in errors.items()},
        "bins": _bins(pooled),
    }


def _bins(reliability: Reliability) -> list[dict[str, float]]:
    """What was said and what was right, for each bin of confidence that has pixels."""
    counts = zip(reliability.pixels, reliability.confidence_sum, reliability.correct, strict=True)
    return [
        {"pixels": pixels, "confidence_percent": 100.0 * said / pixels, "accuracy_percent": 100.0 * right / pixels}
        for pixels, said, right in counts
        if pixels
    ]


def supports(study: Study | FitStudy) -> dict[str, Any]:
    """What supports.json holds: shots, then seed, then class name, to [row, col] of each labelled pixel used.

    For a classifier from all labels: class name to [row, col] of each.
    """
    scene = {"scene": study.scene.record.name, "protocol": study.protocol}
    if isinstance(study, FitStudy):
        return {**scene, "all_labels": _places(study.labelled.learned, study)}
    chosen: dict[str, dict[str, dict[str, list[list[int]]]]] = {}
    for run in study.outcome.runs:
        by_seed = chosen.setdefault(str(run.episode.shots), {})
        by_seed[str(run.episode.seed)] = _places(run.episode.support, study)
    return {**scene, "shots": chosen}


def _places(pixels: Pixels, study: Study | FitStudy) -> dict[str, list[list[int]]]:
    """Class name to [row, col] of each of its pixels."""
    names = {known.class_id: known.name for known in study.classes}
    by_class: dict[str, list[list[int]]] = {name: [] for name in names.values()}
    for row, col, class_id in zip(pixels.rows, pixels.cols, pixels.class_ids, strict=True):
        by_class[names[int(class_id)]].append([int(row), int(col)])
    return by_class
