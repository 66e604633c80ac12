"""Reads tiles as they are stored, and makes them ready for cutting windows on a device.

Shapes: H rows and W columns of a tile with its halo, S the most of either, C bands, V valid core pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from diffclip_dist.data.sensors import SensorGroup
from diffclip_dist.data.windows import as_tensor, standardise
from shards.archive.archive import Archive
from shards.archive.manifest import ModalityRecord, TileRecord

TileIndex = tuple[int, int]  # sensor group, tile within it
NO_TILE: Final[TileIndex] = (-1, -1)


@dataclass(frozen=True)
class StoredTile:
    """A tile as it is stored, and what training has to know of it.

    Attributes:
        index: which tile it is.
        values: modality key to the archive's dtype (H, W, C).
        valid: modality key to bool (H, W).
        centres_V: int64, row-major place in the (S, S) grid of each valid core pixel, in row-major order.
        all_valid: whether no pixel is missing in any modality, halo and the rest of the (S, S) grid included.
    """

    index: TileIndex
    values: dict[str, Tensor]
    valid: dict[str, Tensor]
    centres_V: Tensor
    all_valid: bool


class TileReader(Dataset[StoredTile | None]):
    """Reads tiles of an archive by their index, in this process or in one that it is sent to.

    Args:
        archive: to read from.
        groups: its scenes by sensor combination.
    """

    def __init__(self, archive: Archive, groups: tuple[SensorGroup, ...]) -> None:
        self._archive = archive
        self._groups = groups

    def __getitem__(self, index: TileIndex) -> StoredTile | None:
        """A tile, and nothing for `NO_TILE`."""
        if index == NO_TILE:
            return None
        return stored_tile(self._archive, self._groups[index[0]], index)


def stored_tile(archive: Archive, group: SensorGroup, index: TileIndex) -> StoredTile:
    """Reads one tile."""
    record = group.tiles[index[1]]
    tile = archive.read_tile(record)
    names = {
        schema.key: modality.name for schema, modality in zip(group.schemas, _modalities(group, record), strict=True)
    }
    rows, cols = record.height + 2 * group.halo, record.width + 2 * group.halo
    covered = np.zeros((group.tile_side, group.tile_side), dtype=np.bool_)
    core = np.zeros_like(covered)
    for name in names.values():
        covered[:rows, :cols] |= tile.valid[name]
    core[group.halo : group.halo + record.height, group.halo : group.halo + record.width] = True
    centres_V = torch.from_numpy(np.flatnonzero(covered & core))
    assert len(centres_V) == record.valid_pixels, f"{record.key}: {len(centres_V)} valid pixels, not as in the manifest"
    return StoredTile(
        index,
        {key: as_tensor(tile.values[name]) for key, name in names.items()},
        {key: as_tensor(tile.valid[name]) for key, name in names.items()},
        centres_V,
        (rows, cols) == covered.shape and all(bool(tile.valid[name].all()) for name in names.values()),
    )


def standardised_tile(
    group: SensorGroup, tile: StoredTile, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A tile on a device, ready for cutting windows.

    Returns:
        Modality key to standardised float32 (S, S, C), 0 where missing, and modality key to bool (S, S). Tiles at the
        scene's edge are smaller than S; their windows never reach into what fills the rest.
    """
    values, valid = {}, {}
    for schema, modality in zip(group.schemas, _modalities(group, group.tiles[tile.index[1]]), strict=True):
        has_data_HW = tile.valid[schema.key].to(device, non_blocking=True)
        stored_HWC = tile.values[schema.key].to(device, non_blocking=True)
        rest = (0, group.tile_side - has_data_HW.shape[1], 0, group.tile_side - has_data_HW.shape[0])
        values[schema.key] = F.pad(standardise(stored_HWC, has_data_HW, modality), (0, 0, *rest))
        valid[schema.key] = F.pad(has_data_HW, rest)
    return values, valid


def _modalities(group: SensorGroup, record: TileRecord) -> tuple[ModalityRecord, ...]:
    """Those of the tile's scene, in the order of the group's."""
    return group.scenes[record.scene].modalities


class _InOrder(Sampler[TileIndex]):
    def __init__(self, indices: Iterable[TileIndex]) -> None:
        self._indices = indices

    def __iter__(self) -> Iterator[TileIndex]:
        return iter(self._indices)


def _as_read(tile: Any) -> Any:
    return tile


def read_in_order(
    reader: TileReader, indices: Iterable[TileIndex], loader_processes: int
) -> Iterator[StoredTile | None]:
    """Reads tiles ahead, in the given order, in this process or in others.

    Loader processes are spawned: forked ones deadlock under Ray and Zarr.
    """
    loader = DataLoader(
        reader,
        batch_size=None,
        sampler=_InOrder(indices),
        num_workers=loader_processes,
        collate_fn=_as_read,
        multiprocessing_context="spawn" if loader_processes else None,
        prefetch_factor=4 if loader_processes else None,
    )
    return iter(loader)
