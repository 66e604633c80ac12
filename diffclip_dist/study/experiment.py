"""Fits a classifier for each number of shots and each seed, and tests it on its query pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.blocks import BLOCK_BYTES, SceneBlock, Wanted, all_pixels
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_sample import WHOLE_SCENE_PIXELS
from diffclip_dist.feature_extraction.scene_survey import SceneStrip
from diffclip_dist.feature_extraction.views import Grid
from diffclip_dist.fewshot.calibration import CalibrationTest
from diffclip_dist.fewshot.class_text import ClassText, build_text
from diffclip_dist.fewshot.episodes import Episode, Pixels, Protocol, Reference, draw_episode
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.fitting import fit_classifiers
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.labelled_pixels import LabelGatherer, LabelledPixels, Positions
from diffclip_dist.fewshot.metrics import Scores, score
from diffclip_dist.fewshot.names_prior import NEEDS_KERNEL, WITHOUT_WORDS, ToldByName, tell_by_name
from diffclip_dist.fewshot.pattern_features import PatternFeatures, extract_for
from diffclip_dist.fewshot.prediction import classify_each, logits_at, sharing_encoder
from diffclip_dist.fewshot.support import Support
from diffclip_dist.mapping.predict import ClassMap, map_dtype
from diffclip_dist.words.text_vectors import WORDS
from shards.archive.archive import ReadableScene
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput

# The seed whose classifiers are kept and map the scene
MAPPED_SEED = 0
# Query pixels of a run, evenly spread among all, that its calibration is tested on
CALIBRATION_PIXELS: Final = 2_000
# A larger scene is not mapped by a study: that takes longer than all of its figures
MOST_MAPPED_PIXELS: Final = 4_000_000
# Windows that such a scene is tested on, evenly spread. The standard error of OA is then at most half a point; each
# further window costs the description of all neighbours that it is averaged over
MOST_TESTED_WINDOWS: Final = 10_000

Mask = npt.NDArray[np.bool_]
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """What to run on a scene.

    Attributes:
        shots: labelled pixels a class, ascending; 0 tells classes by their names alone.
        seeds: draws of each, numbered from 0; without shots there is nothing to draw, and one.
        protocol: how support and query relate.
        text: kind of text, as `build_text` takes it.
    """

    shots: tuple[int, ...]
    seeds: int
    protocol: Protocol
    text: str

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 0:
            raise BadInput(f"--shots: expected numbers of at least 0, found {','.join(map(str, self.shots)) or 'none'}")
        if 0 in self.shots and self.text == WITHOUT_WORDS:
            raise BadInput(
                f"--shots 0: expected --text {WORDS}, bank:FILE or open_clip:MODEL, found {self.text}; without shots, "
                "only names tell classes apart"
            )
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
        changed_percent: of the query pixels that calibration is tested on, those whose class is another by the shots
            alone; None where class names do not act, and without shots.
    """

    episode: Episode
    fitted: FittedClassifier
    scores: Scores
    predicted: npt.NDArray[np.int16]
    calibration: CalibrationTest | None
    changed_percent: float | None


@dataclass(frozen=True)
class Outcome:
    """The results of a task.

    Attributes:
        class_ids: of the classes, in the order of the scores.
        runs: by shots, then by seed.
        maps: shots to class ids (row, col) by the classifier of the first seed, 0 where it has no class; empty for a
            scene of more than `MOST_MAPPED_PIXELS`.
        text_label: kind and source of the text.
        text_entries: for a bank, what stands for each class.
        told: tells classes by their names; None where names do not act.
        notes: what a reader of the figures must know of how the scene was read.
    """

    class_ids: tuple[int, ...]
    runs: tuple[Run, ...]
    maps: dict[int, ClassMap]
    text_label: str
    text_entries: dict[str, list[str]]
    told: ToldByName | None
    notes: tuple[str, ...]

    def of_shots(self, shots: int) -> tuple[Run, ...]:
        """The runs of that many shots, by seed."""
        return tuple(run for run in self.runs if run.episode.shots == shots)


def run_task(
    scene: ReadableScene,
    encoder: FeatureEncoder,
    task: Task,
    config: FewshotConfig,
    limit: int | None = None,
    report: Report = lambda *_: None,
    block_bytes: int = BLOCK_BYTES,
    whole_pixels: int = WHOLE_SCENE_PIXELS,
) -> Outcome:
    """Runs a task on a labelled scene, in memory that does not grow with the scene.

    Only pixels that are needed are described: shots, query pixels, pixels that stand for the unlabelled scene, and,
    where the scene is mapped, all others. Blocks of the scene are read once for all classifiers.

    Args:
        scene: a scene with labels, in memory or in an archive.
        encoder: knows the scene's modalities and no others (`encoder_for_scene`).
        task: shots, seeds, protocol, text.
        config: how features are extracted and classifiers are fitted.
        limit: at most so many windows are read for tests and maps, evenly spread over the labelled pixels; None reads
            the whole of a scene that is mapped, and `MOST_TESTED_WINDOWS` of a larger one.
        report: called with a phase, steps done and steps in all.
        block_bytes: bound on a block's values in memory.
        whole_pixels: a scene of no more pixels is read at once.

    Raises:
        BadInput: the scene has no labels, or the protocol or the text does not fit it.
    """
    record = scene.record
    labels = _LabelReader(record)
    reader = SceneReader.open(scene, encoder, config, labels.look, whole_pixels)
    reference = labels.reference()
    listed = {c: ClassText(name, record.descriptions.get(c)) for c, name in sorted(reference.names.items())}
    by_name = tell_by_name(task.text, reader.scene, listed, reference.classes(), config)
    class_ids = by_name.class_ids
    acts = by_name.told is not None
    if not acts and 0 in task.shots:
        raise BadInput(f"--shots 0: {by_name.reason or NEEDS_KERNEL}")
    names = [listed[c] for c in class_ids]
    text = build_text(by_name.text, names, torch.Generator().manual_seed(MAPPED_SEED), acts)
    grid = reader.grid
    footprint = grid.footprint + 2 * config.smoothing_reach
    episodes = [
        draw_episode(reference, shots, seed, task.protocol, footprint)
        for shots in task.shots
        for seed in range(task.seeds if shots else 1)
    ]
    learns = any(True for _ in text.parameters())  # such an encoder starts anew for each classifier
    texts = [
        build_text(by_name.text, names, torch.Generator().manual_seed(episode.seed), acts) if learns else text
        for episode in episodes
    ]
    maps = record.height * record.width <= MOST_MAPPED_PIXELS
    wanted = pixels_to_read(grid, reference, limit if limit is not None or maps else MOST_TESTED_WINDOWS)
    supports = [Support.of(episode.support, class_ids) for episode in episodes]
    seeds = [episode.seed for episode in episodes]
    classifiers, features = fit_classifiers(reader, supports, texts, seeds, config, wanted, report, by_name.told)
    test = _Test(reference, reference.tested(task.protocol), episodes, class_ids, maps)
    for block in _reported_blocks(reader, test.wanted(wanted), block_bytes, report):
        test.classify(classifiers, block, config, features)
    runs = []
    for number, (episode, one) in enumerate(zip(episodes, classifiers, strict=True)):
        query = episode.query
        found, _ = test.pixels.find(query.rows * record.width + query.cols)
        predicted = test.predicted[number, found]
        tested = predicted >= 0
        if not tested.any():
            raise BadInput(f"scene {record.name}: no query pixel was read at {episode.shots} shots")
        true = np.searchsorted(class_ids, query.class_ids)
        scores = score(true[tested], predicted[tested].astype(np.int64), len(class_ids))
        tested_by = test.calibration(number, one)
        runs.append(Run(episode, one, scores, predicted, tested_by, test.changed_percent(number, one)))
    entries = {name: list(used) for name, used in text.entries.items()}
    notes = list(labels.notes())
    if by_name.reason is not None:
        notes.append(f"names do not act: {by_name.reason}")
    if not maps:
        notes.append(
            f"no map was drawn: the scene has more than {MOST_MAPPED_PIXELS:,} pixels; predict.py --model "
            f"OUT/model-{task.shots[-1]}shot maps it"
        )
        tested_on = np.count_nonzero((test.predicted >= 0).any(axis=0))
        notes.append(f"tested on {tested_on:,} of {len(test.pixels):,} query pixels, evenly spread")
    return Outcome(class_ids, tuple(runs), test.maps, text.label, entries, by_name.told, tuple(notes))


class _LabelReader:
    """Gathers the labelled pixels that have data."""

    def __init__(self, record: SceneRecord) -> None:
        self._record = record
        self._labels = LabelGatherer(record.width)
        self._split: tuple[LabelGatherer, LabelGatherer] | None = None

    def look(self, strip: SceneStrip) -> None:
        """Takes the labels of a strip.

        Raises:
            BadInput: it has none.
        """
        if strip.labels is None:
            raise BadInput(f"scene {self._record.name}: has no labels, so there are no shots to learn from")
        present = strip.present
        self._labels.add(strip.rows.start, np.where(present, strip.labels, 0))
        if strip.split is not None:
            width = self._record.width
            self._split = self._split or (LabelGatherer(width), LabelGatherer(width))
            for gatherer, labels in zip(self._split, strip.split, strict=True):
                gatherer.add(strip.rows.start, np.where(present, labels, 0))

    def reference(self) -> Reference:
        """What was gathered."""
        split = None if self._split is None else (self._split[0].gathered(), self._split[1].gathered())
        shape = (self._record.height, self._record.width)
        return Reference(self._labels.gathered(), self._record.classes, shape, split)

    def notes(self) -> tuple[str, ...]:
        """A line where not all labelled pixels are used."""
        kept, seen = len(self._labels.gathered()), self._labels.seen
        if kept == seen:
            return ()
        return (f"{kept:,} of {seen:,} labelled pixels, evenly spread, were drawn from and tested on",)


class _Test:
    """Classes of the tested pixels by every classifier, and maps by those of the first seed, block by block.

    Attributes:
        pixels: that some episode tests on.
        predicted: class index (classifier, pixel), -1 where it was not asked.
        maps: shots to class ids (row, col).
    """

    def __init__(
        self,
        reference: Reference,
        pixels: LabelledPixels,
        episodes: Sequence[Episode],
        class_ids: Sequence[int],
        maps: bool,
    ) -> None:
        self.pixels = pixels
        self.predicted = np.full((len(episodes), len(pixels)), -1, dtype=np.int16)
        self._width = reference.shape[1]
        self._class_ids = class_ids
        self._calibrated = [_evenly_spread(episode.query, CALIBRATION_PIXELS) for episode in episodes]
        self._logits: list[list[Tensor]] = [[] for _ in episodes]
        self._true: list[list[Positions]] = [[] for _ in episodes]
        self._changed: list[list[Mask]] = [[] for _ in episodes]
        self._learned = [len(episode.support) > 0 for episode in episodes]
        self._shots = [episode.shots if maps and episode.seed == MAPPED_SEED else None for episode in episodes]
        dtype = map_dtype(max(class_ids))
        self._ids = np.array((0, *class_ids), dtype)
        self.maps: dict[int, ClassMap] = {
            shots: np.zeros(reference.shape, dtype) for shots in self._shots if shots is not None
        }

    def wanted(self, read: Wanted) -> Wanted:
        """The pixels to classify, among those to read."""
        if self.maps:
            return read
        return lambda rows, cols: read(rows, cols) & self._tested(rows, cols)

    def classify(
        self,
        classifiers: Sequence[FittedClassifier],
        block: SceneBlock,
        config: FewshotConfig,
        features: PatternFeatures | None,
    ) -> None:
        """Classifies a block's wanted pixels. Classifiers that share one encoder read it once."""
        tested = np.zeros_like(block.wanted)
        tested[block.core] = self._tested(block.rows, block.cols)
        tested &= block.wanted
        rows, cols = np.nonzero(tested)
        down, right = block.origin
        places, _ = self.pixels.find((rows + down) * self._width + cols + right)
        asked = [tested if shots is None else block.wanted for shots in self._shots]
        if config.head == "kernel":
            features = features or extract_for(classifiers, block.view, block.wanted, config)
        for group in sharing_encoder(classifiers):
            found = classify_each(
                [classifiers[n] for n in group], block.view, [asked[n] for n in group], config, features
            )
            for number, classes in zip(group, found, strict=True):
                self.predicted[number, places] = classes[rows, cols]
                if (shots := self._shots[number]) is not None:
                    self.maps[shots][block.rows, block.cols] = self._ids[classes[block.core] + 1]
        if features is not None:
            self._keep_logits(classifiers, block, features)

    def _keep_logits(
        self, classifiers: Sequence[FittedClassifier], block: SceneBlock, features: PatternFeatures
    ) -> None:
        """Keeps what calibration is tested on: logits of some query pixels of each run."""
        down, right = block.origin
        for number, (one, query) in enumerate(zip(classifiers, self._calibrated, strict=True)):
            inside = block.holds(query.rows, query.cols)
            if not inside.any():
                continue
            asked = np.zeros_like(block.wanted)
            true = np.zeros(asked.shape, dtype=np.int64)
            place = query.rows[inside] - down, query.cols[inside] - right
            asked[place] = True
            true[place] = np.searchsorted(self._class_ids, query.class_ids[inside])
            found = logits_at(one, features, asked)
            self._logits[number].append(found.logits_PC)
            self._true[number].append(true[found.rows, found.cols])
            self._changed[number].append((found.logits_PC.argmax(dim=1) != found.by_shots_PC.argmax(dim=1)).numpy())

    def calibration(self, number: int, fitted: FittedClassifier) -> CalibrationTest | None:
        """How well a classifier's probabilities hold on query pixels; None for a cosine head."""
        if not isinstance(fitted.head, KernelHead):
            return None
        logits_PC = torch.cat([torch.zeros(0, len(self._class_ids)), *self._logits[number]])
        true_P = np.concatenate([np.zeros(0, np.int64), *self._true[number]])
        return CalibrationTest.of(fitted.calibration, logits_PC, true_P)

    def changed_percent(self, number: int, fitted: FittedClassifier) -> float | None:
        """Of some query pixels, those whose class is another by the shots alone."""
        if fitted.prior is None or not self._changed[number] or not self._learned[number]:
            return None
        return 100.0 * float(np.concatenate(self._changed[number]).mean())

    def _tested(self, rows: slice, cols: slice) -> Mask:
        return self.pixels.map_of(rows, cols, self._width) > 0


def _reported_blocks(reader: SceneReader, wanted: Wanted, block_bytes: int, report: Report) -> Iterator[SceneBlock]:
    """The scene's blocks with wanted pixels; reports the rows done."""
    height = reader.scene.record.height
    report("testing", 0, height)
    for block in reader.blocks(wanted, block_bytes):
        report("testing", block.rows.start, height)
        yield block
    report("testing", height, height)


def _evenly_spread(pixels: Pixels, most: int) -> Pixels:
    """At most so many of the pixels."""
    return pixels.where(np.linspace(0, len(pixels) - 1, min(len(pixels), most)).astype(np.int64))


def pixels_to_read(grid: Grid, reference: Reference, limit: int | None) -> Wanted:
    """The pixels that are tested and mapped: all, or those of evenly spread windows with labelled pixels.

    Args:
        grid: of the scene.
        reference: its labels.
        limit: windows at most; None for all.
    """
    if limit is None:
        return all_pixels
    labelled = [reference.labels, *(reference.split or ())]
    places = np.unique(np.concatenate([pixels.places for pixels in labelled]))
    centre_rows, centre_cols = grid.centres(*np.divmod(places, grid.width))
    centres = np.unique(centre_rows * grid.width + centre_cols)
    kept = centres[np.linspace(0, len(centres) - 1, min(limit, len(centres))).astype(np.int64)]

    def wanted(rows: slice, cols: slice) -> Mask:
        centre_rows, _ = grid.centres(np.arange(rows.start, rows.stop), np.zeros(1, np.int64))
        _, centre_cols = grid.centres(np.zeros(1, np.int64), np.arange(cols.start, cols.stop))
        return np.isin(centre_rows[:, None] * grid.width + centre_cols, kept)

    return wanted
