"""The global order of samples: which pixel of which tile is sample i of step s.

The order is a pure function of the tiles, the settings and the seed. It does not depend on ranks, loader processes or
ZeRO stages: each rank takes its slice of every global batch, and works out that slice alone. A step costs the same for
any number of tiles, steps and ranks.

A global batch takes the same number of samples from each shuffle stream. Each epoch shuffles the tiles and deals them
out to the streams. A stream reads its tiles in that order, a buffer of a few tiles at a time, and shuffles the pixels
within the buffer. So a rank that takes a few streams reads few tiles at a time.

A global batch holds scenes of one sensor combination, because other sensors pass through other stems. An epoch holds
them all, spread evenly in proportion to their pixels.

Shapes: B samples.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffclip_dist.data.keyed_permutation import permuted
from diffclip_dist.data.order_config import ORDER_VERSION, OrderConfig
from diffclip_dist.data.tile_shuffle import Indices, TileBuffer, TileShuffle
from diffclip_dist.randomness import fold
from shards.errors import BadInput

_SENSORS = 1  # tells this draw from those of tile_shuffle.py


@dataclass(frozen=True)
class StepSamples:
    """Samples of one step.

    Attributes:
        sensor: index of the sensor group that the whole batch comes from.
        tile_B: int64, index of the tile within the group.
        pixel_B: int64, which of the tile's valid core pixels, in row-major order.
    """

    sensor: int
    tile_B: Indices
    pixel_B: Indices


@dataclass(frozen=True)
class _Run:
    """Samples that follow one another in a stream: ``count`` of a buffer, from ``first`` on."""

    buffer: TileBuffer
    first: int
    count: int


class GlobalOrder:
    """Random access to the samples of any step.

    Args:
        tile_pixels: for each sensor group, the number of valid core pixels of each of its tiles.
        config: the settings.

    Raises:
        BadInput: another version is asked for, or no sensor group has enough valid pixels for one batch.
    """

    def __init__(
        self, tile_pixels: Sequence[Sequence[int] | npt.NDArray[np.integer[Any]]], config: OrderConfig
    ) -> None:
        if config.version != ORDER_VERSION:
            raise BadInput(
                f"stream.order_version: expected {ORDER_VERSION}, the order of samples of this release, "
                f"found {config.version}"
            )
        self.config = config
        self._tiles = [TileShuffle(pixels, sensor, config) for sensor, pixels in enumerate(tile_pixels)]
        self._sensor_steps = [tiles.pixels // config.global_batch for tiles in self._tiles]
        self.steps_per_epoch = sum(self._sensor_steps)
        if self.steps_per_epoch == 0:
            most = max((tiles.pixels for tiles in self._tiles), default=0)
            raise BadInput(
                f"global batch: expected no more samples than a sensor has valid pixels ({most}), "
                f"found {config.global_batch}"
            )
        # where each stream last was: the next step nearly always goes on there
        self._recent: dict[tuple[int, int], TileBuffer] = {}

    def __reduce__(self) -> tuple[type["GlobalOrder"], tuple[list[npt.NDArray[np.int32]], OrderConfig]]:
        """Leaves the tables behind when the order is sent to another process."""
        return GlobalOrder, ([tiles.valid for tiles in self._tiles], self.config)

    def samples(self, steps: range, positions: range) -> list[StepSamples]:
        """The samples of some steps at some places of the global batch.

        Args:
            steps: counted from 0 over all epochs. Several at once take less time than one by one.
            positions: such as those that a rank takes.
        """
        sensors, runs = [], []
        for step in steps:
            epoch, within = divmod(step, self.steps_per_epoch)
            sensor, turn = self._sensor_of(epoch, within)
            sensors.append(sensor)
            runs += self._runs(epoch, sensor, turn, positions)
        tile_B, pixel_B = _shuffled(runs, self.config.pixel_share < 1.0)
        shape = len(steps), len(positions)
        return [StepSamples(*step) for step in zip(sensors, tile_B.reshape(shape), pixel_B.reshape(shape), strict=True)]

    def first_steps(self) -> tuple[int, ...]:
        """The first step of each sensor group, in the order of the steps; a group that fills no batch has none."""
        return tuple(sorted(self._first_step(sensor) for sensor, steps in enumerate(self._sensor_steps) if steps))

    def _first_step(self, sensor: int) -> int:
        return bisect_left(range(self.steps_per_epoch), 1, key=lambda step: self._steps_before(0, step + 1)[sensor])

    def _steps_before(self, epoch: int, within: int) -> list[int]:
        """How many of an epoch's first steps each sensor group takes.

        The steps of a group lie equally far apart, from a random phase on (systematic sampling), among those that the
        groups before it leave.
        """
        steps, left, counts = within, self.steps_per_epoch, []
        for sensor, own in enumerate(self._sensor_steps):
            phase = fold(self.config.seed, _SENSORS, epoch, sensor) % max(left, 1)
            counts.append((steps * own + phase) // max(left, 1))
            steps, left = steps - counts[-1], left - own
        return counts

    def _sensor_of(self, epoch: int, within: int) -> tuple[int, int]:
        """The sensor group of a step, and how many steps of the epoch the group has before it."""
        before, after = self._steps_before(epoch, within), self._steps_before(epoch, within + 1)
        sensor = next(sensor for sensor, count in enumerate(before) if after[sensor] > count)
        return sensor, before[sensor]

    def _runs(self, epoch: int, sensor: int, turn: int, positions: range) -> list[_Run]:
        """The samples of a sensor group's batch number ``turn`` of the epoch, at some places of the batch."""
        share = self.config.stream_batch
        length = self._sensor_steps[sensor] * share
        runs = []
        for stream in range(positions.start // share, -(-positions.stop // share)):
            stretch = range(stream * length, (stream + 1) * length)
            first = max(positions.start - stream * share, 0)
            start = stretch.start + turn * share + first
            stop = start - first + min(positions.stop - stream * share, share)
            while start < stop:
                buffer = self._buffer(epoch, sensor, stream, stretch, start)
                runs.append(_Run(buffer, start - buffer.start, min(stop, buffer.stop) - start))
                start = buffer.stop
        return runs

    def _buffer(self, epoch: int, sensor: int, stream: int, stretch: range, pixel: int) -> TileBuffer:
        recent = self._recent.get((sensor, stream))
        if recent is None or recent.epoch != epoch or not recent.start <= pixel < recent.stop:
            recent = self._tiles[sensor].buffer_at(epoch, stream, stretch, pixel)
            self._recent[sensor, stream] = recent
        return recent


def _shuffled(runs: Sequence[_Run], part_of_pixels: bool) -> tuple[Indices, Indices]:
    """Tiles and pixels (B,) of the runs' samples.

    Args:
        runs: one after the other.
        part_of_pixels: whether training uses only a part of each tile's pixels.
    """
    rows = {id(run.buffer): run.buffer for run in runs}
    row_of = {number: row for row, number in enumerate(rows)}
    buffers = list(rows.values())
    pixels = np.array([buffer.pixels for buffer in buffers])
    keys = np.array([buffer.key for buffer in buffers], dtype=np.uint64)
    row, first, count = np.array([(row_of[id(run.buffer)], run.first, run.count) for run in runs], dtype=np.int64).T
    row_B = np.repeat(row, count)
    entry_B = np.arange(len(row_B)) + np.repeat(first - np.cumsum(count) + count, count)
    entry_B = permuted(entry_B, pixels[row_B], keys[row_B])

    # the buffers one behind the other, so that one search finds the tiles of all samples
    place_B = entry_B + (np.cumsum(pixels) - pixels)[row_B]
    starts, ends, base = [], [], 0
    for buffer in buffers:
        starts.append(buffer.starts_T + base)
        ends.append(np.minimum(buffer.ends_T, buffer.pixels) + base)
        base += buffer.pixels
    tile_of_B = np.searchsorted(np.concatenate(ends), place_B, side="right")
    tile_B = np.concatenate([buffer.tiles_T for buffer in buffers])[tile_of_B]
    used_B = np.concatenate([buffer.used_T for buffer in buffers])[tile_of_B]
    keys_B = np.concatenate([buffer.keys_T for buffer in buffers])[tile_of_B]
    pixel_B = permuted(place_B - np.concatenate(starts)[tile_of_B], used_B, keys_B)
    if part_of_pixels:
        valid_B = np.concatenate([buffer.valid_T for buffer in buffers])[tile_of_B]
        share_keys_B = np.concatenate([buffer.share_keys_T for buffer in buffers])[tile_of_B]
        pixel_B = permuted(pixel_B, valid_B, share_keys_B)
    return tile_B, pixel_B
