"""Runs a few-shot study on a scene of an archive, or fits a classifier to all of its labels."""

import time
from collections.abc import Callable
from dataclasses import replace

from diffclip_dist.feature_extraction.band_match import pick_bands
from diffclip_dist.feature_extraction.bands_only import best_device
from diffclip_dist.feature_extraction.encoder_source import open_encoder
from diffclip_dist.feature_extraction.reading import affordable_windows
from diffclip_dist.fewshot.class_text import check_text_kind
from diffclip_dist.fewshot.episodes import Protocol
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fit_labels import (
    cross_validate,
    fit_to_labels,
    labelled_scene,
    official_labels,
    own_labels,
)
from diffclip_dist.mapping.predict import MapOptions, map_job, quick_rows
from diffclip_dist.study.experiment import Task, run_task
from diffclip_dist.study.fit_study import FitStudy
from diffclip_dist.study.study import Study
from shards.archive.archive import Archive
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput

QUICK_SEEDS = 2
# Labels to learn from and to test on
QUICK_LABELS = 150, 500
FIT_SEED = 0


def choose_scene(archive: Archive, name: str | None) -> SceneRecord:
    """The named scene, else the only labelled one.

    Raises:
        BadInput: there is no such scene, it has no labels, or there is more than one to choose from.
    """
    labelled = [record for record in archive.manifest.scenes if record.classes]
    listed = ", ".join(record.name for record in labelled) or "none"
    if name is not None:
        record = archive.scene(name)
        if record not in labelled:
            raise BadInput(f"--scene {name}: has no labels; scenes with labels: {listed}")
        return record
    if len(labelled) != 1:
        raise BadInput(f"{archive.location}: expected --scene to name one of its scenes with labels: {listed}")
    return labelled[0]


def run_study(
    archive: Archive,
    scene_name: str | None,
    encoder_spec: str,
    task: Task,
    config: FewshotConfig,
    quick: bool = False,
    report: Callable[[str, int, int], None] = lambda *_: None,
    *,
    map_bands: bool = False,
    trust_units: bool = False,
) -> Study:
    """Runs a task on a scene of an archive.

    Args:
        archive: holds the scene.
        scene_name: of the scene; None takes the only labelled one.
        encoder_spec: as `open_encoder` takes it.
        task: shots, seeds, protocol, text.
        config: how features are extracted and classifiers are fitted.
        quick: do little of everything, to show that it runs.
        report: called with a phase, steps done and steps in all.
        map_bands: where the encoder knows other bands, take the nearest by wavelength, see `match_modalities`.
        trust_units: take a scene whose values seem to come in other units than the encoder knows, see `check_units`.

    Raises:
        BadInput: scene, encoder, text or protocol do not exist or do not fit each other.
    """
    check_text_kind(task.text)
    record = choose_scene(archive, scene_name)
    encoder = open_encoder(encoder_spec, record, map_bands=map_bands, trust_units=trust_units)
    encoder.encoder.to(best_device())  # where features are extracted and classifiers fitted
    limit = None
    if quick:
        task, config = replace(task, seeds=min(task.seeds, QUICK_SEEDS)), _quick_config(config)
        limit = affordable_windows(encoder.encoder)
    begun = time.perf_counter()
    scene = pick_bands(archive[record.name], encoder.matches)
    outcome = run_task(scene, encoder.encoder, task, config, limit, report)
    return Study(scene, encoder, task, config, outcome, quick, time.perf_counter() - begun)


def run_fit(
    archive: Archive,
    scene_name: str | None,
    encoder_spec: str,
    protocol: Protocol,
    text: str,
    config: FewshotConfig,
    quick: bool = False,
    report: Callable[[str, int, int], None] = lambda *_: None,
    *,
    map_bands: bool = False,
    trust_units: bool = False,
) -> FitStudy:
    """Fits a classifier to every label of a scene, and tests by cross-validation over the labels.

    The map is computed where it is written (`publish`), for a scene may be too large for memory.

    Args:
        archive: holds the scene.
        scene_name: of the scene; None takes the only labelled one.
        encoder_spec: as `open_encoder` takes it.
        protocol: how labels are held out, see `cross_validate`. ``official`` learns from the official training map
            alone.
        text: kind of text, as `build_text` takes it.
        config: how features are extracted and classifiers are fitted.
        quick: do little of everything, to show that it runs.
        report: called with a phase, steps done and steps in all.
        map_bands: as `run_study` takes it.
        trust_units: as `run_study` takes it.

    Raises:
        BadInput: scene, encoder, text or protocol do not exist or do not fit each other, or there are too few labels.
    """
    check_text_kind(text)
    record = choose_scene(archive, scene_name)
    encoder = open_encoder(encoder_spec, record, map_bands=map_bands, trust_units=trust_units)
    encoder.encoder.to(best_device())  # where features are extracted and classifiers fitted
    begun = time.perf_counter()
    scene = pick_bands(archive[record.name], encoder.matches)
    labels = official_labels if protocol == "official" else own_labels
    labelled = labelled_scene(
        scene, encoder, labels, record.classes, record.descriptions, text, _quick_config(config) if quick else config,
        FIT_SEED, QUICK_LABELS if quick else None,
    )  # fmt: skip
    report("fitting", 0, 1)
    classifier = fit_to_labels(labelled, record.class_id_shift)
    report("fitting", 1, 1)
    validation = cross_validate(labelled, protocol, lambda phase, done, total: report(f"folds: {phase}", done, total))
    job = map_job(classifier, scene, MapOptions(rows=quick_rows(classifier, record) if quick else None))
    return FitStudy(labelled, protocol, classifier, validation, job, quick, time.perf_counter() - begun)


def _quick_config(config: FewshotConfig) -> FewshotConfig:
    return replace(config, steps=min(config.steps, 30), views=1, smoothing=0, statistics_windows=64)
