"""A rank's share of every global batch, as windows on its device.

Shapes: B samples of this rank's share of a step, N tokens of a window, C bands.
"""

from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import tee
from typing import Final

import torch
from torch import Tensor

from diffclip_dist.data.device_tiles import Centres, CopyStream, DeviceTile, TileSlots, tile_bytes
from diffclip_dist.data.order import StepSamples
from diffclip_dist.data.read_ahead import read_ahead
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.tiles import NO_TILE, TileIndex, TileReader, read_in_order
from diffclip_dist.data.training_data import TrainingData
from shards.errors import BadInput

# samples whose tiles and pixels are worked out at once: few steps at a time leave most of the time to NumPy's calls
_SAMPLES_AT_ONCE: Final = 2048
# loader processes look so many steps ahead for the next tile that they have to read
_STEPS_WITHOUT_READ: Final = 64
# tiles and steps that wait for the step in progress: bounds memory, and outlasts most of a step that needs many tiles
_ITEMS_AHEAD: Final = 16


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one sensor combination.

    Attributes:
        schemas: the modalities.
        positions_B: int64, each sample's place in the global batch.
        windows: modality key to standardised float32 (B, N, C), 0 where missing.
        valid: modality key to bool (B, N).
        all_valid: true where no token is missing; known without asking the device.
    """

    schemas: tuple[ModalitySchema, ...]
    positions_B: Tensor
    windows: dict[str, Tensor]
    valid: dict[str, Tensor]
    all_valid: bool

    def split(self, micro_batch: int) -> Iterator["WindowBatch"]:
        """The same samples in micro-batches of at most the given size."""
        for start in range(0, len(self.positions_B), micro_batch):
            part = slice(start, start + micro_batch)
            yield WindowBatch(
                self.schemas,
                self.positions_B[part],
                {key: values[part] for key, values in self.windows.items()},
                {key: valid[part] for key, valid in self.valid.items()},
                self.all_valid,
            )


@dataclass(frozen=True)
class RankShare:
    """The slice of every global batch that one rank takes."""

    rank: int
    world_size: int

    def positions(self, global_batch: int) -> range:
        """The rank's places in the global batch.

        Raises:
            BadInput: the batch cannot be shared out equally.
        """
        if global_batch % self.world_size:
            raise BadInput(
                f"global batch: expected a multiple of the number of workers ({self.world_size}), found {global_batch}"
            )
        share = global_batch // self.world_size
        return range(self.rank * share, (self.rank + 1) * share)


@dataclass(frozen=True)
class _StepTiles:
    """The samples of a step and the tiles that they come from.

    Attributes:
        samples: this rank's samples.
        slots: tile to its slot in device memory, for every tile of the step.
        reads: tiles that are not in device memory yet, in the order in which they are read. `NO_TILE` stands in for
            one now and then, so that the loader never looks through the rest of the run for the next tile.
    """

    samples: StepSamples
    slots: dict[int, int]
    reads: list[TileIndex]


class _SlotAssignment:
    """Which tile of a sensor group lies in which slot of device memory; a new tile replaces the least recently used.

    It depends on the steps alone, so that the loader knows ahead of time which tiles to read.
    """

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._slot_of_tile: OrderedDict[int, int] = OrderedDict()

    def place(self, tiles: list[int]) -> tuple[dict[int, int], list[int]]:
        """Slots of the tiles, and those among them that have to be read."""
        for tile in tiles:
            if tile in self._slot_of_tile:
                self._slot_of_tile.move_to_end(tile)
        missing = [tile for tile in tiles if tile not in self._slot_of_tile]
        needed = set(tiles)
        for tile in missing:
            oldest = next(iter(self._slot_of_tile), None)
            if len(self._slot_of_tile) < self._wanted or oldest is None or oldest in needed:
                slot = len(self._slot_of_tile)
            else:
                slot = self._slot_of_tile.pop(oldest)
            self._slot_of_tile[tile] = slot
        return {tile: self._slot_of_tile[tile] for tile in tiles}, missing


@dataclass(frozen=True)
class _Arrival:
    """A tile that is to be put in its slot before the next windows are cut."""

    sensor: int
    slot: int
    tile: DeviceTile


@dataclass(frozen=True)
class _Cut:
    """The windows of a step, ready to be cut."""

    sensor: int
    centres: Centres


@dataclass(frozen=True)
class WindowStream:
    """Streams one rank's windows from an archive, in the global order.

    Attributes:
        data: the archive and the order of its samples.
        share: this rank's slice of every global batch.
        device: where windows are cut.
        loader_processes: processes that read; 0 reads in a thread of this one. The samples are the same.
        cache_bytes: memory that tiles may fill on the device, beyond which the least recently used one gives way. Those
            of two buffers a stream always have room.
    """

    data: TrainingData
    share: RankShare
    device: torch.device
    loader_processes: int = 0
    cache_bytes: int = 0

    def samples(self, step: int) -> StepSamples:
        """This rank's samples of a step."""
        return next(self._samples_of_steps(step, step + 1))

    def _samples_of_steps(self, start: int, stop: int) -> Iterator[StepSamples]:
        positions = self.share.positions(self.data.order.config.global_batch)
        at_once = max(1, _SAMPLES_AT_ONCE // len(positions))
        for first in range(start, stop, at_once):
            yield from self.data.order.samples(range(first, min(first + at_once, stop)), positions)

    def describe(self, step: int) -> str:
        """The tiles that this rank's share of a step comes from, for messages."""
        samples = self.samples(step)
        tiles = self.data.groups[samples.sensor].tiles
        return ", ".join(tiles[tile].key for tile in sorted(set(samples.tile_B.tolist())))

    def _slots(self) -> list[int]:
        """Tiles of each sensor group that the device holds at most."""
        config = self.data.order.config
        per_stream = config.global_batch // config.shuffle_streams
        streams = len({position // per_stream for position in self.share.positions(config.global_batch)})
        wanted = 2 * streams * config.shuffle_buffer  # a stream's buffer and the next one
        cached = self.cache_bytes // len(self.data.groups)
        return [min(len(group.tiles), max(wanted, cached // tile_bytes(group))) for group in self.data.groups]

    def _tiles_of_steps(self, start: int, stop: int) -> Iterator[_StepTiles]:
        assignments = [_SlotAssignment(slots) for slots in self._slots()]
        for step, samples in enumerate(self._samples_of_steps(start, stop)):
            tiles = list(dict.fromkeys(samples.tile_B.tolist()))
            slots, missing = assignments[samples.sensor].place(tiles)
            reads = [(samples.sensor, tile) for tile in missing]
            if step % _STEPS_WITHOUT_READ == 0:
                reads.append(NO_TILE)
            yield _StepTiles(samples, slots, reads)

    def _prepared(self, start: int, stop: int) -> Iterator[_Arrival | _Cut]:
        """What is done on the device for the steps, in order, already copied there."""
        steps, ahead = tee(self._tiles_of_steps(start, stop))
        reads = (index for step in ahead for index in step.reads)
        tiles = read_in_order(TileReader(self.data.archive, self.data.groups), reads, self.loader_processes)
        stream = CopyStream(self.device)
        areas = [group.tile_side**2 for group in self.data.groups]
        centres: list[dict[int, Tensor]] = [{} for _ in areas]  # of each group, by slot
        all_valid: list[dict[int, bool]] = [{} for _ in areas]
        for step in steps:
            for sensor, tile in step.reads:
                stored = next(tiles)
                if stored is not None:
                    slot = step.slots[tile]
                    centres[sensor][slot] = stored.centres_V + slot * areas[sensor]
                    all_valid[sensor][slot] = stored.all_valid
                    yield _Arrival(sensor, slot, DeviceTile.of(self.data.groups[sensor], stored, stream))
            sensor = step.samples.sensor
            with stream.copying():
                rows_B = stream.pinned(_rows(step, centres[sensor])).to(self.device, non_blocking=True)
            whole = all(all_valid[sensor][slot] for slot in step.slots.values())
            yield _Cut(sensor, Centres(rows_B, stream.done(), whole))

    def batches(self, start: int, stop: int) -> Generator[WindowBatch]:
        """This rank's share of the steps ``start`` to ``stop - 1``, prepared in a thread that reads ahead.

        Closing the generator ends the thread.
        """
        slots = [
            TileSlots(group, self.data.window, most, self.device)
            for group, most in zip(self.data.groups, self._slots(), strict=True)
        ]
        positions = self.share.positions(self.data.order.config.global_batch)
        positions_B = torch.arange(positions.start, positions.stop, device=self.device)
        with closing(read_ahead(self._prepared(start, stop), _ITEMS_AHEAD)) as prepared:
            for item in prepared:
                if isinstance(item, _Arrival):
                    slots[item.sensor].put(item.slot, item.tile)
                else:
                    windows, valid = slots[item.sensor].cut(item.centres)
                    schemas = self.data.groups[item.sensor].schemas
                    yield WindowBatch(schemas, positions_B, windows, valid, item.centres.all_valid)


def _rows(step: _StepTiles, centres: Mapping[int, Tensor]) -> Tensor:
    """int64 (B,): the row of `TileSlots` that each sample is centred on, given those of each slot's pixels."""
    pixel_B = torch.from_numpy(step.samples.pixel_B)
    rows_B = torch.empty(len(pixel_B), dtype=torch.int64)
    for tile, slot in step.slots.items():
        here_B = torch.from_numpy(step.samples.tile_B == tile)
        rows_B[here_B] = centres[slot][pixel_B[here_B]]
    return rows_B
