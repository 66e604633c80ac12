"""Builds one shard of a scene: a block of pixels becomes Zarr shards and a tar."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from shards.archive.codecs import round_bits
from shards.archive.manifest import SCENES_FOLDER, TILES_FOLDER, FileRecord, TileRecord
from shards.archive.missing import holds_missing_value, valid_mask
from shards.archive.tile_tars import Sample, write_tile_tar
from shards.archive.tiles import tile_key
from shards.archive.tiling import Box, ShardPlan
from shards.archive.zarr_scenes import (
    LABELS,
    SPLIT_TEST,
    SPLIT_TRAIN,
    SceneLayout,
    StoredModality,
    array_of,
    create_zarr_scene,
)
from shards.build.statistics import BandStatistics
from shards.scene.source import Classes, Mask, SceneSource, Values


class MissingValueTaken(Exception):
    """A valid pixel holds the missing value in every band; the modality needs another missing value."""

    def __init__(self, modality: str) -> None:
        self.modality = modality
        super().__init__(modality)


@dataclass(frozen=True)
class ShardResult:
    """What a shard added to the archive."""

    files: tuple[FileRecord, ...]
    tiles: tuple[TileRecord, ...]
    statistics: dict[str, BandStatistics]


def build_shard(source: SceneSource, layout: SceneLayout, plan: ShardPlan, folder: Path) -> ShardResult:
    """Writes a shard's files, in the archive's layout, below an empty folder.

    Raises:
        MissingValueTaken: a valid pixel holds a modality's missing value.
    """
    scene_folder = folder / SCENES_FOLDER / f"{layout.name}.zarr"
    group = create_zarr_scene(scene_folder, layout)
    metadata = set(_files_below(folder))
    blocks = {stored.modality.name: _read_with_halo(source, stored, layout, plan.box) for stored in layout.modalities}
    statistics, covered = _write_modalities(group, layout, plan.box, blocks)
    if layout.classes is not None:
        _write_labels(group, layout.classes, source, plan.box)
    tiles = _write_tar(folder, layout, plan, blocks, covered)
    files = []
    for path in _files_below(folder):
        if path in metadata:
            (folder / path).unlink()  # the builder writes each scene's metadata once
        else:
            samples = len(tiles) if path.startswith(TILES_FOLDER) else 0
            files.append(file_record(folder, path, samples))
    return ShardResult(tuple(files), tiles, statistics)


def file_record(folder: Path, path: str, samples: int) -> FileRecord:
    """Size and hash of a file, for the manifest."""
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(path, file.tell(), digest, samples)


def _files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _read_with_halo(source: SceneSource, stored: StoredModality, layout: SceneLayout, box: Box) -> Values:
    """A shard's pixels and the halo around them (row, col, band) as stored; missing beyond the scene's edge."""
    halo, modality = layout.settings.halo, stored.modality
    top, left = max(0, box.row - halo), max(0, box.col - halo)
    bottom, right = min(layout.height, box.rows.stop + halo), min(layout.width, box.cols.stop + halo)
    read, valid = source.read(modality.name, slice(top, bottom), slice(left, right))
    shape = (box.height + 2 * halo, box.width + 2 * halo, modality.bands)
    block = np.full(shape, stored.missing_value, dtype=stored.dtype)
    place = block[top - box.row + halo : bottom - box.row + halo, left - box.col + halo : right - box.col + halo]
    place[...] = read if layout.settings.kept_bits is None else round_bits(read, layout.settings.kept_bits)
    if holds_missing_value(place, valid, stored.missing_value):
        raise MissingValueTaken(modality.name)
    place[~valid] = stored.missing_value
    return block


def _write_modalities(
    group: zarr.Group, layout: SceneLayout, box: Box, blocks: dict[str, Values]
) -> tuple[dict[str, BandStatistics], Mask]:
    """Writes the core of each block. Returns its statistics, and where any modality is valid (row, col)."""
    halo = layout.settings.halo
    core = np.s_[halo : halo + box.height, halo : halo + box.width]
    statistics: dict[str, BandStatistics] = {}
    covered = np.zeros((box.height, box.width), dtype=np.bool_)
    for stored in layout.modalities:
        name = stored.modality.name
        values = blocks[name][core]
        valid = valid_mask(values, stored.missing_value)
        statistics[name] = BandStatistics.of(values, valid)
        if valid.any():
            array_of(group, name)[box.rows, box.cols] = values
        covered |= valid
    return statistics, covered


def _write_labels(group: zarr.Group, classes: Classes, source: SceneSource, box: Box) -> None:
    maps = {LABELS: source.read_labels(box.rows, box.cols)}
    if classes.official_split:
        maps[SPLIT_TRAIN], maps[SPLIT_TEST] = source.read_split(box.rows, box.cols)
    for name, ids in maps.items():
        if ids.any():
            array_of(group, name)[box.rows, box.cols] = ids


def _write_tar(
    folder: Path, layout: SceneLayout, plan: ShardPlan, blocks: dict[str, Values], covered: Mask
) -> tuple[TileRecord, ...]:
    """Writes the tiles that hold a valid pixel; no tar where there is none."""
    path = f"{TILES_FOLDER}/{layout.name}-{plan.index:06d}.tar"
    valid_pixels = {tile: _valid_pixels(tile, plan.box, covered) for tile in plan.tiles}
    kept = [tile for tile in plan.tiles if valid_pixels[tile]]
    if not kept:
        return ()
    (folder / TILES_FOLDER).mkdir()
    extents = write_tile_tar(folder / path, (_sample(tile, layout, plan.box, blocks) for tile in kept))
    return tuple(
        TileRecord(
            layout.name,
            tile_key(layout.name, tile.row, tile.col),
            path,
            extent.offset,
            extent.bytes,
            tile.row,
            tile.col,
            tile.height,
            tile.width,
            valid_pixels[tile],
        )
        for tile, extent in zip(kept, extents, strict=True)
    )


def _valid_pixels(tile: Box, shard: Box, covered: Mask) -> int:
    """Core pixels of a tile that are valid in some modality."""
    row, col = tile.row - shard.row, tile.col - shard.col
    return int(np.count_nonzero(covered[row : row + tile.height, col : col + tile.width]))


def _sample(tile: Box, layout: SceneLayout, shard: Box, blocks: dict[str, Values]) -> Sample:
    """A tile with its halo, cut out of the shard's blocks."""
    halo, row, col = layout.settings.halo, tile.row - shard.row, tile.col - shard.col
    cut = np.s_[row : row + tile.height + 2 * halo, col : col + tile.width + 2 * halo]
    place = {"row": tile.row, "col": tile.col, "height": tile.height, "width": tile.width, "halo": halo}
    return Sample(
        tile_key(layout.name, tile.row, tile.col),
        {"scene": layout.name, "generated": layout.generated, **place},
        {name: block[cut] for name, block in blocks.items()},
    )
