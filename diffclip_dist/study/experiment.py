"""Fits a classifier for each number of shots and each seed, and tests it on its query pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.scene_view import SceneView, view_scene
from diffclip_dist.fewshot.calibration import CalibrationTest
from diffclip_dist.fewshot.class_text import ClassText, build_text
from diffclip_dist.fewshot.episodes import Episode, Protocol, Reference, draw_episode
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.fitting import Support, fit_classifiers
from diffclip_dist.fewshot.metrics import Scores, score
from diffclip_dist.fewshot.prediction import PatternFeatures, classify, classify_features, logits_at
from shards.archive.archive import Scene
from shards.errors import BadInput

# The seed whose classifiers are kept and map the scene
MAPPED_SEED = 0
# Query pixels of a run, evenly spread among all, that its calibration is tested on
CALIBRATION_PIXELS: Final = 2_000
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What to run on a scene.

    Attributes:
        shots: labelled pixels a class, ascending.
        seeds: draws of each, numbered from 0.
        protocol: how support and query relate.
        text: kind of text, as `build_text` takes it.
    """

    shots: tuple[int, ...]
    seeds: int
    protocol: Protocol
    text: str

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1:
            raise BadInput(f"--shots: expected numbers of at least 1, found {','.join(map(str, self.shots)) or 'none'}")
        if self.seeds < 1:
            raise BadInput(f"--seeds: expected at least 1, found {self.seeds}")


@dataclass(frozen=True)
class Run:
    """One classifier: its episode, what was fitted, and how it did.

    Attributes:
        episode: support and query.
        fitted: the classifier.
        scores: on the query pixels.
        predicted: class index of each query pixel, -1 where it was not read.
        calibration: how well its probabilities hold on query pixels; None for a cosine head, which is not calibrated.
    """

    episode: Episode
    fitted: FittedClassifier
    scores: Scores
    predicted: npt.NDArray[np.int16]
    calibration: CalibrationTest | None


@dataclass(frozen=True)
class Outcome:
    """The results of a task.

    Attributes:
        class_ids: of the classes, in the order of the scores.
        runs: by shots, then by seed.
        maps: shots to class ids (row, col) by the classifier of the first seed, 0 where it has no class.
        text_label: kind and source of the text.
        text_entries: for a bank, what stands for each class.
    """

    class_ids: tuple[int, ...]
    runs: tuple[Run, ...]
    maps: dict[int, npt.NDArray[np.int64]]
    text_label: str
    text_entries: dict[str, list[str]]

    def of_shots(self, shots: int) -> tuple[Run, ...]:
        """The runs of that many shots, by seed."""
        return tuple(run for run in self.runs if run.episode.shots == shots)


def run_task(
    scene: Scene,
    encoder: FeatureEncoder,
    task: Task,
    config: FewshotConfig,
    limit: int | None = None,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Outcome:
    """Runs a task on a labelled scene.

    Args:
        scene: a scene with labels.
        encoder: knows the scene's modalities and no others (`encoder_for_scene`).
        task: shots, seeds, protocol, text.
        config: how features are extracted and classifiers are fitted.
        limit: at most so many windows are read for tests and maps, evenly spread over the labelled pixels; None reads
            the whole scene.
        report: called with a phase, steps done and steps in all.

    Raises:
        BadInput: the scene has no labels, or the protocol or the text does not fit it.
    """
    if scene.labels is None:
        raise BadInput(f"scene {scene.record.name}: has no labels, so there are no shots to learn from")
    reference = Reference(scene.labels, scene.record.classes, scene.split)
    view = view_scene(scene, scene.record.modalities, encoder, config)
    seen = _only_present(reference, view)
    class_ids = seen.classes()
    names = [ClassText(seen.names[c], scene.record.descriptions.get(c)) for c in class_ids]
    text = build_text(task.text, names, torch.Generator().manual_seed(MAPPED_SEED))
    footprint = view.grid.footprint + 2 * config.smoothing_reach
    episodes = [
        draw_episode(seen, shots, seed, task.protocol, footprint) for shots in task.shots for seed in range(task.seeds)
    ]
    learns = any(True for _ in text.parameters())  # such an encoder starts anew for each classifier
    texts = [
        build_text(task.text, names, torch.Generator().manual_seed(episode.seed)) if learns else text
        for episode in episodes
    ]
    wanted = pixels_to_read(view, seen, limit)
    supports = [Support.of(episode.support, class_ids) for episode in episodes]
    seeds = [episode.seed for episode in episodes]
    classifiers, extracted = fit_classifiers(encoder, view, supports, texts, seeds, wanted, config, report)
    found: Iterable[Classes] = (
        _classified(classifiers, episodes, view, wanted, config, report)
        if extracted is None
        else classify_features(classifiers, extracted)
    )
    runs: list[Run] = []
    maps: dict[int, Classes] = {}
    ids = np.array((0, *class_ids))
    for episode, one, indices in zip(episodes, classifiers, found, strict=True):
        query = episode.query
        predicted = indices[query.rows, query.cols]
        tested = predicted >= 0
        if not tested.any():
            raise BadInput(f"scene {scene.record.name}: no query pixel was read at {episode.shots} shots")
        true = np.searchsorted(class_ids, query.class_ids)
        scores = score(true[tested], predicted[tested], len(class_ids))
        calibration = None if extracted is None else _calibration_test(one, extracted, episode, class_ids)
        runs.append(Run(episode, one, scores, predicted.astype(np.int16), calibration))
        if episode.seed == MAPPED_SEED:
            maps[episode.shots] = ids[indices + 1]
    entries = {name: list(used) for name, used in text.entries.items()}
    return Outcome(class_ids, tuple(runs), maps, text.label, entries)


def _calibration_test(
    fitted: FittedClassifier, extracted: PatternFeatures, episode: Episode, class_ids: Sequence[int]
) -> CalibrationTest:
    """How well a classifier's probabilities hold on some of its query pixels."""
    query = episode.query
    kept = np.linspace(0, len(query) - 1, min(len(query), CALIBRATION_PIXELS)).astype(np.int64)
    asked = np.zeros_like(extracted.wanted)
    asked[query.rows[kept], query.cols[kept]] = True
    true = np.zeros(asked.shape, dtype=np.int64)
    true[query.rows, query.cols] = np.searchsorted(class_ids, query.class_ids)
    rows, cols, logits_PC = logits_at(fitted, extracted, asked)
    return CalibrationTest.of(fitted.calibration, logits_PC, true[rows, cols])


def _only_present(reference: Reference, view: SceneView) -> Reference:
    """The reference without the labels of pixels where no modality has data."""
    split = reference.split
    return Reference(
        np.where(view.present, reference.labels, 0),
        reference.names,
        None if split is None else (np.where(view.present, split[0], 0), np.where(view.present, split[1], 0)),
    )


def pixels_to_read(view: SceneView, reference: Reference, limit: int | None) -> npt.NDArray[np.bool_]:
    """The pixels (row, col) that are tested and mapped: all, or those of evenly spread windows with labelled pixels.

    Args:
        view: of the scene.
        reference: its labels.
        limit: windows at most; None for all.
    """
    if limit is None:
        return view.present
    labelled = reference.labels > 0
    if reference.split is not None:
        labelled = labelled | (reference.split[0] > 0) | (reference.split[1] > 0)
    rows, cols = np.nonzero(labelled)
    centre_rows, centre_cols = view.grid.centres(rows, cols)
    centres = np.unique(centre_rows * view.grid.width + centre_cols)
    kept = centres[np.linspace(0, len(centres) - 1, min(limit, len(centres))).astype(np.int64)]
    all_rows, all_cols = np.indices(view.present.shape).reshape(2, -1)
    grid_rows, grid_cols = view.grid.centres(all_rows, all_cols)
    return view.present & np.isin(grid_rows * view.grid.width + grid_cols, kept).reshape(view.present.shape)


def _classified(
    classifiers: list[FittedClassifier],
    episodes: Sequence[Episode],
    view: SceneView,
    wanted: npt.NDArray[np.bool_],
    config: FewshotConfig,
    report: Callable[[str, int, int], None],
) -> Iterator[Classes]:
    """Class indices (row, col) of each classifier; -1 where it was not asked or no modality has data.

    Classifiers that share one encoder read the scene once. A tuned encoder reads its own query pixels, and the whole
    scene where it is to be mapped.
    """
    if not config.tune_encoder:
        report("reading", 0, 1)
        found = classify(classifiers, view, wanted, config)
        report("reading", 1, 1)
        yield from found
        return
    for number, (one, episode) in enumerate(zip(classifiers, episodes, strict=True)):
        report("reading", number, len(episodes))
        asked = wanted
        if episode.seed != MAPPED_SEED:
            asked = np.zeros_like(wanted)
            asked[episode.query.rows, episode.query.cols] = True
            asked &= wanted
        yield classify([one], view, asked, config)[0]
    report("reading", len(episodes), len(episodes))
