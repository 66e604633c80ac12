"""Scenes into an archive, shard by shard, by one process or many, with the same bytes whichever way."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shards.archive import Archive
from shards.build_shard import MissingValueTaken, ShardResult, build_shard, file_record
from shards.errors import BadInput, FailedRun
from shards.finished import finished_result, note_result
from shards.manifest import SCENES_FOLDER, FileRecord, Manifest, SceneRecord, new_manifest
from shards.missing import missing_candidates
from shards.names import checked_scene_name
from shards.parallel import ray_session, run_all
from shards.plan import ArchiveSettings, ShardPlan, fitting_settings, plan_shards
from shards.scene_record import scene_record
from shards.source import Modality, SceneSource
from shards.workplace import Workplace, open_workplace, publish
from shards.zarr_scenes import SceneLayout, StoredModality, create_zarr_scene


@dataclass(frozen=True)
class Progress:
    """How far a scene is: bytes of pixels done and in all, and the same in shards."""

    scene: str
    bytes_done: int
    bytes_total: int
    shards_done: int
    shards_total: int


Report = Callable[[Progress], None]


def build_archive(
    sources: Sequence[SceneSource],
    out: str | Path,
    settings: ArchiveSettings,
    *,
    workers: int = 1,
    add: bool = False,
    report: Report = lambda _: None,
) -> Manifest:
    """Builds an archive of scenes; the same scenes and settings give the same bytes, whatever the number of workers.

    A build that was killed goes on where it was when it is started again: shards that are finished, and whose files
    still have their hashes, are kept.

    Args:
        sources: the scenes, each with a name of its own.
        out: the archive's place: a folder or an fsspec URL, where nothing is yet.
        settings: tile size, halo, samples a shard, memory.
        workers: shards that are built at once; more than 1 are Ray tasks.
        add: the archive is there already, and the scenes are added to it; what is there is not written again.
        report: called after each shard.

    Raises:
        BadInput: two scenes bear one name, `out` is taken, or a scene cannot be used; nothing is left behind.
        DamagedArchive: the archive to be added to is not as its manifest says.
        FailedRun: a file cannot be written, as on a full disk; nothing is left behind.
    """
    names = [source.name for source in sources]
    older = Archive.open(out).manifest if add else None
    taken = [scene.name for scene in older.scenes] if older else []
    if not sources:
        raise BadInput("no scene given")
    if workers < 1:
        raise BadInput(f"workers: {workers}, expected at least 1")
    for name in names:
        try:
            checked_scene_name(name)
        except ValueError as error:
            raise BadInput(f"scene name: {error}") from error
        if (names + taken).count(name) > 1:
            raise BadInput(f"{out}: two scenes bear the name {name!r}; each needs a name of its own")
    records: list[SceneRecord] = list(older.scenes) if older else []
    files: list[FileRecord] = list(older.files) if older else []
    try:
        with ray_session(workers) if workers > 1 else nullcontext(), open_workplace(out, names, add) as place:
            for source in sources:
                record, scene_files = _build_scene(source, place, settings, workers, report)
                records.append(record)
                files.extend(scene_files)
            manifest = new_manifest(tuple(records), tuple(files))
            publish(place, out, manifest, names, add)
    except OSError as error:
        raise FailedRun(f"{out}: cannot be built: {error}") from error
    return manifest


def _build_scene(
    source: SceneSource, place: Workplace, settings: ArchiveSettings, workers: int, report: Report
) -> tuple[SceneRecord, list[FileRecord]]:
    """Builds one scene, with other missing values where a first choice turns out to be taken by a valid pixel."""
    candidates = {modality.name: missing_candidates(modality) for modality in source.modalities}
    stored = {modality.name: _next(candidates[modality.name], source, modality) for modality in source.modalities}
    while True:
        chosen = tuple(stored.values())
        pixel_bytes = sum(one.modality.bands * np.dtype(one.dtype).itemsize for one in chosen)
        layout = SceneLayout(
            source.name,
            source.height,
            source.width,
            chosen,
            source.classes,
            source.crs_wkt,
            source.transform,
            source.generated,
            fitting_settings(settings, pixel_bytes, source.name),
        )
        try:
            return _build_layout(source, layout, place, workers, report)
        except MissingValueTaken as taken:
            modality = stored[taken.modality].modality
            stored[taken.modality] = _next(candidates[taken.modality], source, modality)


def _next(
    candidates: Iterator[tuple[np.dtype[np.generic], float | int]], source: SceneSource, modality: Modality
) -> StoredModality:
    found = next(candidates, None)
    if found is None:
        raise BadInput(
            f"{source.name}: {modality.name}: both ends of {modality.dtype} are in use by valid pixels and no wider "
            "type is left to mark missing ones; give `nodata` a value that no pixel holds"
        )
    return StoredModality(modality, found[0].name, found[1])


@dataclass(frozen=True)
class _Job:
    """What all shards of a scene share."""

    source: SceneSource
    layout: SceneLayout
    place: Workplace
    key: str


def _build_layout(
    source: SceneSource, layout: SceneLayout, place: Workplace, workers: int, report: Report
) -> tuple[SceneRecord, list[FileRecord]]:
    files = _write_metadata(layout, place)
    plans = list(plan_shards(layout.height, layout.width, layout.settings))
    key = hashlib.sha256(f"{layout!r} {source.identity}".encode()).hexdigest()
    pixel_bytes = sum(one.modality.bands * np.dtype(one.dtype).itemsize for one in layout.modalities)
    progress = Progress(layout.name, 0, layout.height * layout.width * pixel_bytes, 0, len(plans))
    report(progress)
    results: dict[int, ShardResult] = {}
    for plan, result in run_all(_build_one, _Job(source, layout, place, key), plans, workers):
        results[plan.index] = result
        bytes_done = progress.bytes_done + plan.box.height * plan.box.width * pixel_bytes
        progress = replace(progress, bytes_done=bytes_done, shards_done=len(results))
        report(progress)
    ordered = [results[plan.index] for plan in plans]
    files.extend(itertools.chain.from_iterable(result.files for result in ordered))
    return scene_record(layout, ordered), files


def _write_metadata(layout: SceneLayout, place: Workplace) -> list[FileRecord]:
    """Writes the scene's Zarr metadata and coordinates, which belong to no shard."""
    with place.making() as folder:
        create_zarr_scene(folder / SCENES_FOLDER / f"{layout.name}.zarr", layout)
        paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        files = [file_record(folder, path, 0) for path in paths]
        for path in paths:
            place.content.put(folder / path, path)
    return files


def _build_one(job: _Job, plan: ShardPlan) -> tuple[ShardPlan, ShardResult]:
    """Builds a shard, unless an earlier build left it finished."""
    name = f"{job.layout.name}/{plan.index:06d}.json"
    if (kept := finished_result(job.place, name, job.key)) is not None:
        return plan, kept
    with job.place.making() as folder:
        result = build_shard(job.source, job.layout, plan, folder)
        for record in result.files:
            job.place.content.put(folder / record.path, record.path)
    note_result(job.place, name, job.key, result)
    return plan, result
