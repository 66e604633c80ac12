"""A rank's share of every global batch, as windows on its device.

Shapes: B samples of this rank's share of a step, N tokens of a window, C bands, S side of a tile with its halo.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee
from typing import Final

import torch
from torch import Tensor

from diffclip_dist.data.order import StepSamples
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.sensors import SensorGroup
from diffclip_dist.data.tiles import NO_TILE, ReadyTile, TileIndex, TileReader, read_in_order
from diffclip_dist.data.training_data import TrainingData
from diffclip_dist.data.windows import cut_windows, window_offsets
from shards.errors import BadInput

# samples whose tiles and pixels are worked out at once: few steps at a time leave most of the time to NumPy's calls
_SAMPLES_AT_ONCE: Final = 2048
# the loader looks so many steps ahead for the next tile that it has to read
_STEPS_WITHOUT_READ: Final = 64


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


class _DeviceTiles:
    """Tiles of one sensor group in device memory, to cut windows from."""

    def __init__(self, group: SensorGroup, window: int, device: torch.device) -> None:
        self._group = group
        self._device = device
        self._area = group.tile_side**2
        self._offsets_N = window_offsets(window, group.tile_side).to(device)
        self._values: dict[str, Tensor] = {}
        self._valid: dict[str, Tensor] = {}
        self._centres: dict[int, Tensor] = {}
        self._all_valid: dict[int, bool] = {}
        self._slots = 0

    def put(self, slot: int, tile: ReadyTile) -> None:
        if slot >= self._slots:
            self._grow(max(slot + 1, min(2 * self._slots, len(self._group.tiles))))
        rows = slice(slot * self._area, (slot + 1) * self._area)
        for key, values in tile.values.items():
            self._values[key][rows].copy_(values.flatten(0, 1), non_blocking=True)
            self._valid[key][rows].copy_(tile.valid[key].flatten()[:, None], non_blocking=True)
        self._centres[slot] = tile.centres_V + slot * self._area
        self._all_valid[slot] = tile.all_valid

    def _grow(self, slots: int) -> None:
        for schema in self._group.schemas:
            for tables, width, dtype in ((self._values, schema.bands, torch.float32), (self._valid, 1, torch.bool)):
                table = torch.zeros(slots * self._area, width, dtype=dtype, device=self._device)
                if self._slots:
                    table[: self._slots * self._area] = tables[schema.key]
                tables[schema.key] = table
        self._slots = slots

    def cut(self, step: _StepTiles, positions_B: Tensor) -> WindowBatch:
        tile_B = step.samples.tile_B
        pixel_B = torch.from_numpy(step.samples.pixel_B)
        centres_B = torch.empty(len(tile_B), dtype=torch.int64)
        for tile, slot in step.slots.items():
            here_B = torch.from_numpy(tile_B == tile)
            centres_B[here_B] = self._centres[slot][pixel_B[here_B]]
        centres_B = centres_B.to(self._device, non_blocking=True)
        windows = {key: cut_windows(table, centres_B, self._offsets_N) for key, table in self._values.items()}
        valid = {key: cut_windows(table, centres_B, self._offsets_N)[..., 0] for key, table in self._valid.items()}
        all_valid = all(self._all_valid[slot] for slot in step.slots.values())
        return WindowBatch(self._group.schemas, positions_B.to(self._device), windows, valid, all_valid)


@dataclass(frozen=True)
class WindowStream:
    """Streams one rank's windows from an archive, in the global order.

    Attributes:
        data: the archive and the order of its samples.
        share: this rank's slice of every global batch.
        device: where windows are cut.
        loader_processes: processes that read ahead; 0 reads in this one. The samples are the same.
    """

    data: TrainingData
    share: RankShare
    device: torch.device
    loader_processes: int = 0

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

    def _tiles_of_steps(self, start: int, stop: int) -> Iterator[_StepTiles]:
        config = self.data.order.config
        per_stream = config.global_batch // config.shuffle_streams
        streams = len({position // per_stream for position in self.share.positions(config.global_batch)})
        wanted = 2 * streams * config.shuffle_buffer  # a stream's buffer and the next one
        assignments = [_SlotAssignment(min(len(group.tiles), wanted)) for group in self.data.groups]
        for step, samples in enumerate(self._samples_of_steps(start, stop)):
            tiles = list(dict.fromkeys(samples.tile_B.tolist()))
            slots, missing = assignments[samples.sensor].place(tiles)
            reads = [(samples.sensor, tile) for tile in missing]
            if step % _STEPS_WITHOUT_READ == 0:
                reads.append(NO_TILE)
            yield _StepTiles(samples, slots, reads)

    def batches(self, start: int, stop: int) -> Iterator[WindowBatch]:
        """This rank's share of the steps ``start`` to ``stop - 1``."""
        steps, ahead = tee(self._tiles_of_steps(start, stop))
        reads = (index for step in ahead for index in step.reads)
        tiles = read_in_order(TileReader(self.data.archive, self.data.groups), reads, self.loader_processes)
        on_device = [_DeviceTiles(group, self.data.window, self.device) for group in self.data.groups]
        positions = self.share.positions(self.data.order.config.global_batch)
        positions_B = torch.arange(positions.start, positions.stop)
        for step in steps:
            for sensor, tile in step.reads:
                ready = next(tiles)
                if ready is not None:
                    on_device[sensor].put(step.slots[tile], ready)
            yield on_device[step.samples.sensor].cut(step, positions_B)
