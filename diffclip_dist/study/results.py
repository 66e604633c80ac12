"""A study as JSON: figures, and the pixels that were chosen."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from diffclip_dist.feature_extraction.bands_only import window_side
from diffclip_dist.fewshot.calibration import CalibrationTest, Reliability
from diffclip_dist.fewshot.metrics import PERCENT, summarise
from diffclip_dist.study.study import Study


def results(study: Study) -> dict[str, Any]:
    """What results.json holds: OA, AA and accuracy per class in percent, kappa from -1 to 1.

    Each figure has ``mean``, ``std`` (sample), ``ci95`` ([low, high] of the mean, within the figure's
    range, see `mean_interval`) and ``per_seed``; what needs two seeds and has one is null.
    """
    record = study.scene.record
    return {
        "scene": record.name,
        "generated": record.generated,
        "protocol": study.task.protocol,
        "text": study.outcome.text_label,
        "text_entries": study.outcome.text_entries,
        "encoder": study.encoder.label,
        "encoder_training": asdict(study.encoder.training),
        "model": "last step; no label outside the shots chose anything",
        "quick": study.quick,
        "seeds": list(range(study.task.seeds)),
        "settings": asdict(study.config),
        "window": window_side(study.encoder.encoder),
        "modalities": [schema.name for schema in study.encoder.encoder.modalities],
        "classes": {str(known.user_id): known.name for known in study.classes},
        "shots": {str(shots): _of_shots(study, shots) for shots in study.task.shots},
        "notes": list(study.notes),
        "seconds": round(study.seconds, 1),
    }


def _of_shots(study: Study, shots: int) -> dict[str, Any]:
    runs = study.outcome.of_shots(shots)
    figures: dict[str, Any] = {name: asdict(summary) for name, summary in study.summaries(shots).items()}
    figures["per_class"] = {name: asdict(summary) for name, summary in study.per_class(shots).items()}
    figures["confusion"] = np.sum([run.scores.confusion for run in runs], axis=0).tolist()
    figures["calibration"] = _calibration([run.calibration for run in runs if run.calibration is not None])
    figures["support_pixels"] = [len(run.episode.support) for run in runs]
    figures["query_pixels"] = [len(run.episode.query) for run in runs]
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
    bins = [
        {"pixels": pixels, "confidence_percent": 100.0 * said / pixels, "accuracy_percent": 100.0 * right / pixels}
        for pixels, said, right in zip(pooled.pixels, pooled.confidence_sum, pooled.correct, strict=True)
        if pixels
    ]
    return {
        "temperature": [test.calibration.temperature for test in tests],
        "held_out_pixels": [test.calibration.held_out_pixels for test in tests],
        "query_pixels": [sum(test.after.pixels) for test in tests],
        **{name: asdict(summarise(values, PERCENT)) for name, values in errors.items()},
        "bins": bins,
    }


def supports(study: Study) -> dict[str, Any]:
    """What supports.json holds: shots, then seed, then class name, to [row, col] of each labelled pixel used."""
    names = {known.class_id: known.name for known in study.classes}
    chosen: dict[str, dict[str, dict[str, list[list[int]]]]] = {}
    for run in study.outcome.runs:
        support = run.episode.support
        by_class: dict[str, list[list[int]]] = {name: [] for name in names.values()}
        for row, col, class_id in zip(support.rows, support.cols, support.class_ids, strict=True):
            by_class[names[int(class_id)]].append([int(row), int(col)])
        chosen.setdefault(str(run.episode.shots), {})[str(run.episode.seed)] = by_class
    return {"scene": study.scene.record.name, "protocol": study.task.protocol, "shots": chosen}
