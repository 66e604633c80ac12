"""The global order of samples: which pixel of which tile is sample i of step s.

The order is a pure function of the tiles, the settings and the seed. It does not depend on ranks, loader processes or
ZeRO stages: each rank takes its slice of every global batch.

A global batch takes the same number of samples from each shuffle stream. Each epoch shuffles the tiles and deals them
out to the streams. A stream reads its tiles in that order, a buffer of a few tiles at a time, and shuffles the pixels
within the buffer. So a rank that takes a few streams reads few tiles at a time.

A global batch holds scenes of one sensor combination, because other sensors pass through other stems. An epoch holds
them all.

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

# each shuffle folds the seed with its own number, so that the shuffles are independent
_SENSORS, _TILES, _PIXELS, _BUFFERS, _PIXEL_SHARE = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class OrderConfig:
    """The settings that the order depends on; a change of any of these is a different run.

    Attributes:
        seed: of every random draw.
        global_batch: G, samples a step over all workers.
        shuffle_streams: streams that each batch takes an equal share from; divides ``global_batch``. More streams mix
            more tiles, fewer read less.
        shuffle_buffer: tiles that a stream shuffles at a time; bounds memory.
        pixel_share: share of each tile's valid pixels that training uses, in (0, 1]; the same pixels in every epoch.
    """

    seed: int
    global_batch: int
    shuffle_streams: int
    shuffle_buffer: int
    pixel_share: float = 1.0

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.shuffle_streams < 1 or self.global_batch % self.shuffle_streams:
            raise BadInput(
                f"stream.shuffle_streams: expected a divisor of the global batch ({self.global_batch}), "
                f"found {self.shuffle_streams}"
            )
        if self.shuffle_buffer < 1:
            raise BadInput(f"stream.shuffle_buffer: expected at least 1, found {self.shuffle_buffer}")
        if not 0.0 < self.pixel_share <= 1.0:
            raise BadInput(f"stream.pixel_share: expected more than 0 and at most 1, found {self.pixel_share:g}")


@dataclass(frozen=True)
class StepSamples:
    """The samples of one step.

    Attributes:
        sensor: index of the sensor group that the whole batch comes from.
        tile_G: int64, index of the tile within the group.
        pixel_G: int64, which of the tile's valid core pixels, in row-major order.
    """

    sensor: int
    tile_G: Indices
    pixel_G: Indices


@dataclass(frozen=True)
class _TilePart:
    """A range of one tile's shuffled pixels."""

    tile: int
    start: int
    stop: int


class GlobalOrder:
    """Random access to the samples of any step.

    Args:
        tile_pixels: for each sensor group, the number of valid core pixels of each of its tiles.
        config: the settings.

    Raises:
        BadInput: no sensor group has enough valid pixels for one batch.
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
        streams = config.shuffle_streams * len(self._pixels)
        self._sensors_of_epoch = lru_cache(maxsize=2)(self._shuffle_sensors)
        self._buffers_of_stream = lru_cache(maxsize=4 * streams)(self._deal_tiles)
        self._samples_of_buffer = lru_cache(maxsize=2 * streams)(self._shuffle_buffer)

    def __reduce__(self) -> tuple[type["GlobalOrder"], tuple[list[list[int]], OrderConfig]]:
        """Leaves the caches behind when the order is sent to another process."""
        return GlobalOrder, ([pixels.tolist() for pixels in self._valid_pixels], self.config)

    def step(self, step: int) -> StepSamples:
        """The samples of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        sensors = self._sensors_of_epoch(epoch)
        sensor = int(sensors[within])
        turn = int((sensors[:within] == sensor).sum())
        samples = [self._samples(epoch, sensor, stream, turn) for stream in range(self.config.shuffle_streams)]
        tile_G, pixel_G = np.concatenate(samples, axis=1)
        return StepSamples(sensor, tile_G, pixel_G)

    def first_steps(self) -> tuple[int, ...]:
        """The first step of each sensor group, in the order of the steps; a group that fills no batch has none."""
        _, first = np.unique(self._sensors_of_epoch(0), return_index=True)
        return tuple(sorted(first.tolist()))

    def _shuffle_sensors(self, epoch: int) -> Indices:
        """Which sensor group each step of the epoch takes, in proportion to their pixels."""
        steps = np.repeat(np.arange(len(self._sensor_steps)), self._sensor_steps)
        return steps[permutation(len(steps), self.config.seed, _SENSORS, epoch)]

    def _samples(self, epoch: int, sensor: int, stream: int, turn: int) -> Indices:
        """Tiles and pixels that one stream gives to the sensor group's batch number ``turn`` of the epoch.

        Returns:
            int64 (2, G / streams): tile, then pixel.
        """
        share = self.config.global_batch // self.config.shuffle_streams
        start, stop = turn * share, (turn + 1) * share
        buffers = self._buffers_of_stream(epoch, sensor, stream)
        ends = np.cumsum([sum(part.stop - part.start for part in buffer) for buffer in buffers])
        samples = []
        for buffer in range(int(np.searchsorted(ends, start, side="right")), len(buffers)):
            buffer_start = int(ends[buffer - 1]) if buffer else 0
            if buffer_start >= stop:
                break
            shuffled = self._samples_of_buffer(epoch, sensor, stream, buffer)
            samples.append(shuffled[:, max(start - buffer_start, 0) : stop - buffer_start])
        return np.concatenate(samples, axis=1)

    def _deal_tiles(self, epoch: int, sensor: int, stream: int) -> list[list[_TilePart]]:
        """The part of the epoch's shuffled tiles that one stream takes, divided into buffers.

        All streams get equally many pixels, so that each has samples for every step; two streams may share a tile.
        """
        pixels = self._pixels[sensor]
        tiles = permutation(len(pixels), self.config.seed, _TILES, epoch, sensor)
        ends = np.cumsum(pixels[tiles])
        length = self._sensor_steps[sensor] * self.config.global_batch // self.config.shuffle_streams
        start, stop = stream * length, (stream + 1) * length
        parts = []
        for place in range(int(np.searchsorted(ends, start, side="right")), len(tiles)):
            tile_start = int(ends[place] - pixels[tiles[place]])
            if tile_start >= stop:
                break
            first, last = max(start - tile_start, 0), min(stop - tile_start, int(pixels[tiles[place]]))
            if first < last:
                parts.append(_TilePart(int(tiles[place]), first, last))
        size = self.config.shuffle_buffer
        return [parts[first : first + size] for first in range(0, len(parts), size)]

    def _used_pixels(self, sensor: int, tile: int) -> Indices:
        """The pixels of a tile that training uses."""
        valid = int(self._valid_pixels[sensor][tile])
        if self.config.pixel_share == 1.0:
            return np.arange(valid)
        return permutation(valid, self.config.seed, _PIXEL_SHARE, fold(sensor, tile))[: self._pixels[sensor][tile]]

    def _shuffle_buffer(self, epoch: int, sensor: int, stream: int, buffer: int) -> Indices:
        """A buffer's samples in their order: tile, then pixel, int64 (2, samples)."""
        tiles, pixels = [], []
        for part in self._buffers_of_stream(epoch, sensor, stream)[buffer]:
            order = permutation(
                int(self._pixels[sensor][part.tile]), self.config.seed, _PIXELS, epoch, fold(sensor, part.tile)
            )
            pixels.append(self._used_pixels(sensor, part.tile)[order[part.start : part.stop]])
            tiles.append(np.full(part.stop - part.start, part.tile, dtype=np.int64))
        samples = np.stack([np.concatenate(tiles), np.concatenate(pixels)])
        key = fold(sensor, stream, buffer)
        return samples[:, permutation(samples.shape[1], self.config.seed, _BUFFERS, epoch, key)]
