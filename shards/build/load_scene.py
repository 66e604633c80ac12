"""A scene into memory without an archive, for scenes that a Python user holds as arrays."""

from shards.archive.archive import Scene
from shards.archive.missing import missing_candidates
from shards.archive.tiling import ArchiveSettings
from shards.archive.zarr_scenes import SceneLayout, StoredModality
from shards.build.build_shard import ShardResult
from shards.build.scene_record import scene_record
from shards.build.statistics import BandStatistics
from shards.scene.source import SceneSource


def load_scene(source: SceneSource) -> Scene:
    """Reads a whole scene; its record is that of an archived scene without tiles.

    Raises:
        BadInput: a modality has no valid pixel, or every band of it is constant.
    """
    rows, cols = slice(0, source.height), slice(0, source.width)
    blocks = {modality.name: source.read(modality.name, rows, cols) for modality in source.modalities}
    statistics = {name: BandStatistics.of(values, valid) for name, (values, valid) in blocks.items()}
    stored = []
    for modality in source.modalities:
        dtype, missing_value = next(missing_candidates(modality))
        stored.append(StoredModality(modality, dtype.name, missing_value))
    classes = source.classes
    layout = SceneLayout(
        source.name, source.height, source.width, tuple(stored), classes, source.crs_wkt, source.transform,
        source.generated, ArchiveSettings(),
    )  # fmt: skip
    return Scene(
        scene_record(layout, [ShardResult(files=(), tiles=(), statistics=statistics)]),
        {name: values for name, (values, _) in blocks.items()},
        {name: valid for name, (_, valid) in blocks.items()},
        source.read_labels(rows, cols) if classes else None,
        source.read_split(rows, cols) if classes and classes.official_split else None,
    )
