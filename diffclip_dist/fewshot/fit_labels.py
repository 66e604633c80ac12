"""A classifier from every label of a scene, none held back."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from diffclip_dist.feature_extraction.encoder_source import NamedEncoder
from diffclip_dist.feature_extraction.scene_view import view_scene
from diffclip_dist.fewshot.class_text import ClassText, build_text
from diffclip_dist.fewshot.classifier import Classifier, MappedClass, classifier_config
from diffclip_dist.fewshot.episodes import LabelMap, Pixels
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitting import Support, fit_classifiers
from shards.archive.archive import Scene
from shards.errors import BadInput
from shards.preview.class_colours import class_colours

ALL_LABELS: Final = "all labels"


def fit_to_labels(
    scene: Scene,
    encoder: NamedEncoder,
    labels: LabelMap,
    class_names: Mapping[int, str],
    descriptions: Mapping[int, str],
    text: str,
    config: FewshotConfig,
    seed: int,
    id_shift: int = 0,
) -> Classifier:
    """Fits a classifier to all labelled pixels that have data.

    Args:
        scene: the scene, in memory.
        encoder: fitted to the scene.
        labels: class ids (row, col), 0 where unlabelled.
        class_names: names of the classes, for the text; a class without one is called ``class 7``.
        descriptions: longer texts of the classes that have one.
        text: kind of text, as `build_text` takes it.
        config: the head, and how it is fitted.
        seed: of the text's first weights and of the views of a cosine head.
        id_shift: class id minus the user's, see `MappedClass`.

    Raises:
        BadInput: no labelled pixel has data, or the text does not fit the classes.
    """
    view = view_scene(scene, scene.record.modalities, encoder.encoder, config)
    rows, cols = np.nonzero(np.where(view.present, labels, 0))
    class_ids, counts = np.unique(labels[rows, cols], return_counts=True)
    if not len(class_ids):
        raise BadInput("labels: expected at least one pixel with a class id of 1 or more where the scene has data")
    names = {int(class_id): class_names.get(int(class_id), f"class {class_id}") for class_id in class_ids}
    texts = [ClassText(name, descriptions.get(class_id)) for class_id, name in names.items()]
    class_text = build_text(text, texts, torch.Generator().manual_seed(seed))
    support = Support.of(Pixels(rows, cols, labels[rows, cols].astype(np.int64)), list(names))
    classifiers, _ = fit_classifiers(encoder.encoder, view, [support], [class_text], [seed], view.present, config)
    colours = class_colours(names)
    classes = [MappedClass(class_id, name, colours[class_id], id_shift) for class_id, name in names.items()]
    kept = classifier_config(
        scene.record, encoder, classes, shots=int(counts.max()), seed=seed, protocol=ALL_LABELS, text=class_text.label,
        fewshot=config, calibration=classifiers[0].calibration,
    )  # fmt: skip
    return Classifier(kept, classifiers[0])
