"""More classes for a fitted classifier, by their names alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from diffclip_dist.fewshot.classifier import Classifier, MappedClass
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.names_prior import NamesPrior
from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.materials import MATERIALS
from shards.archive.archive import ReadableScene
from shards.errors import BadInput
from shards.nearest import did_you_mean
from shards.preview.class_colours import class_colours

LARGEST_ID: Final = int(np.iinfo(np.uint16).max)


def with_named_classes(classifier: Classifier, names: Sequence[str], scene: ReadableScene) -> Classifier:
    """The classifier with more classes, which have no shots and are found by what their names tell of pixels.

    Args:
        classifier: one whose class names act.
        names: of the classes to add.
        scene: the scene to classify, with the bands that the classifier knows.

    Raises:
        BadInput: the classifier's names do not act, a class is known already, or a name is far from every caption.
    """
    fitted, known = classifier.fitted, classifier.config.classes
    if fitted.prior is None:
        raise BadInput(
            f"--also {','.join(names)}: expected a classifier whose class names act, as fewshot.py --text words writes "
            f"it where it can; found one with text {classifier.config.text}"
        )
    held = {one.name.casefold() for one in known}
    for place, name in enumerate(names):
        if not name or name.casefold() in held or name in names[:place]:
            raise BadInput(f"--also {','.join(names)}: expected names of other classes, each once, found {name!r}")
    prior = fitted.prior.with_more([ClassName(name) for name in names], scene)
    for match in prior.names.matches[len(known) :]:
        if not match.known:
            nearest = match.nearest[0]
            raise BadInput(
                f"--also {match.name}: the name is far from every caption of a material (the nearest is "
                f"{nearest.caption}, cosine {nearest.similarity:.2f}), so it tells nothing; name the class otherwise"
                f"{did_you_mean(match.name, [caption for one in MATERIALS for caption in one.captions])}"
            )
    taken = {one.class_id for one in known}
    free = (one for one in (*range(max(taken) + 1, LARGEST_ID + 1), *range(1, max(taken))) if one not in taken)
    ids = dict(zip(free, names, strict=False))
    colours = class_colours({one.class_id: one.name for one in known} | ids)
    shift = known[0].id_shift
    added = [MappedClass(class_id, name, colours[class_id], shift) for class_id, name in ids.items()]
    return Classifier(replace(classifier.config, classes=(*known, *added)), _grown(fitted, prior, len(names)))


def _grown(fitted: FittedClassifier, prior: NamesPrior, more: int) -> FittedClassifier:
    """A classifier with more classes, whose vectors are 0: shots tell nothing of them."""
    assert isinstance(fitted.head, KernelHead)
    text_CE = torch.nn.functional.pad(fitted.text_CE, (0, 0, 0, more))
    head = fitted.head.with_more_classes(more)
    parts = tuple(_grown(part, prior, more) for part in fitted.by_pattern)
    return replace(fitted, head=head, text_CE=text_CE, by_pattern=parts, prior=prior)
