"""A study as JSON: figures, and the pixels that were chosen."""

from dataclasses import asdict
from typing import Any

import numpy as np

from diffclip_dist.feature_extraction.bands_only import window_side
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
    figures["support_pixels"] = [len(run.episode.support) for run in runs]
    figures["query_pixels"] = [len(run.episode.query) for run in runs]
    return figures


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
