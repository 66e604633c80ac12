"""The model card of a classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.encoder_source import BANDS_ONLY
from diffclip_dist.fewshot.classifier import ClassifierConfig
from diffclip_dist.fewshot.metrics import Summary
from diffclip_dist.model.encoder_card import METHOD, describe_training, modality_table
from diffclip_dist.model.model_card import LICENCE_SECTION, plain, table, write_card
from diffclip_dist.model.saved_encoder import Training

# key of a figure: its name, and its type on Hugging Face
_FIGURES: Final = MappingProxyType(
    {
        "oa": ("overall accuracy, %", "accuracy"),
        "aa": ("average accuracy, %", "average_accuracy"),
        "kappa": ("Cohen's kappa", "cohen_kappa"),
    }
)


@dataclass(frozen=True)
class MeasuredFigures:
    """What a study measured of classifiers like the one that is saved.

    Attributes:
        figures: ``oa`` and ``aa`` in percent, ``kappa``.
        per_class: accuracy of each class in percent, by name.
        are: what a figure and its interval are.
        how: how they were come by.
        notes: what a reader of them must know.
    """

    figures: Mapping[str, Summary]
    per_class: Mapping[str, Summary]
    are: str
    how: str
    notes: tuple[str, ...]


def write_classifier_card(
    folder: Path, config: ClassifierConfig, training: Training, measured: MeasuredFigures | None
) -> None:
    """Writes the README.md of a saved classifier into its folder.

    Args:
        folder: the classifier's.
        config: of the classifier.
        training: of its encoder.
        measured: None where nothing was.
    """
    title = f"Land cover of {config.scene}"
    front_matter: dict[str, Any] = {
        "pipeline_tag": "image-segmentation",
        "tags": ["remote-sensing", "land-cover", "few-shot"],
    }
    if measured is not None:
        front_matter["model-index"] = [{"name": title, "results": [_result(config, measured)]}]
    place = "a generated scene, no real place" if config.generated else "a scene"
    learned = (
        f"{config.shots} labelled pixel{'s' * (config.shots > 1)} a class"
        if config.shots
        else "the names of its classes alone"
    )
    encoder = (
        "It has no encoder and reads bands alone." if config.encoder == BANDS_ONLY else describe_training(training)
    )
    names = [(known.user_id, known.name) for known in config.classes]
    sections = {
        "What it is": (
            f"A classifier of the pixels of co-registered scenes into {len(config.classes)} classes. Method: {METHOD}, "
            f"with {config.fewshot.head} head.\n\n{table(('Id', 'Class'), names)}"
        ),
        "Data": (
            f"Fitted in {plain(config.scene)}, {place}, to {learned} (on average; drawn by protocol {config.protocol}, "
            f"seed {config.seed}). Text of the classes: {plain(config.text)}. It reads:\n\n"
            f"{modality_table(tuple(ModalitySchema.of(modality) for modality in config.modalities))}\n\n"
            f"Its encoder: {encoder}"
        ),
        "Metrics": "None was measured when it was saved." if measured is None else _metrics(measured),
        "Intended use": (
            "Maps of land cover, of its own scene or of scenes of the same sensor, units and classes, looked at by "
            "someone who knows the place."
        ),
        "Limits": (
            "Every pixel gets one of the classes above, whatever lies there. Figures are of the scene named here; "
            "other places and seasons differ. "
            + (
                f"Its probabilities are calibrated on {config.calibration.held_out_pixels} held-out labels."
                if config.calibration.calibrated
                else "Its probabilities are not calibrated: they rank pixels and are no frequencies."
            )
        ),
        "Licence": LICENCE_SECTION,
        "How to load it": (
            "`config.json`, `model.safetensors` and `encoder/` are read; no code and no pickle is.\n\n"
            "    diffclip predict --model FOLDER --archive ARCHIVE --scene SCENE --out map.tif\n\n"
            "```python\nimport diffclip_dist as dc\n\n"
            'classifier = dc.FewShotClassifier.load("FOLDER")\n'
            'class_map = classifier.predict(dc.open_archive("ARCHIVE")["SCENE"])\n```'
        ),
    }
    write_card(folder, front_matter, title, sections)


def _result(config: ClassifierConfig, measured: MeasuredFigures) -> dict[str, Any]:
    """The figures as Hugging Face's model index has them."""
    metrics = [
        {"type": _FIGURES[key][1], "name": _FIGURES[key][0], "value": round(summary.mean, 3)}
        for key, summary in measured.figures.items()
        if summary.mean is not None
    ]
    return {
        "task": {"type": "image-segmentation", "name": "land cover"},
        "dataset": {"type": config.scene, "name": f"{config.scene}{' (generated)' * config.generated}"},
        "metrics": metrics,
    }


def _metrics(measured: MeasuredFigures) -> str:
    rows = [(_FIGURES[key][0], *_cells(summary)) for key, summary in measured.figures.items()]
    rows += [(f"accuracy of {name}, %", *_cells(summary)) for name, summary in measured.per_class.items()]
    notes = "".join(f"\n- {plain(note)}" for note in measured.notes)
    return (
        f"{table(('Figure', 'Mean', '95 % interval'), rows)}\n\n"
        f"Figures are {plain(measured.are)}. How: {plain(measured.how)}.\n{notes}".rstrip()
    )


def _cells(summary: Summary) -> tuple[str, str]:
    """Mean and interval."""
    mean = "not tested" if summary.mean is None else f"{summary.mean:.2f}"
    return mean, "" if summary.ci95 is None else f"{summary.ci95[0]:.2f} to {summary.ci95[1]:.2f}"
