"""What the accuracy benchmark measures: classical classifiers and ours, on one scene, over shots and seeds.

A job's measurements are kept in a file named by its settings and its archive's fingerprint, so that a run that was
stopped goes on where it was.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from real_scenes import REAL, completed
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import as_tensor, standardise
from diffclip_dist.feature_extraction.reading import ReadPixels, read_pixels
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene, view_scene
from diffclip_dist.fewshot.episodes import Reference, draw_episode
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.metrics import Scores, score
from diffclip_dist.fewshot.names_prior import WITHOUT_WORDS, WORDS
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import load_encoder, new_encoder
from diffclip_dist.study.experiment import Task, pixels_to_read, run_task
from diffclip_dist.train.pretrain_config import PretrainConfig, StreamConfig
from diffclip_dist.train.single_process import pretrain_single_process
from shards.archive.archive import Archive, Scene
from shards.errors import BadInput

Table = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Part = Literal["classical", "cosine", "kernel", "names", "frozen", "single"]
HEADS: Final[tuple[Part, ...]] = ("cosine", "kernel")


@dataclass(frozen=True)
class Job:
    """One encoder (or none) on one scene, and all that is read from it.

    Attributes:
        label: what its rows begin with.
        scene: name of the scene and of its archive.
        parts: ``classical`` classifiers, which need no encoder; heads, ``cosine`` and ``kernel``, in which class names
            act where they can; ``names``: the kernel head without names, with shuffled ones, and names alone;
            classifiers on ``frozen`` features; the kernel head on each ``single`` modality.
        shots: labelled pixels a class.
        seeds: draws of each.
        model: of the encoder.
        steps: of pretraining; 0 for random weights.
        fewshot: read-out and training of the heads.
        pixel_share: share of the unlabelled pixels that pretraining draws from.
        windows: that are read for the test at most, evenly spread over the labelled pixels; None for all.
    """

    label: str
    scene: str
    parts: tuple[Part, ...]
    shots: tuple[int, ...]
    seeds: int
    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 0
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)
    pixel_share: float = 1.0
    windows: int | None = None

    def key(self, fingerprint: str) -> str:
        """Names the job's file."""
        return _digest({**asdict(self), "archive": fingerprint})


@dataclass(frozen=True)
class Measurement:
    """One classifier at one count of shots; figures by seed."""

    row: str
    scene: str
    shots: int
    oa_percent: tuple[float, ...]
    aa_percent: tuple[float, ...]
    kappa: tuple[float, ...]


def _digest(settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def measured(job: Job, folder: Path) -> list[Measurement]:
    """A job's measurements: those kept in the folder, else made now and kept."""
    torch.set_num_threads(1)
    archive = Archive.open(str(folder / "archives" / job.scene))
    kept = folder / "jobs" / f"{job.key(archive.fingerprint)}.json"
    if not kept.exists():
        # a scene may call itself something else than its folder
        scene = completed(archive.read_scene(archive.manifest.scenes[0].name), REAL.get(job.scene, {}))
        made = _classical(job, scene) if job.parts == ("classical",) else _ours(job, scene, archive, folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps([asdict(one) for one in made]))
        partial.replace(kept)
    return [_restored(one) for one in json.loads(kept.read_text())]


def _restored(one: dict[str, Any]) -> Measurement:
    oa, aa, kappa = (tuple(one[name]) for name in ("oa_percent", "aa_percent", "kappa"))
    return Measurement(one["row"], one["scene"], one["shots"], oa, aa, kappa)


def _measurement(row: str, scene: str, shots: int, scores: list[Scores]) -> Measurement:
    oa, aa, kappa = zip(*((one.oa, one.aa, one.kappa) for one in scores), strict=True)
    return Measurement(row, scene, shots, oa, aa, kappa)


def _reference(scene: Scene) -> Reference:
    """Labels of the pixels that have data."""
    assert scene.labels is not None
    return Reference.of_maps(
        np.where(np.any(list(scene.valid.values()), axis=0), scene.labels, 0), scene.record.classes
    )


def _on_tables(
    job: Job, scene: Scene, makers: dict[str, Callable[[], Any]], table: Table, tested: Mask
) -> list[Measurement]:
    """Classifiers of scikit-learn on one vector a pixel (row, col, feature), on the draws that ours learn from."""
    reference = _reference(scene)
    found = []
    for row, maker in makers.items():
        for shots in job.shots:
            scores = []
            for seed in range(job.seeds):
                episode = draw_episode(reference, shots, seed, "random", 1)
                support = episode.support
                asked = tested[episode.query.rows, episode.query.cols]
                rows, cols, class_ids = (
                    values[asked] for values in (episode.query.rows, episode.query.cols, episode.query.class_ids)
                )
                if "LDA" in row and len(support) <= len(reference.classes()):
                    continue  # no scatter within a class to learn from
                model = maker().fit(table[support.rows, support.cols], support.class_ids)
                said = model.predict(table[rows, cols])
                ids = np.asarray(reference.classes())
                true, predicted = np.searchsorted(ids, class_ids), np.searchsorted(ids, said)
                scores.append(score(true, predicted, len(ids)))
            if scores:
                found.append(_measurement(row, job.scene, shots, scores))
    return found


def _classical(job: Job, scene: Scene) -> list[Measurement]:
    tables = [
        standardise(as_tensor(scene.values[one.name]), as_tensor(scene.valid[one.name]), one).numpy()
        for one in scene.record.modalities
    ]
    found = []
    for said, table in (("spectra", tables[0]), ("all modalities", np.concatenate(tables, axis=2))):
        makers: dict[str, Callable[[], Any]] = {
            f"1-NN, {said}": lambda: KNeighborsClassifier(1),
            f"SVM, {said}": lambda: SVC(C=100.0),
            f"random forest, {said}": lambda: RandomForestClassifier(200, random_state=0),
            f"LDA, {said}": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        }
        found += _on_tables(job, scene, makers, table, np.ones(table.shape[:2], np.bool_))
    return found


def _ours(job: Job, scene: Scene, archive: Archive, folder: Path) -> list[Measurement]:
    schemas = [ModalitySchema.of(one) for one in scene.record.modalities]
    whole = _pretrained(job, archive, folder) if job.steps else new_encoder(job.model, schemas, seed=0)
    found = []
    kernel = replace(job.fewshot, head="kernel")
    if "cosine" in job.parts:
        found += _head(job, scene, whole, replace(job.fewshot, head="cosine"), f"{job.label}, cosine head")
    if "kernel" in job.parts:
        found += _head(job, scene, whole, kernel, f"{job.label}, kernel head")
    if "names" in job.parts:
        found += _names(job, scene, whole, kernel)
    if "frozen" in job.parts:
        encoder = encoder_for_scene(whole, scene.record, job.label)
        makers: dict[str, Callable[[], Any]] = {
            f"{job.label}, linear probe": lambda: LogisticRegression(max_iter=200, tol=1e-2),
            f"{job.label}, SVM on features": lambda: SVC(C=100.0),
        }
        found += _on_tables(job, scene, makers, *_features(job, scene, encoder))
    for one in scene.record.modalities if "single" in job.parts else ():
        alone = replace(scene, record=replace(scene.record, modalities=(one,)))
        found += _head(job, alone, whole, kernel, f"{job.label}, kernel head, {one.name} alone")
    return found


def _names(job: Job, scene: Scene, whole: MultimodalEncoder, config: FewshotConfig) -> list[Measurement]:
    """The kernel head without class names and with names that each stand for the next class; both kinds alone.

    Where names cannot act, their rows are left out.
    """
    found = _head(job, scene, whole, config, f"{job.label}, kernel head, no names", WITHOUT_WORDS)
    ids = list(scene.record.classes)
    other = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    names, descriptions = scene.record.classes, scene.record.descriptions
    shuffled = replace(
        scene.record,
        classes={c: names[other[c]] for c in ids},
        descriptions={c: descriptions[other[c]] for c in ids if other[c] in descriptions},
    )
    alone = replace(job, shots=(0,), seeds=1)
    with contextlib.suppress(BadInput):
        found += _head(alone, scene, whole, config, "class names alone")
        mixed = replace(scene, record=shuffled)
        found += _head(alone, mixed, whole, config, "shuffled class names alone")
        found += _head(job, mixed, whole, config, f"{job.label}, kernel head, shuffled names")
    return found


def _head(
    job: Job, scene: Scene, whole: MultimodalEncoder, config: FewshotConfig, row: str, text: str = WORDS
) -> list[Measurement]:
    encoder = encoder_for_scene(whole, scene.record, row)
    outcome = run_task(scene, encoder, Task(job.shots, job.seeds, "random", text), config, job.windows)
    return [_measurement(row, job.scene, shots, [run.scores for run in outcome.of_shots(shots)]) for shots in job.shots]


def _features(job: Job, scene: Scene, encoder: MultimodalEncoder) -> tuple[Table, Mask]:
    """Standardised features (row, col, feature) of the pixels learned from and tested, and which are tested."""
    view = view_scene(scene, scene.record.modalities, encoder, job.fewshot)
    reference = _reference(scene)
    height, width = view.present.shape
    tested = view.present & pixels_to_read(view.grid, reference, job.windows)(slice(0, height), slice(0, width))
    read = tested.copy()
    for seed in range(job.seeds):  # fewer shots are among the most
        support = draw_episode(reference, max(job.shots), seed, "random", 1).support
        read[support.rows, support.cols] = True
    found = ReadPixels.joined(list(read_pixels(encoder, view.windows, view.grid, read, job.fewshot)))
    known = (found.features.values_PMF * found.features.present_PM[..., None]).flatten(1).numpy()
    table = np.zeros((height, width, known.shape[1]), np.float32)
    table[found.rows, found.cols] = known
    standard: Table = (table - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-4)
    return standard, tested


def _pretrained(job: Job, archive: Archive, folder: Path) -> MultimodalEncoder:
    run = folder / "runs" / _digest([asdict(job.model), job.steps, job.pixel_share, archive.fingerprint])
    if not run.exists():
        # in a folder of this process, for another may need the same encoder at the same time
        partial = run.with_name(f"{run.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        config = PretrainConfig(
            archive=archive.location, run_dir=str(partial), steps=job.steps, model=job.model,
            checkpoint_every=job.steps, log_every=max(job.steps // 10, 1), reconstruct_windows=0,
            stream=StreamConfig(pixel_share=job.pixel_share),
        )  # fmt: skip
        pretrain_single_process(config)
        with contextlib.suppress(OSError):  # the other was first
            partial.rename(run)
        shutil.rmtree(partial, ignore_errors=True)
    return load_encoder(run / "encoder")
