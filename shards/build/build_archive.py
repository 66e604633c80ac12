"""Builds an archive of scenes, shard by shard, in one process or many, to the same bytes."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from shards.archive.archive import Archive
from shards.archive.manifest import SCENES_FOLDER, FileRecord, Manifest, SceneRecord
from shards.archive.manifest_tables import archive_manifest
from shards.archive.missing import missing_candidates
from shards.archive.tiling import ArchiveSettings, ShardPlan, fitting_settings, plan_shards
from shards.archive.zarr_scenes import SceneLayout, StoredModality, create_zarr_scene
from shards.build.build_journal import read_entry, write_entry
from shards.build.build_shard import MissingValueTaken, ShardResult, build_shard, file_record
from shards.build.parallel import ray_session, run_all
from shards.build.scene_record import scene_record
from shards.build.staging import Staging, open_staging, publish
from shards.errors import BadInput, FailedRun
from shards.scene.names import checked_scene_name
from shards.scene.source import Modality, SceneSource


@dataclass(frozen=True)
class Progress:
    """Progress of one scene: bytes of pixels and shards, done and in total."""

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
    """Builds an archive of scenes. The same scenes and settings give the same bytes for any number of workers.

    A build that was killed and is started again keeps the finished shards whose files still have their hashes.

    Args:
        sources: the scenes, each with a name of its own.
        out: the archive's place: a folder or an fsspec URL, where nothing is yet.
        settings: tile size, halo, samples per shard, memory.
        workers: shards built at once; more than 1 run as Ray tasks.
        add: adds the scenes to the archive at `out`, whose files are not written again.
        report: called after each shard.

    Raises:
        BadInput: two scenes have one name, `out` exists, or a scene cannot be used; nothing is left behind.
        DamagedArchive: the archive to be added to is not as its manifest says.
        FailedRun: a file cannot be written, as on a full disk; nothing is left behind.
    """
    names = [source.name for source in sources]
    older = Archive.open(out, verify="size").manifest if add else None
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
            raise BadInput(f"{out}: two scenes have the name {name!r}; each needs a name of its own")
    records: list[SceneRecord] = list(older.scenes) if older else []
    files: list[FileRecord] = list(older.files) if older else []
    try:
        with ray_session(workers) if workers > 1 else nullcontext(), open_staging(out, names, add) as staging:
            for record, scene_files in _build_scenes(sources, staging, settings, workers, report):
                records.append(record)
                files.extend(scene_files)
            manifest, tables = archive_manifest(records, files)
            publish(staging, out, manifest, tables, names, add)
    except OSError as error:
        raise FailedRun(f"{out}: cannot be built: {error}") from error
    return manifest


def _build_scenes(
    sources: Sequence[SceneSource], staging: Staging, settings: ArchiveSettings, workers: int, report: Report
) -> list[tuple[SceneRecord, list[FileRecord]]]:
    """Builds all scenes at once, so that many small ones keep the workers busy.

    If a valid pixel holds a modality's missing value, the scene is built again with another missing value.
    """
    choices = [_Choice(source) for source in sources]
    built: dict[int, tuple[SceneRecord, list[FileRecord]]] = {}
    while len(built) < len(sources):
        left = [number for number in range(len(sources)) if number not in built]
        jobs = {number: _job(number, sources[number], choices[number].stored, staging, settings) for number in left}
        plans = {number: _plans(job.layout) for number, job in jobs.items()}
        calls = [(job, plan) for number, job in jobs.items() for plan in plans[number]]
        shown = {
            number: Progress(job.layout.name, 0, job.raw_bytes, 0, len(plans[number])) for number, job in jobs.items()
        }
        results: dict[int, dict[int, ShardResult]] = {number: {} for number in left}
        taken: dict[int, str] = {}
        for number, plan, outcome in run_all(_build_one, calls, workers):
            if isinstance(outcome, str):
                taken[number] = outcome
                continue
            results[number][plan.index] = outcome
            bytes_done = shown[number].bytes_done + plan.box.height * plan.box.width * jobs[number].layout.pixel_bytes
            shown[number] = replace(shown[number], bytes_done=bytes_done, shards_done=len(results[number]))
            report(shown[number])
        for number, job in jobs.items():
            if number in taken:
                choices[number].pass_over(taken[number])
            else:
                ordered = [results[number][plan.index] for plan in plans[number]]
                files = [*_write_metadata(job), *(file for result in ordered for file in result.files)]
                built[number] = scene_record(job.layout, ordered), files
    return [built[number] for number in range(len(sources))]


class _Choice:
    """The choice of dtype and missing value for each modality of a scene."""

    def __init__(self, source: SceneSource) -> None:
        self._scene = source.name
        self._candidates = {modality.name: missing_candidates(modality) for modality in source.modalities}
        self._chosen = {modality.name: self._next(modality) for modality in source.modalities}

    @property
    def stored(self) -> tuple[StoredModality, ...]:
        return tuple(self._chosen.values())

    def pass_over(self, name: str) -> None:
        """Takes the next candidate for a modality whose missing value is in use."""
        self._chosen[name] = self._next(self._chosen[name].modality)

    def _next(self, modality: Modality) -> StoredModality:
        found = next(self._candidates[modality.name], None)
        if found is None:
            raise BadInput(
                f"{self._scene}: {modality.name}: both ends of {modality.dtype} are in use by valid pixels and no "
                "wider type is left to mark missing ones; give `nodata` a value that no pixel holds"
            )
        return StoredModality(modality, found[0].name, found[1])


@dataclass(frozen=True)
class _Job:
    """What has to be built of a scene.

    Attributes:
        number: of the scene.
        source: the scene.
        layout: how it is stored.
        staging: where the shards are put.
        key: differs wherever source, layout or settings differ.
    """

    number: int
    source: SceneSource
    layout: SceneLayout
    staging: Staging
    key: str

    @property
    def raw_bytes(self) -> int:
        """Bytes of all its pixels."""
        return self.layout.height * self.layout.width * self.layout.pixel_bytes


def _plans(layout: SceneLayout) -> tuple[ShardPlan, ...]:
    """The scene's shards."""
    return tuple(plan_shards(layout.height, layout.width, layout.settings))


def _job(
    number: int, source: SceneSource, stored: tuple[StoredModality, ...], staging: Staging, settings: ArchiveSettings
) -> _Job:
    layout = SceneLayout(
        source.name,
        source.height,
        source.width,
        stored,
        source.classes,
        source.crs_wkt,
        source.transform,
        source.generated,
        settings,
    )
    layout = replace(layout, settings=fitting_settings(settings, layout.pixel_bytes, source.name))
    key = hashlib.sha256(f"{layout!r} {source.identity}".encode()).hexdigest()
    return _Job(number, source, layout, staging, key)


def _write_metadata(job: _Job) -> list[FileRecord]:
    """Writes the scene's Zarr metadata and coordinates, which belong to no shard."""
    with job.staging.shard_folder() as folder:
        create_zarr_scene(folder / SCENES_FOLDER / f"{job.layout.name}.zarr", job.layout)
        paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        files = [file_record(folder, path, 0) for path in paths]
        for path in paths:
            job.staging.content.put(folder / path, path)
    return files


def _build_one(job: _Job, plan: ShardPlan) -> tuple[int, ShardPlan, ShardResult | str]:
    """Builds a shard, or keeps a finished one. Returns a modality's name if a valid pixel holds its missing value."""
    name = f"{job.layout.name}/{plan.index:06d}.json"
    if (kept := read_entry(job.staging, name, job.key)) is not None:
        return job.number, plan, kept
    with job.staging.shard_folder() as folder:
        try:
            result = build_shard(job.source, job.layout, plan, folder)
        except MissingValueTaken as taken:
            return job.number, plan, taken.modality
        for record in result.files:
            job.staging.content.put(folder / record.path, record.path)
    write_entry(job.staging, name, job.key, result)
    return job.number, plan, result
