"""Scenes into an archive: built beside its place, published by one rename, so that it is there whole or not at all."""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.build_shard import MissingValueTaken, ShardResult, build_shard, file_record
from shards.errors import BadInput
from shards.manifest import (
    MANIFEST_NAME,
    SCENES_FOLDER,
    FileRecord,
    Manifest,
    ModalityRecord,
    SceneRecord,
    new_manifest,
    write_manifest,
)
from shards.missing import missing_candidates
from shards.plan import ArchiveSettings, ShardPlan, plan_shards
from shards.source import Modality, SceneSource
from shards.statistics import BandStatistics
from shards.zarr_scenes import SceneLayout, StoredModality, create_zarr_scene


@dataclass(frozen=True)
class Progress:
    """How far a build is: shards done and in all, of one scene."""

    scene: str
    done: int
    total: int


def build_archive(
    sources: Sequence[SceneSource],
    out: Path,
    settings: ArchiveSettings,
    report: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Builds an archive of scenes; the same scenes and settings give the same bytes.

    Args:
        sources: the scenes, each with a name of its own.
        out: the archive's folder, which must not exist.
        settings: tile size, halo, samples a shard.
        report: called after each shard.

    Raises:
        BadInput: two scenes bear one name, `out` exists, or a scene cannot be used; nothing is left behind.
    """
    if not sources:
        raise BadInput("no scene given")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two scenes bear the name {name!r}; each needs a name of its own")
    if out.exists():
        raise BadInput(f"{out}: exists already; name a new place for the archive")
    with _published(out) as content:
        records, files = [], []
        for source in sources:
            record, scene_files = _build_scene(source, content, settings, report)
            records.append(record)
            files.extend(scene_files)
        manifest = new_manifest(tuple(records), tuple(files))
        (content / MANIFEST_NAME).write_bytes(write_manifest(manifest))
    return manifest


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name once all is written, and goes where anything fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        content = out.parent / f".{out.name}.building"
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir()
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from error
    try:
        yield content
        content.rename(out)
    finally:
        shutil.rmtree(content, ignore_errors=True)


def _build_scene(
    source: SceneSource, content: Path, settings: ArchiveSettings, report: Callable[[Progress], None]
) -> tuple[SceneRecord, list[FileRecord]]:
    """Builds one scene, with other missing values where a first choice turns out to be taken by a valid pixel."""
    candidates = {modality.name: missing_candidates(modality) for modality in source.modalities}
    stored = {modality.name: _next(candidates[modality.name], modality) for modality in source.modalities}
    while True:
        layout = SceneLayout(
            source.name,
            source.height,
            source.width,
            tuple(stored.values()),
            source.classes,
            source.crs_wkt,
            source.transform,
            source.generated,
            settings,
        )
        try:
            return _build_layout(source, layout, content, report)
        except MissingValueTaken as taken:
            modality = stored[taken.modality].modality
            stored[taken.modality] = _next(candidates[taken.modality], modality)
            for folder in content.glob(f"*/{source.name}[.-]*"):
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def _next(candidates: Iterator[tuple[np.dtype[np.generic], float | int]], modality: Modality) -> StoredModality:
    found = next(candidates, None)
    if found is None:
        raise BadInput(f"{modality.name}: every {modality.dtype} value is in use; give `nodata` a value that is not")
    return StoredModality(modality, found[0].name, found[1])


def _build_layout(
    source: SceneSource, layout: SceneLayout, content: Path, report: Callable[[Progress], None]
) -> tuple[SceneRecord, list[FileRecord]]:
    scene_folder = content / SCENES_FOLDER / f"{layout.name}.zarr"
    create_zarr_scene(scene_folder, layout)
    files = [
        file_record(content, path.relative_to(content).as_posix(), 0)
        for path in scene_folder.rglob("*")
        if path.is_file()
    ]
    plans = list(plan_shards(layout.height, layout.width, layout.settings))
    results: list[ShardResult] = []
    for plan in plans:
        results.append(_build_into(content, source, layout, plan))
        report(Progress(layout.name, len(results), len(plans)))
    files.extend(itertools.chain.from_iterable(result.files for result in results))
    return scene_record(layout, results), files


def _build_into(content: Path, source: SceneSource, layout: SceneLayout, plan: ShardPlan) -> ShardResult:
    scratch = content.parent / f"{content.name}.shard"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        result = build_shard(source, layout, plan, scratch)
        for record in result.files:
            target = content / record.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (scratch / record.path).rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def scene_record(layout: SceneLayout, results: Sequence[ShardResult]) -> SceneRecord:
    """The manifest's record of a scene, from what its shards gave, in their order.

    Raises:
        BadInput: a modality has no valid pixel, or a band is constant.
    """
    modalities = []
    for stored in layout.modalities:
        total = BandStatistics.empty(stored.modality.bands)
        for result in results:
            total = total.merged(result.statistics[stored.modality.name])
        modalities.append(_modality_record(layout.name, stored, total))
    classes = layout.classes
    return SceneRecord(
        name=layout.name,
        height=layout.height,
        width=layout.width,
        modalities=tuple(modalities),
        crs_wkt=layout.crs_wkt,
        transform=layout.transform,
        classes=dict(classes.names) if classes else {},
        descriptions=dict(classes.descriptions) if classes else {},
        official_split=bool(classes and classes.official_split),
        generated=layout.generated,
        tile_size=layout.settings.tile_size,
        halo=layout.settings.halo,
        samples_per_shard=layout.settings.samples_per_shard,
        tiles=tuple(itertools.chain.from_iterable(result.tiles for result in results)),
    )


def _modality_record(scene: str, stored: StoredModality, total: BandStatistics) -> ModalityRecord:
    modality, std = stored.modality, total.std
    if not total.count:
        raise BadInput(
            f"{scene}: {modality.name}: no valid pixel: each is nodata, not finite or covered by no file in some band"
        )
    if not std.any():
        raise BadInput(f"{scene}: {modality.name}: every band is constant over the {total.count} valid pixels")
    return ModalityRecord(
        modality.name,
        modality.bands,
        stored.dtype,
        modality.wavelengths_nm,
        modality.fwhm_nm,
        modality.bad_bands,
        tuple(total.mean.tolist()),
        tuple(std.tolist()),
        total.count,
        stored.missing_value,
    )
