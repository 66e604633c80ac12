"""A classifier fitted to every label, with what cross-validation says of it: all that its outputs need."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffclip_dist.feature_extraction.encoder_source import NamedEncoder
from diffclip_dist.fewshot.classifier import Classifier, MappedClass
from diffclip_dist.fewshot.cross_validation import CrossValidation
from diffclip_dist.fewshot.episodes import Protocol
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fit_labels import LabelledScene
from diffclip_dist.fewshot.metrics import Summary
from diffclip_dist.fewshot.names_prior import ToldByName
from diffclip_dist.mapping.predict import MapJob, map_dtype
from diffclip_dist.study.kept_classifier import KeptCalibration, KeptClassifier
from diffclip_dist.study.names_report import doubtful_names, names_of_classifiers
from diffclip_dist.study.reference_map import ReferenceMap
from shards.archive.archive import ReadableScene
from shards.preview.thinning import thinned_shape, thinning_step

MODEL_FOLDER = "model"


@dataclass(frozen=True)
class FitStudy:
    """A classifier from every label, with its results.

    Attributes:
        labelled: the scene and its labels.
        protocol: how labels were held out for the figures.
        classifier: what was fitted to all of them.
        validation: what classifiers made of labels that they did not learn from.
        map_job: the map that it draws of the scene.
        quick: whether it was cut short to show that it runs; its figures are then no measurement.
        seconds: wall-clock time, without the map.
    """

    labelled: LabelledScene
    protocol: Protocol
    classifier: Classifier
    validation: CrossValidation
    map_job: MapJob
    quick: bool
    seconds: float

    @property
    def scene(self) -> ReadableScene:
        """The labelled scene."""
        return self.labelled.scene.scene

    @property
    def encoder(self) -> NamedEncoder:
        """What it was read with."""
        return self.labelled.encoder

    @property
    def config(self) -> FewshotConfig:
        """The settings."""
        return self.labelled.config

    @property
    def classes(self) -> tuple[MappedClass, ...]:
        """The classes in the order of the scores."""
        return self.classifier.config.classes

    @property
    def text_label(self) -> str:
        """Kind and source of the text."""
        return self.classifier.config.text

    @property
    def text_entries(self) -> dict[str, list[str]]:
        """For a bank, what stands for each class."""
        return {name: list(used) for name, used in self.labelled.build_text().entries.items()}

    @property
    def told(self) -> ToldByName | None:
        """Tells classes by their names; None where names do not act."""
        return self.labelled.told

    @property
    def heading(self) -> str:
        """What the report is about."""
        return f"land cover from all {sum(self.labelled.given.values()):,} labels"

    @property
    def how(self) -> str:
        """How the figures were come by."""
        learned = "every label" if self.labelled.note is None else "a sample of the labels"
        return (
            f"figures {self.validation.folds.describe()}; the kept classifier learned from {learned}, and no label "
            "chose a setting"
        )

    @property
    def figures_are(self) -> str:
        """What a figure and its interval are."""
        return f"{self.validation.folds.describe()} [95 % interval]"

    @property
    def intervals(self) -> str:
        """How intervals are made."""
        return "Intervals are Wilson's, over as many labels as the differences between folds leave independent"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know, each line once."""
        lines = [] if self.labelled.note is None else [self.labelled.note]
        if self.labelled.no_names is not None:
            lines.append(f"names do not act: {self.labelled.no_names}")
        if self.told is not None:
            lines += doubtful_names(self.told.names.matches, [self.classifier.fitted])
        kind = self.validation.folds.kind
        if kind in ("stratified", "leave-one-out"):
            lines.append(
                "labels that lie beside each other are alike, so these figures are optimistic for land away from the "
                "labels; --protocol blocks holds out whole blocks of the scene"
            )
        elif kind == "blocks":
            lines.append(
                "labels near a held-out block were left out of what is learned, so the kept classifier has more of them"
            )
        tested = len(self.validation.tested)
        if tested < sum(self.validation.labels_C):
            lines.append(f"{tested:,} of {sum(self.validation.labels_C):,} labels, evenly spread, were tested")
        for class_id, name, summary in zip(
            self.labelled.class_ids, self.labelled.names.values(), self.validation.per_class, strict=True
        ):
            if summary.mean is None:
                count = self.labelled.given.get(class_id, 0)
                if count == 0:
                    lines.append(f"{name}: has no label, and is found by its name alone")
                    continue
                why = "its only label is learned from" if count == 1 else "no label of it could be held out"
                lines.append(f"{name}: not tested, for {why}")
        if self.quick:
            lines.insert(0, "a quick run: few steps and a part of the scene, to show that it works; no measurement")
        if self.scene.record.generated:
            lines.insert(0, f"scene {self.scene.record.name} is generated: not a real place")
        return tuple(lines)

    @property
    def figures(self) -> dict[str, Summary]:
        """OA and AA in percent, kappa."""
        return {"oa": self.validation.oa, "aa": self.validation.aa, "kappa": self.validation.kappa}

    @property
    def per_class(self) -> dict[str, Summary]:
        """Accuracy of each class in percent."""
        return {known.name: one for known, one in zip(self.classes, self.validation.per_class, strict=True)}

    @cached_property
    def kept(self) -> tuple[KeptClassifier, ...]:
        """The one classifier."""
        reliability = self.validation.reliability
        error = Summary(reliability.expected_calibration_error, None, None, ())
        given, learned = sum(self.labelled.given.values()), len(self.labelled.learned)
        return (
            KeptClassifier(
                name="all labels",
                title=f"all {given:,} labels" if learned == given else f"{learned:,} of all {given:,} labels",
                file_key="all-labels",
                model_folder=MODEL_FOLDER,
                classifier=self.classifier,
                learned=self.labelled.learned,
                tested=self.validation.tested,
                right=self.validation.right,
                figures=self.figures,
                per_class=self.per_class,
                confusion=self.validation.by_fold.sum(axis=0),
                calibration=KeptCalibration(reliability, error),
                names=names_of_classifiers([self.classifier.fitted]),
                class_map=self.map_job,
            ),
        )

    def reference_map(self, largest_side: int) -> ReferenceMap:
        """The labels, those of an official test map among them, thinned to that many pixels a side."""
        record = self.scene.record
        step = thinning_step(record, largest_side)
        found = np.zeros(thinned_shape(record, step), dtype=map_dtype(max(self.labelled.class_ids)))
        for labels in (self.labelled.labels, self.labelled.test):
            if labels is not None:
                found[labels.rows // step, labels.cols // step] = labels.class_ids
        pixels = Counter(dict(self.labelled.given))
        pixels.update(self.labelled.given_test)
        return ReferenceMap(found, pixels)
