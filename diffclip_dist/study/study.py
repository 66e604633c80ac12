"""A few-shot study: all that its outputs need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffclip_dist.feature_extraction.encoder_source import NamedEncoder
from diffclip_dist.fewshot.calibration import CalibrationTest, Reliability
from diffclip_dist.fewshot.classifier import Classifier, MappedClass, classifier_config
from diffclip_dist.fewshot.episodes import Protocol
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.metrics import KAPPA, PERCENT, Summary, summarise
from diffclip_dist.fewshot.names_prior import ToldByName
from diffclip_dist.study.experiment import MAPPED_SEED, Outcome, Run, Task
from diffclip_dist.study.kept_classifier import KeptCalibration, KeptClassifier
from diffclip_dist.study.names_report import doubtful_names, names_of_shots
from diffclip_dist.study.reference_map import ReferenceMap, read_reference
from shards.archive.archive import ReadableScene
from shards.preview.class_colours import class_colours


@dataclass(frozen=True)
class Study:
    """A task with its results.

    Attributes:
        scene: the labelled scene.
        encoder: what it was read with.
        task: what was run.
        config: its settings.
        outcome: its results.
        quick: whether it was cut short to show that it runs; its figures are then no measurement.
        seconds: wall-clock time of the runs.
    """

    scene: ReadableScene
    encoder: NamedEncoder
    task: Task
    config: FewshotConfig
    outcome: Outcome
    quick: bool
    seconds: float

    @property
    def protocol(self) -> Protocol:
        """How support and query relate."""
        return self.task.protocol

    @property
    def text_label(self) -> str:
        """Kind and source of the text."""
        return self.outcome.text_label

    @property
    def text_entries(self) -> dict[str, list[str]]:
        """For a bank, what stands for each class."""
        return self.outcome.text_entries

    @property
    def told(self) -> ToldByName | None:
        """Tells classes by their names; None where names do not act."""
        return self.outcome.told

    @property
    def heading(self) -> str:
        """What the report is about."""
        labelled = [str(shots) for shots in self.task.shots if shots]
        sources = ["class names alone"] if 0 in self.task.shots else []
        sources += [f"{', '.join(labelled)} labelled pixels a class"] if labelled else []
        return f"land cover from {' and from '.join(sources)}"

    @property
    def how(self) -> str:
        """How the figures were come by."""
        return (
            f"{self.task.seeds} seed{'s' if self.task.seeds > 1 else ''}; supports are nested; the model is the last "
            "step, so no label outside the shots chose anything"
        )

    @property
    def figures_are(self) -> str:
        """What a figure and its interval are."""
        return "mean [95 % interval] over the seeds"

    @property
    def intervals(self) -> str:
        """How intervals are made."""
        return "Intervals of the mean are Student's t on the logit scale, which stays within 0 and 100 %"

    @property
    def classes(self) -> tuple[MappedClass, ...]:
        """The classes in the order of the scores."""
        colours = class_colours(self.scene.record.classes)
        names = self.scene.record.classes
        shift = self.scene.record.class_id_shift
        return tuple(MappedClass(c, names[c], colours[c], shift) for c in self.outcome.class_ids)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know, each line once."""
        lines = [f"{run.episode.shots} shots: {note}" for run in self.outcome.runs for note in run.episode.notes]
        lines[:0] = self.outcome.notes
        if self.outcome.told is not None:
            lines += doubtful_names(self.outcome.told.names.matches, [run.fitted for run in self.outcome.runs])
            labelled = self.outcome.runs[0].episode.reference.classes()
            lines += [
                f"{known.name}: has no label, and is found by its name alone"
                for known in self.classes
                if known.class_id not in labelled
            ]
        if self.quick:
            lines.insert(0, "a quick run: few steps and a part of the scene, to show that it works; no measurement")
        if self.scene.record.generated:
            lines.insert(0, f"scene {self.scene.record.name} is generated: not a real place")
        return tuple(dict.fromkeys(lines))

    def summaries(self, shots: int) -> dict[str, Summary]:
        """OA and AA in percent, kappa, over the seeds."""
        scores = [run.scores for run in self.outcome.of_shots(shots)]
        return {
            "oa": summarise([score.oa for score in scores], PERCENT),
            "aa": summarise([score.aa for score in scores], PERCENT),
            "kappa": summarise([score.kappa for score in scores], KAPPA),
        }

    def per_class(self, shots: int) -> dict[str, Summary]:
        """Accuracy of each class in percent, over the seeds."""
        scores = np.stack([run.scores.per_class for run in self.outcome.of_shots(shots)])
        return {known.name: summarise(scores[:, place].tolist(), PERCENT) for place, known in enumerate(self.classes)}

    def reference_map(self, largest_side: int) -> ReferenceMap:
        """The labels of the scene, thinned to that many pixels a side."""
        return read_reference(self.scene, self.outcome.class_ids, largest_side)

    def mapped_run(self, shots: int) -> Run:
        """The run whose classifier is kept and drew the map."""
        return next(run for run in self.outcome.of_shots(shots) if run.episode.seed == MAPPED_SEED)

    @property
    def kept(self) -> tuple[KeptClassifier, ...]:
        """The classifiers of the first seed, with the figures over all seeds, by shots."""
        return tuple(self._kept(shots) for shots in self.task.shots)

    def _kept(self, shots: int) -> KeptClassifier:
        run, runs = self.mapped_run(shots), self.outcome.of_shots(shots)
        query, read = run.episode.query, run.predicted >= 0
        true = np.searchsorted(self.outcome.class_ids, query.class_ids)
        tests = [one.calibration for one in runs if one.calibration is not None]
        return KeptClassifier(
            name=f"{shots} shot{'' if shots == 1 else 's'}",
            title=f"{shots} labelled pixel{'' if shots == 1 else 's'} a class, seed {MAPPED_SEED}"
            if shots
            else "class names alone",
            file_key=f"{shots}shot",
            model_folder=f"model-{shots}shot",
            classifier=self.classifier(shots),
            learned=run.episode.support,
            tested=query.where(read),
            right=(run.predicted == true)[read],
            figures=self.summaries(shots),
            per_class=self.per_class(shots),
            confusion=np.sum([one.scores.confusion for one in runs], axis=0),
            calibration=_joined(tests) if tests else None,
            class_map=self.outcome.maps.get(shots),
            names=names_of_shots(runs),
        )

    def classifier(self, shots: int) -> Classifier:
        """The classifier that drew the map."""
        run = self.mapped_run(shots)
        config = classifier_config(
            self.scene.record,
            self.encoder,
            self.classes,
            shots=shots,
            seed=run.episode.seed,
            protocol=self.task.protocol,
            text=self.outcome.text_label,
            fewshot=self.config,
            fitted=run.fitted,
        )
        return Classifier(config, run.fitted)


def _joined(tests: Sequence[CalibrationTest]) -> KeptCalibration:
    errors = [test.after.expected_calibration_error for test in tests]
    return KeptCalibration(Reliability.joined([test.after for test in tests]), summarise(errors, PERCENT))
