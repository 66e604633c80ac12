"""A classifier from every label of a scene, none held back, and what cross-validation says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import torch

from diffclip_dist.feature_extraction.encoder_source import NamedEncoder
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_survey import SceneStrip
from diffclip_dist.fewshot.class_text import ClassText, ClassTextEncoder, build_text
from diffclip_dist.fewshot.classifier import Classifier, MappedClass, classifier_config
from diffclip_dist.fewshot.cross_validation import CrossValidation
from diffclip_dist.fewshot.episodes import LabelMap, Pixels, Protocol, official_split
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.fitting import fit_classifiers
from diffclip_dist.fewshot.kernel_fitting import MOST_SUPPORT
from diffclip_dist.fewshot.label_folds import Fold, Folds, block_folds, stratified_folds
from diffclip_dist.fewshot.label_sample import balanced_quotas, proportional_quotas, spread_sample
from diffclip_dist.fewshot.labelled_pixels import LabelGatherer
from diffclip_dist.fewshot.names_prior import ToldByName, tell_by_name
from diffclip_dist.fewshot.prediction import probabilities_at
from diffclip_dist.fewshot.support import Support
from diffclip_dist.words.class_name import ClassName
from shards.archive.archive import ReadableScene
from shards.errors import BadInput
from shards.preview.class_colours import class_colours

ALL_LABELS: Final = "all labels"
# Labels to test on in all, and of a class that has so many: more take long and hardly shorten an interval
MOST_TESTED, LEAST_TESTED = 20_000, 100

Report = Callable[[str, int, int], None]


class StripLabels(NamedTuple):
    """Labels of some rows of a scene.

    Attributes:
        learned: class ids (row, col) to learn from, 0 where unlabelled.
        tested: those of an official test map; None where there is none to test on.
    """

    learned: LabelMap
    tested: LabelMap | None = None


LabelSource = Callable[[SceneStrip], StripLabels]


@dataclass(frozen=True)
class LabelledScene:
    """A scene with labels to learn from.

    Attributes:
        scene: the scene, as it is read for the encoder.
        encoder: fitted to the scene.
        labels: those that have data, row by row; of very many an evenly spread part (`MOST_LABELLED`).
        given: labels of each class that have data.
        test: an official test map's, where the figures come from it.
        given_test: labels of each class that the official test map has.
        names: of the classes that have a label.
        descriptions: longer texts of the classes that have one.
        text: kind of text, as `build_text` takes it.
        told: tells classes by their names; None where names tell nothing of the scene's pixels.
        no_names: why names tell nothing; None where they do, or were not asked for.
        config: the head, and how it is fitted.
        seed: of every draw.
        most_learned: labels to learn from.
        most_tested: labels to test on.
    """

    scene: SceneReader
    encoder: NamedEncoder
    labels: Pixels
    given: Mapping[int, int]
    test: Pixels | None
    given_test: Mapping[int, int]
    names: Mapping[int, str]
    descriptions: Mapping[int, str]
    text: str
    told: ToldByName | None
    no_names: str | None
    config: FewshotConfig
    seed: int
    most_learned: int
    most_tested: int

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of the classes that have a label, ascending."""
        return tuple(self.names)

    @cached_property
    def learned(self) -> Pixels:
        """The labels that a classifier is fitted to: all, or an evenly spread, balanced sample of too many."""
        return spread_sample(self.labels, balanced_quotas(_counts(self.labels), self.most_learned), self.seed)

    @property
    def note(self) -> str | None:
        """That a sample of the labels is learned from; None where all are."""
        learned, given = len(self.learned), sum(self.given.values())
        if learned == given:
            return None
        return (
            f"learned from {learned:,} of {given:,} labels, a sample that is evenly spread and balanced over the "
            f"classes, for at most {self.most_learned:,} are taken"
        )

    def build_text(self) -> ClassTextEncoder:
        """The class texts, as they are before they learn."""
        texts = [ClassText(name, self.descriptions.get(class_id)) for class_id, name in self.names.items()]
        return build_text(self.text, texts, torch.Generator().manual_seed(self.seed), self.told is not None)


def labelled_scene(
    scene: ReadableScene,
    encoder: NamedEncoder,
    labels: LabelSource,
    class_names: Mapping[int, str],
    descriptions: Mapping[int, str],
    text: str,
    config: FewshotConfig,
    seed: int,
    most: tuple[int, int] | None = None,
) -> LabelledScene:
    """A scene with the labels that have data.

    Args:
        scene: the scene, in memory or in an archive.
        encoder: fitted to the scene.
        labels: gives the labels of some rows of the scene.
        class_names: names of the classes, for the text; a class without one is called ``class 7``. Classes without a
            label count where their names act.
        descriptions: longer texts of the classes that have one.
        text: kind of text, as `build_text` takes it.
        config: the head, and how it is fitted.
        seed: of every draw.
        most: labels to learn from and to test on; None for what the head takes, and what takes minutes at most.

    Raises:
        BadInput: no labelled pixel has data.
    """
    width = scene.record.width
    learned, tested = LabelGatherer(width), LabelGatherer(width)
    official = False

    def look(strip: SceneStrip) -> None:
        nonlocal official
        given = labels(strip)
        learned.add(strip.rows.start, np.where(strip.present, given.learned, 0))
        if given.tested is not None:
            official = True
            tested.add(strip.rows.start, np.where(strip.present, given.tested, 0))

    reader = SceneReader.open(scene, encoder.encoder, config, look)
    given = learned.seen_by_class
    listed = {
        one: ClassName(class_names.get(one, f"class {one}"), descriptions.get(one))
        for one in sorted({*given, *class_names})
    }
    by_name = tell_by_name(text, reader.scene, listed, given, config)
    if not given and by_name.told is None:
        raise BadInput("labels: expected at least one pixel with a class id of 1 or more where the scene has data")
    names = {one: listed[one].name for one in by_name.class_ids}
    given_test = {one: count for one, count in tested.seen_by_class.items() if one in names}
    found = _pixels(learned, width)
    test = None
    if official:
        test = _pixels(tested, width)
        test = test.where(np.isin(test.class_ids, list(names)))
    most_learned, most_tested = most or (MOST_SUPPORT if config.head == "kernel" else len(found), MOST_TESTED)
    return LabelledScene(
        reader, encoder, found, given, test, given_test, names, descriptions, by_name.text, by_name.told,
        by_name.reason, config, seed, most_learned, most_tested,
    )  # fmt: skip


def fit_to_labels(labelled: LabelledScene, id_shift: int = 0, report: Report = lambda *_: None) -> Classifier:
    """Fits a classifier to all labels, or to a sample where there are too many for the head.

    Args:
        labelled: the scene and its labels.
        id_shift: class id minus the user's, see `MappedClass`.
        report: called with a phase, steps done and steps in all.

    Raises:
        BadInput: the text does not fit the classes.
    """
    learned, record = labelled.learned, labelled.scene.scene.record
    text = labelled.build_text()
    fitted = _fitted(labelled, [learned], [text], report)[0]
    colours = class_colours(labelled.names)
    classes = [MappedClass(one, name, colours[one], id_shift) for one, name in labelled.names.items()]
    kept = classifier_config(
        record, labelled.encoder, classes, shots=max(_counts(learned).values(), default=0), seed=labelled.seed,
        protocol=ALL_LABELS, text=text.label, fewshot=labelled.config, fitted=fitted,
    )  # fmt: skip
    return Classifier(kept, fitted)


def cross_validate(labelled: LabelledScene, protocol: Protocol, report: Report = lambda *_: None) -> CrossValidation:
    """Fits classifiers as `fit_to_labels` does, each without a part of the labels, and tests them on that part.

    Args:
        labelled: the scene and its labels.
        protocol: ``random`` holds out labels of every class at random, ``blocks`` whole blocks of the scene;
            ``official`` learns from all labels and tests on the official test map.
        report: called with a phase, steps done and steps in all.

    Raises:
        BadInput: there are too few labels to hold one out, or the text does not fit the classes.
    """
    learned, candidates = labelled.learned, labelled.labels if labelled.test is None else labelled.test
    counts = labelled.given if labelled.test is None else labelled.given_test
    quotas = proportional_quotas(_counts(candidates), labelled.most_tested, LEAST_TESTED)
    tested = spread_sample(candidates, quotas, labelled.seed)
    grid = labelled.scene.grid
    if protocol == "official":
        folds = Folds("official", (Fold(learned, tested),))
    elif protocol == "blocks":
        footprint = grid.footprint + 2 * labelled.config.smoothing_reach
        folds = block_folds(learned, tested, labelled.seed, grid.width, footprint)
    else:
        folds = stratified_folds(learned, tested, labelled.seed)
    first = labelled.build_text()
    learns = any(True for _ in first.parameters())  # such an encoder starts anew for each classifier
    texts = [labelled.build_text() if learns else first for _ in folds.folds]
    fitted = _fitted(labelled, [fold.learned for fold in folds.folds], texts, report)
    ids = np.array(labelled.class_ids)
    report("testing", 0, 1)
    found = probabilities_at(labelled.scene, fitted, [fold.tested for fold in folds.folds], labelled.config)
    predicted = [ids[found_PC.argmax(axis=1)] for found_PC in found]
    confidence = [found_PC.max(axis=1) for found_PC in found]
    report("testing", 1, 1)
    labels_C = np.array([counts.get(one, 0) for one in labelled.class_ids])
    return CrossValidation(folds, labelled.class_ids, tuple(predicted), tuple(confidence), labels_C)


def own_labels(strip: SceneStrip) -> StripLabels:
    """The labels of a scene and of its official split.

    Raises:
        BadInput: the scene has none.
    """
    if strip.labels is None:
        raise BadInput("labels: the scene has none of its own; give labels (row, col)")
    labels = strip.labels
    return StripLabels(labels if strip.split is None else np.where(labels > 0, labels, np.maximum(*strip.split)))


def official_labels(strip: SceneStrip) -> StripLabels:
    """The official training map, and the official test map to test on.

    Raises:
        BadInput: the scene has no official split.
    """
    return StripLabels(*official_split(strip.split))


def _pixels(gathered: LabelGatherer, width: int) -> Pixels:
    """What was gathered in a scene of that width, row by row."""
    kept = gathered.gathered()
    rows, cols = np.divmod(kept.places, width)
    return Pixels(rows, cols, kept.class_ids.astype(np.int64))


def _fitted(
    labelled: LabelledScene, learned: Sequence[Pixels], texts: Sequence[ClassTextEncoder], report: Report
) -> list[FittedClassifier]:
    supports = [Support.of(pixels, labelled.class_ids) for pixels in learned]
    seeds = [labelled.seed] * len(supports)
    fitted, _ = fit_classifiers(
        labelled.scene, supports, texts, seeds, labelled.config, report=report, told=labelled.told
    )
    return fitted


def _counts(labels: Pixels) -> dict[int, int]:
    """Labels of each class."""
    class_ids, counts = np.unique(labels.class_ids, return_counts=True)
    return dict(zip(class_ids.tolist(), counts.tolist(), strict=True))
