"""What the accuracy benchmark measures: classical classifiers and ours, on one scene, over shots and seeds.

A job's measurements are kept in a file named by its settings and its archive's fingerprint, so that a run that was
stopped goes on where it was.
"""

import contextlib
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from frozen_text import sentence_bank
from kept_jobs import digest, kept_in
from pixel_classifiers import PIXEL_ROWS, Draw
from pixel_descriptions import present
from real_scenes import REAL, completed
from scene_halves import halves

from diffclip_dist.api.few_shot_classifier import FewShotClassifier
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.encoder_source import CONTROL, fit_to_scene, read_shipped
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.feature_extraction.views import Grid
from diffclip_dist.fewshot.episodes import Pixels, Protocol, Reference, draw_episode
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.metrics import Scores, score
from diffclip_dist.fewshot.names_prior import WITHOUT_WORDS
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import load_encoder, new_encoder
from diffclip_dist.study.experiment import Task, run_task
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.single_process import pretrain_single_process
from diffclip_dist.words.text_vectors import WORDS
from shards.archive.archive import Archive, Scene
from shards.errors import BadInput

# How shots and tested pixels relate: of one scene, of its official maps, of distant blocks of it, or of two halves,
# each a scene of its own
Setting = Literal["random", "official", "blocks", "cross-scene"]
Part = Literal[
    "pixels", "names", "no names", "shuffled names", "equal priors", "cosine head", "learned text", "frozen text"
]

NAMES_ALONE = "class names alone"
SHUFFLED_ALONE = "shuffled class names alone"


@dataclass(frozen=True)
class Job:
    """One encoder (or none) on one scene, and all that is read from it.

    Attributes:
        label: what its rows begin with; of a classical classifier its name.
        scene: name of the scene and of its archive.
        parts: ``pixels``: a classical classifier, which needs no encoder. Kernel head with ``names``, without (``no
            names``), with ``shuffled names`` and with ``equal priors`` (and names); ``cosine head``. The head that
            ``fewshot`` says with ``learned text`` or ``frozen text``.
        setting: how shots and tested pixels relate.
        shots: labelled pixels a class.
        seeds: draws of each.
        model: of the encoder.
        steps: of pretraining on the scene; 0 for random weights.
        shipped: whether the encoder is the one that comes with the package.
        fewshot: how classifiers are fitted.
        windows: that are read for the test at most, evenly spread over the labelled pixels; None for all.
        text: the frozen text, as ``--text`` takes it; empty: class names by the sentence model.
    """

    label: str
    scene: str
    parts: tuple[Part, ...]
    setting: Setting
    shots: tuple[int, ...]
    seeds: int
    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 0
    shipped: bool = False
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)
    windows: int | None = None
    text: str = ""

    def key(self, fingerprint: str) -> str:
        """Names the job's file."""
        settings = {**asdict(self), "archive": fingerprint}
        if self.parts == ("pixels",):  # which know no encoder
            settings |= {"model": self.footprint, "fewshot": ""}
        return digest(settings)

    @property
    def footprint(self) -> int:
        """Side in pixels of the square that a kernel head with this encoder looks at; blocks lie as far apart."""
        window = self.model.window
        return Grid(1, 1, window, min(self.fewshot.stride, window)).footprint + 2 * self.fewshot.smoothing_reach


@dataclass(frozen=True)
class Measurement:
    """One classifier at one count of shots; figures by seed.

    Attributes:
        row: name of the classifier.
        scene: that it is tested on.
        setting: how shots and tested pixels relate.
        sees: what it learns from: the ``shots``, or also ``unlabelled pixels``, the tested ones among them
            (transductive; but for ``cross-scene``, where it is fitted before it sees them).
        shots: labelled pixels a class.
        oa_percent: by seed.
        aa_percent: by seed.
        kappa: by seed.
    """

    row: str
    scene: str
    setting: str
    sees: str
    shots: int
    oa_percent: tuple[float, ...]
    aa_percent: tuple[float, ...]
    kappa: tuple[float, ...]

    @classmethod
    def of(cls, row: str, job: Job, sees: str, shots: int, scores: list[Scores]) -> "Measurement":
        """The figures of some seeds."""
        oa, aa, kappa = zip(*((one.oa, one.aa, one.kappa) for one in scores), strict=True)
        return cls(row, job.scene, job.setting, sees, shots, oa, aa, kappa)


def kept_file(job: Job, folder: Path, fingerprint: str) -> Path:
    """Where a job's measurements are kept."""
    return folder / "jobs" / f"{job.key(fingerprint)}.json"


def measured(job: Job, folder: Path) -> list[Measurement]:
    """A job's measurements: those kept in the folder, else made now and kept."""
    torch.set_num_threads(1)
    archive = Archive.open(str(folder / "archives" / job.scene))

    def measure() -> list[dict[str, Any]]:
        # a scene may call itself something else than its folder
        scene = completed(archive.read_scene(archive.manifest.scenes[0].name), REAL.get(job.scene, {}))
        made = _pixel_row(job, scene) if job.parts == ("pixels",) else _ours(job, scene, archive, folder)
        return [asdict(one) for one in made]

    return [_restored(one) for one in kept_in(kept_file(job, folder, archive.fingerprint), measure)]


def _restored(one: dict[str, Any]) -> Measurement:
    figures = {name: tuple(one[name]) for name in ("oa_percent", "aa_percent", "kappa")}
    return Measurement(**(one | figures))


def _reference(scene: Scene) -> Reference:
    """Labels of the pixels that have data."""
    assert scene.labels is not None
    return Reference.of_maps(np.where(present(scene), scene.labels, 0), scene.record.classes)


def _draws(job: Job, learned_from: Scene, tested: Scene, shots: int) -> list[Draw]:
    """The draws that all rows of a scene and a setting share."""
    reference = _reference(learned_from)
    episodes = [draw_episode(reference, shots, seed, _protocol(job), job.footprint) for seed in range(job.seeds)]
    if tested is learned_from:
        return [Draw(one.support, one.query) for one in episodes]
    other = _reference(tested)
    known = other.pixels(other.labels.where(np.isin(other.labels.class_ids, reference.classes())))
    return [Draw(one.support, known) for one in episodes]


def _protocol(job: Job) -> Protocol:
    return "random" if job.setting == "cross-scene" else job.setting


def _scenes(job: Job, scene: Scene) -> tuple[Scene, Scene]:
    """The scene that is learned from and the one that is tested."""
    return halves(scene) if job.setting == "cross-scene" else (scene, scene)


def _scored(learned_from: Scene, query: Pixels, predicted: np.ndarray[Any, Any]) -> Scores:
    ids = np.asarray(_reference(learned_from).classes())
    # a class that no shot shows is no class of the test: it counts as wrong
    places = np.minimum(np.searchsorted(ids, predicted), len(ids) - 1)
    true = np.searchsorted(ids, query.class_ids)
    wrong = (true + 1) % len(ids)
    return score(true, np.where(ids[places] == predicted, places, wrong), len(ids))


def _pixel_row(job: Job, scene: Scene) -> list[Measurement]:
    learned_from, tested = _scenes(job, scene)
    (row,) = (row for row in PIXEL_ROWS if row.name == job.label)
    asked = {shots: _draws(job, learned_from, tested, shots) for shots in job.shots if shots >= row.least_shots}
    draws = [draw for held in asked.values() for draw in held]
    predicted = iter(row.predicted(learned_from, tested, draws))
    return [
        Measurement.of(
            row.name, job, row.sees, shots, [_scored(learned_from, draw.query, next(predicted)) for draw in held]
        )
        for shots, held in asked.items()
    ]


def _ours(job: Job, scene: Scene, archive: Archive, folder: Path) -> list[Measurement]:
    encoder = _encoder(job, scene, archive, folder)
    found = []
    for part in job.parts:
        row, config, text, shown, alone = f"{job.label}, {part}", job.fewshot, WITHOUT_WORDS, scene, None
        if part == "names":
            row, text, alone = job.label, WORDS, NAMES_ALONE
        elif part == "shuffled names":
            text, shown, alone = WORDS, _with_other_names(scene), SHUFFLED_ALONE
        elif part == "equal priors":
            text, config = WORDS, replace(job.fewshot, class_priors="equal")
        elif part == "cosine head":
            config = replace(job.fewshot, head="cosine")
        elif part == "learned text":
            row = job.label
        elif part == "frozen text":
            row, text = job.label, job.text or sentence_bank(folder / "text" / job.scene, scene.record.classes)
        changed = replace(job, fewshot=config)
        if job.setting == "cross-scene":
            found += _across(changed, shown, row, text)
        else:
            # without shots an encoder has no say, and blocks test on the same pixels
            again = job.steps or job.shipped or job.setting == "blocks"
            found += _within(changed, shown, encoder, row, text, None if again else alone)
    return found


def _with_other_names(scene: Scene) -> Scene:
    """The scene with names that each stand for the next class."""
    ids = list(scene.record.classes)
    other = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    names, descriptions = scene.record.classes, scene.record.descriptions
    shuffled = replace(
        scene.record,
        classes={c: names[other[c]] for c in ids},
        descriptions={c: descriptions[other[c]] for c in ids if other[c] in descriptions},
    )
    return replace(scene, record=shuffled)


def _within(
    job: Job, scene: Scene, whole: MultimodalEncoder, row: str, text: str, alone: str | None
) -> list[Measurement]:
    """A row's figures; where class names act alone, theirs too, as a row of its own."""
    encoder = encoder_for_scene(whole, scene.record, row)
    asked = [job.shots] if alone is None else [(0, *job.shots), job.shots]
    for shots in asked:
        try:
            outcome = run_task(scene, encoder, Task(shots, job.seeds, _protocol(job), text), job.fewshot, job.windows)
            break
        except BadInput:  # where names cannot act, no class is told by its name alone
            if shots == asked[-1]:
                raise
    return [
        Measurement.of(
            row if k else str(alone), job, "unlabelled pixels", k, [run.scores for run in outcome.of_shots(k)]
        )
        for k in shots
    ]


def _across(job: Job, scene: Scene, row: str, text: str) -> list[Measurement]:
    """With random weights: an encoder pretrained on the whole scene would have seen the tested half."""
    assert job.steps == 0
    assert job.model == ModelConfig()
    learned_from, tested = halves(scene)
    assert learned_from.labels is not None
    found = []
    for shots in job.shots:
        scores = []
        for seed, draw in enumerate(_draws(job, learned_from, tested, shots)):
            labels = np.zeros_like(learned_from.labels)
            labels[draw.support.rows, draw.support.cols] = draw.support.class_ids
            classifier = FewShotClassifier(
                CONTROL, text=text, head=job.fewshot.head, class_priors=job.fewshot.class_priors, random_state=seed
            ).fit(learned_from, labels)
            # both halves come from one file, in one unit
            class_map = np.asarray(classifier.predict(tested, trust_units=True))
            scores.append(_scored(learned_from, draw.query, class_map[draw.query.rows, draw.query.cols]))
        found.append(Measurement.of(row, job, "unlabelled pixels", shots, scores))
    return found


def _encoder(job: Job, scene: Scene, archive: Archive, folder: Path) -> MultimodalEncoder:
    if job.shipped:
        shipped = fit_to_scene(read_shipped(), scene.record).encoder
        assert isinstance(shipped, MultimodalEncoder)
        return shipped
    if job.steps:
        return _pretrained(job, archive, folder)
    return new_encoder(job.model, [ModalitySchema.of(one) for one in scene.record.modalities], seed=0)


def _pretrained(job: Job, archive: Archive, folder: Path) -> MultimodalEncoder:
    run = folder / "runs" / digest([asdict(job.model), job.steps, archive.fingerprint])
    if not run.exists():
        # in a folder of this process, for another may need the same encoder at the same time
        partial = run.with_name(f"{run.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        config = PretrainConfig(
            archive=archive.location, run_dir=str(partial), steps=job.steps, model=job.model,
            checkpoint_every=job.steps, log_every=max(job.steps // 10, 1), reconstruct_windows=0,
        )  # fmt: skip
        pretrain_single_process(config)
        with contextlib.suppress(OSError):  # the other was first
            partial.rename(run)
        shutil.rmtree(partial, ignore_errors=True)
    return load_encoder(run / "encoder")
