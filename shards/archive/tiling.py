"""The division of a scene into shards and tiles."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from shards.errors import BadInput

LARGEST_TILE = 4096
MANTISSA_BITS = 52  # of a float64
# copies of a shard's pixels in memory at once: as read, as stored, and in the codecs
COPIES = 4


@dataclass(frozen=True)
class ArchiveSettings:
    """How an archive is divided and rounded.

    Attributes:
        tile_size: core of a tile, in pixels along a side; also the chunk of the Zarr scene.
        halo: pixels around the core; windows up to 2 * halo + 1 can be cut around every core pixel.
        samples_per_shard: the most tiles in a tar, and the most chunks in a Zarr shard.
        kept_bits: bits of mantissa to which floats are rounded; None is lossless.
        memory_mb: megabytes that a worker may use for a shard's pixels; shards become smaller if they need more.
    """

    tile_size: int = 64
    halo: int = 7
    samples_per_shard: int = 16
    memory_mb: int = 512
    kept_bits: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("tile_size", 1, LARGEST_TILE),
            ("halo", 0, LARGEST_TILE),
            ("samples_per_shard", 1, 1 << 20),
            ("memory_mb", 1, 1 << 20),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInput(f"{name}: {value}, expected {low} to {high}")

        if self.kept_bits is not None and not 1 <= self.kept_bits <= MANTISSA_BITS:
            raise BadInput(f"kept_bits: {self.kept_bits}, expected 1 to {MANTISSA_BITS}")

    @property
    def shard_shape(self) -> tuple[int, int]:
        """Rows and columns of tiles in a shard."""
        rows = math.isqrt(self.samples_per_shard)
        return rows, self.samples_per_shard // rows


def fitting_settings(settings: ArchiveSettings, pixel_bytes: int, scene: str) -> ArchiveSettings:
    """The settings with the most samples per shard that fit into the allowed memory.

    Args:
        settings: as the user wants them.
        pixel_bytes: bytes of one pixel over all modalities.
        scene: name of the scene, for messages.

    Raises:
        BadInput: not even one tile fits.
    """
    for samples in range(settings.samples_per_shard, 0, -1):
        fitting = replace(settings, samples_per_shard=samples)
        tall, wide = (side * settings.tile_size + 2 * settings.halo for side in fitting.shard_shape)
        needed = tall * wide * pixel_bytes * COPIES
        if needed <= settings.memory_mb << 20:
            return fitting
    raise BadInput(
        f"{scene}: memory_mb: one tile of {settings.tile_size} pixels with its halo takes {needed >> 20} MB, "
        f"more than the {settings.memory_mb} MB allowed; take smaller tiles or allow more"
    )


@dataclass(frozen=True)
class Box:
    """Pixels of a scene: rows from `row`, columns from `col`."""

    row: int
    col: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.height)

    @property
    def cols(self) -> slice:
        return slice(self.col, self.col + self.width)


@dataclass(frozen=True)
class ShardPlan:
    """What one worker builds at once: a Zarr shard of every array, and one tar."""

    index: int
    box: Box
    tiles: tuple[Box, ...]


def plan_shards(height: int, width: int, settings: ArchiveSettings) -> Iterator[ShardPlan]:
    """The shards of a scene in row-major order; together their tiles cover each pixel exactly once."""
    tall, wide = settings.shard_shape
    boxes = _cut(Box(0, 0, height, width), tall * settings.tile_size, wide * settings.tile_size)
    for index, box in enumerate(boxes):
        yield ShardPlan(index, box, tuple(_cut(box, settings.tile_size, settings.tile_size)))


def _cut(box: Box, tall: int, wide: int) -> Iterator[Box]:
    for row in range(box.row, box.row + box.height, tall):
        for col in range(box.col, box.col + box.width, wide):
            yield Box(row, col, min(tall, box.row + box.height - row), min(wide, box.col + box.width - col))
