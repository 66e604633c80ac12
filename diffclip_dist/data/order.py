"""The one global order of samples: which pixel of which tile is sample i of step s.

A pure function of the tiles, the settings and the seed. It knows nothing of ranks, loader processes or ZeRO stages: a
rank takes its slice of each global batch. Where a batch is read from is bounded all the same, because the batch is
made of lanes. Each epoch shuffles the tiles and deals them out to the lanes; a lane walks through its tiles a pool at
a time and shuffles the pixels within the pool. So a rank that takes a few lanes reads a few tiles, in long runs.

Scenes of different sensors never share a global batch (they pass through different stems), but share the epoch.

Shapes: G samples of a global batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from diffclip_dist.randomness import fold, permutation
from shards.errors import BadInput

Indices = npt.NDArray[np.int64]

# what the seed is folded with, so that the shuffles are independent of each other
_SENSORS, _TILES, _PIXELS, _POOLS, _OFFERED = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class OrderConfig:
    """What the order depends on besides the tiles; a change of any of these is a different run.

    Attributes:
        seed: of every random draw.
        global_batch: G, samples a step over all workers.
        lanes: runs of tiles that a batch is dealt from; divides ``global_batch``. More lanes mix more, fewer read less.
        pool_tiles: tiles that a lane shuffles at once; bounds memory.
        pixel_share: share of each tile's valid pixels that is ever drawn, in (0, 1]; the same ones in every epoch.
    """

    seed: int
    global_batch: int
    lanes: int
    pool_tiles: int
    pixel_share: float = 1.0

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.lanes < 1 or self.global_batch % self.lanes:
            raise BadInput(
                f"stream.lanes: expected a divisor of the global batch ({self.global_batch}), found {self.lanes}"
            )
        if self.pool_tiles < 1:
            raise BadInput(f"stream.pool_tiles: expected at least 1, found {self.pool_tiles}")
        if not 0.0 < self.pixel_share <= 1.0:
            raise BadInput(f"stream.pixel_share: expected more than 0 and at most 1, found {self.pixel_share:g}")


@dataclass(frozen=True)
class StepSamples:
    """The samples of one step.

    Attributes:
        sensor: index of the group of scenes that the whole batch comes from.
        tile_G: int64, index of the tile within the group.
        pixel_G: int64, which of the tile's valid core pixels, in row-major order.
    """

    sensor: int
    tile_G: Indices
    pixel_G: Indices


@dataclass(frozen=True)
class _Piece:
    """A run of one tile's shuffled pixels."""

    tile: int
    start: int
    stop: int


class GlobalOrder:
    """Random access to the samples of any step.

    Args:
        tile_pixels: for each sensor, the number of valid core pixels of each of its tiles.
        config: the settings.

    Raises:
        BadInput: no sensor has enough valid pixels for one batch.
    """

    def __init__(self, tile_pixels: Sequence[Sequence[int]], config: OrderConfig) -> None:
        self.config = config
        self._valid_pixels = [np.asarray(pixels, dtype=np.int64) for pixels in tile_pixels]
        self._pixels = [np.ceil(pixels * config.pixel_share).astype(np.int64) for pixels in self._valid_pixels]
        self._sensor_steps = [int(pixels.sum()) // config.global_batch for pixels in self._pixels]
        self.steps_per_epoch = sum(self._sensor_steps)
        if self.steps_per_epoch == 0:
            most = max((int(pixels.sum()) for pixels in self._pixels), default=0)
            raise BadInput(
                f"global batch: expected no more samples than a sensor has valid pixels ({most}), "
                f"found {config.global_batch}"
            )
        self._sensors_of_epoch = lru_cache(maxsize=2)(self._draw_sensors)
        self._pieces_of_lane = lru_cache(maxsize=4 * config.lanes * len(self._pixels))(self._cut_lane)
        self._samples_of_pool = lru_cache(maxsize=2 * config.lanes * len(self._pixels))(self._shuffle_pool)

    def step(self, step: int) -> StepSamples:
        """The samples of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        sensors = self._sensors_of_epoch(epoch)
        sensor = int(sensors[within])
        turn = int((sensors[:within] == sensor).sum())
        lanes = [self._lane(epoch, sensor, lane, turn) for lane in range(self.config.lanes)]
        return StepSamples(sensor, np.concatenate([tile for tile, _ in lanes]), np.concatenate([px for _, px in lanes]))

    def first_steps(self) -> tuple[int, ...]:
        """The first step of each sensor, in the order of the steps; a sensor that fills no batch has none."""
        _, first = np.unique(self._sensors_of_epoch(0), return_index=True)
        return tuple(sorted(first.tolist()))

    def _draw_sensors(self, epoch: int) -> Indices:
        """Which sensor each step of the epoch takes, in proportion to their pixels."""
        steps = np.repeat(np.arange(len(self._sensor_steps)), self._sensor_steps)
        return steps[permutation(len(steps), self.config.seed, _SENSORS, epoch)]

    def _lane(self, epoch: int, sensor: int, lane: int, turn: int) -> tuple[Indices, Indices]:
        """Tiles and pixels of one lane at the sensor's given turn in the epoch."""
        share = self.config.global_batch // self.config.lanes
        start, stop = turn * share, (turn + 1) * share
        pools = self._pieces_of_lane(epoch, sensor, lane)
        ends = np.cumsum([sum(piece.stop - piece.start for piece in pool) for pool in pools])
        parts = []
        for pool in range(int(np.searchsorted(ends, start, side="right")), len(pools)):
            pool_start = int(ends[pool - 1]) if pool else 0
            if pool_start >= stop:
                break
            samples = self._samples_of_pool(epoch, sensor, lane, pool)
            parts.append(samples[:, max(start - pool_start, 0) : stop - pool_start])
        tile, pixel = np.concatenate(parts, axis=1)
        return tile, pixel

    def _cut_lane(self, epoch: int, sensor: int, lane: int) -> list[list[_Piece]]:
        """The lane's run through the epoch's shuffled tiles, in pools.

        Lanes are cut to equal lengths, through a tile where need be, so that every lane has a sample for every step.
        """
        pixels = self._pixels[sensor]
        tiles = permutation(len(pixels), self.config.seed, _TILES, epoch, sensor)
        ends = np.cumsum(pixels[tiles])
        length = self._sensor_steps[sensor] * self.config.global_batch // self.config.lanes
        start, stop = lane * length, (lane + 1) * length
        pieces = []
        for place in range(int(np.searchsorted(ends, start, side="right")), len(tiles)):
            tile_start = int(ends[place] - pixels[tiles[place]])
            if tile_start >= stop:
                break
            first, last = max(start - tile_start, 0), min(stop - tile_start, int(pixels[tiles[place]]))
            if first < last:
                pieces.append(_Piece(int(tiles[place]), first, last))
        size = self.config.pool_tiles
        return [pieces[first : first + size] for first in range(0, len(pieces), size)]

    def _offered(self, sensor: int, tile: int) -> Indices:
        """The tile's pixels that are drawn at all."""
        valid = int(self._valid_pixels[sensor][tile])
        if self.config.pixel_share == 1.0:
            return np.arange(valid)
        return permutation(valid, self.config.seed, _OFFERED, fold(sensor, tile))[: self._pixels[sensor][tile]]

    def _shuffle_pool(self, epoch: int, sensor: int, lane: int, pool: int) -> Indices:
        """The pool's samples in their order: tile and pixel, (2, samples)."""
        tiles, pixels = [], []
        for piece in self._pieces_of_lane(epoch, sensor, lane)[pool]:
            order = permutation(
                int(self._pixels[sensor][piece.tile]), self.config.seed, _PIXELS, epoch, fold(sensor, piece.tile)
            )
            pixels.append(self._offered(sensor, piece.tile)[order[piece.start : piece.stop]])
            tiles.append(np.full(piece.stop - piece.start, piece.tile, dtype=np.int64))
        samples = np.stack([np.concatenate(tiles), np.concatenate(pixels)])
        return samples[:, permutation(samples.shape[1], self.config.seed, _POOLS, epoch, fold(sensor, lane, pool))]
