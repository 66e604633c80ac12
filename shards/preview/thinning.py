"""Every n-th row and column of a scene, read shard by shard, so that a scene of any size takes little memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from shards.archive.archive import ReadableScene, Scene
from shards.archive.manifest import SceneRecord
from shards.archive.tiling import ArchiveSettings, plan_shards


@dataclass(frozen=True)
class ThinnedPart:
    """A part of a scene, and those of its pixels that are kept.

    Attributes:
        part: as read.
        thin: of the part's rows and columns, those whose place in the scene is a multiple of n.
        place: where these lie in the thinned scene.
    """

    part: Scene
    thin: tuple[slice, slice]
    place: tuple[slice, slice]


def thinning_step(record: SceneRecord, largest_side: int) -> int:
    """The least n that makes no side of a scene longer than that."""
    return max(1, math.ceil(max(record.height, record.width) / largest_side))


def thinned_shape(record: SceneRecord, step: int) -> tuple[int, int]:
    """Rows and columns of a scene of which every `step`-th is kept."""
    return math.ceil(record.height / step), math.ceil(record.width / step)


def thinned_parts(scene: ReadableScene, step: int, modalities: tuple[str, ...] | None = None) -> Iterator[ThinnedPart]:
    """Reads a scene part by part.

    Args:
        scene: in memory or in an archive.
        step: every how many rows and columns are kept, at least 1.
        modalities: to read; None for all.

    Raises:
        DamagedArchive: a chunk cannot be decoded.
    """
    record = scene.record
    settings = ArchiveSettings(record.tile_size, record.halo, record.samples_per_shard)
    for shard in plan_shards(record.height, record.width, settings):
        box = shard.box
        yield ThinnedPart(
            scene.read(modalities, box.rows, box.cols),
            (slice(-box.row % step, None, step), slice(-box.col % step, None, step)),
            (_kept(box.rows, step), _kept(box.cols, step)),
        )


def _kept(pixels: slice, step: int) -> slice:
    """Where multiples of n lie among all multiples."""
    return slice(math.ceil(pixels.start / step), math.ceil(pixels.stop / step))
