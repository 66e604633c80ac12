"""Tiles in device memory, to cut windows from.

What a step needs is brought to the device ahead of the step. On a GPU that happens in a CUDA stream of its own, from
pinned memory, so that it goes on beside the step before.

Shapes: B samples, N tokens of a window, C bands, S side of a whole tile with its halo.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from diffclip_dist.data.sensors import SensorGroup
from diffclip_dist.data.tiles import StoredTile, standardised_tile
from diffclip_dist.data.windows import cut_windows, window_offsets


class CopyStream:
    """Where tiles are copied to a device and standardised: a CUDA stream of its own; on a CPU, the thread that asks.

    Args:
        device: that things are copied to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @contextmanager
    def copying(self) -> Iterator[None]:
        """What is asked of the device within the block goes into this stream.

        All of it belongs there: outside, a thread would ask the machine's first GPU, whichever the worker's is.
        """
        with torch.cuda.stream(self._stream):  # None changes nothing
            yield

    def pinned(self, tensor: Tensor) -> Tensor:
        """The tensor in memory that a GPU can copy from while it computes."""
        return tensor if self._stream is None else tensor.pin_memory()

    def done(self) -> torch.cuda.Event | None:
        """An event after everything that was asked of the stream so far."""
        return None if self._stream is None else self._stream.record_event()


def wait_for_copy(copied: torch.cuda.Event | None, tensors: Iterable[Tensor]) -> None:
    """Lets the current stream wait for what another one has made, and keep it until it has used it."""
    if copied is None:
        return
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for tensor in tensors:
        tensor.record_stream(current)


@dataclass(frozen=True)
class DeviceTile:
    """A tile on the device.

    Attributes:
        values: modality key to standardised float32 (S, S, C), 0 where missing.
        valid: modality key to bool (S, S).
        copied: after which it is there; None where it is there already.
    """

    values: dict[str, Tensor]
    valid: dict[str, Tensor]
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, group: SensorGroup, tile: StoredTile, stream: CopyStream) -> "DeviceTile":
        """Copies the stored values, and standardises them on the device."""
        with stream.copying():
            values = {key: stream.pinned(stored) for key, stored in tile.values.items()}
            valid = {key: stream.pinned(mask) for key, mask in tile.valid.items()}
            pinned = StoredTile(tile.index, values, valid, tile.centres_V, tile.all_valid)
            return cls(*standardised_tile(group, pinned, stream.device), stream.done())


@dataclass(frozen=True)
class Centres:
    """The samples of a step as places in `TileSlots`.

    Attributes:
        rows_B: int64 on the device, each window's centre.
        copied: after which they are there; None where they are there already.
        all_valid: whether no pixel of their tiles is missing.
    """

    rows_B: Tensor
    copied: torch.cuda.Event | None
    all_valid: bool


def tile_bytes(group: SensorGroup) -> int:
    """Memory of a tile in a slot."""
    return group.tile_side**2 * sum(4 * schema.bands + 1 for schema in group.schemas)


class TileSlots:
    """Tiles of one sensor group in one table a modality, in slots of equal size.

    Args:
        group: whose tiles are held.
        window: side of a window in pixels.
        most: slots at most; memory grows to them as they are used.
        device: where the tables lie.
    """

    def __init__(self, group: SensorGroup, window: int, most: int, device: torch.device) -> None:
        self._group = group
        self._most = most
        self._device = device
        self._area = group.tile_side**2
        self._offsets_N = window_offsets(window, group.tile_side).to(device)
        self._values: dict[str, Tensor] = {}
        self._valid: dict[str, Tensor] = {}
        self._slots = 0

    def put(self, slot: int, tile: DeviceTile) -> None:
        """Puts a tile in a slot, in place of what was there."""
        wait_for_copy(tile.copied, (*tile.values.values(), *tile.valid.values()))
        if slot >= self._slots:
            self._grow(max(slot + 1, min(2 * self._slots, self._most)))
        rows = slice(slot * self._area, (slot + 1) * self._area)
        for key, values in tile.values.items():
            self._values[key][rows] = values.flatten(0, 1)
            self._valid[key][rows] = tile.valid[key].flatten()[:, None]

    def _grow(self, slots: int) -> None:
        for schema in self._group.schemas:
            for tables, width, dtype in ((self._values, schema.bands, torch.float32), (self._valid, 1, torch.bool)):
                table = torch.zeros(slots * self._area, width, dtype=dtype, device=self._device)
                if self._slots:
                    table[: self._slots * self._area] = tables[schema.key]
                tables[schema.key] = table
        self._slots = slots

    def cut(self, centres: Centres) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Windows of a step: modality key to float32 (B, N, C), and modality key to bool (B, N)."""
        wait_for_copy(centres.copied, (centres.rows_B,))
        rows_B = centres.rows_B
        windows = {key: cut_windows(table, rows_B, self._offsets_N) for key, table in self._values.items()}
        valid = {key: cut_windows(table, rows_B, self._offsets_N)[..., 0] for key, table in self._valid.items()}
        return windows, valid
