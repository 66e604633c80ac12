"""Reads tiles, standardises them and pads them to one size, ready for cutting windows.

Shapes: S side of a tile with its halo, C bands, V valid core pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from diffclip_dist.data.sensors import SensorGroup
from diffclip_dist.data.windows import standardise
from shards.archive.archive import Archive

TileIndex = tuple[int, int]  # sensor group, tile within it
NO_TILE: Final[TileIndex] = (-1, -1)


@dataclass(frozen=True)
class ReadyTile:
    """A tile ready for cutting windows.

    Attributes:
        index: which tile it is.
        values: modality key to standardised float32 (S, S, C), 0 where missing.
        valid: modality key to bool (S, S).
        centres_V: int64, row-major place in the (S, S) grid of each valid core pixel, in row-major order.
        all_valid: whether no pixel is missing in any modality, halo included.
    """

    index: TileIndex
    values: dict[str, Tensor]
    valid: dict[str, Tensor]
    centres_V: Tensor
    all_valid: bool


class TileReader(Dataset[ReadyTile | None]):
    """Reads tiles of an archive by their index, in this process or in one that it is sent to.

    Args:
        archive: to read from.
        groups: its scenes by sensor combination.
    """

    def __init__(self, archive: Archive, groups: tuple[SensorGroup, ...]) -> None:
        self._archive = archive
        self._groups = groups

    def __getitem__(self, index: TileIndex) -> ReadyTile | None:
        """A tile, and nothing for `NO_TILE`."""
        if index == NO_TILE:
            return None
        return ready_tile(self._archive, self._groups[index[0]], index)


def ready_tile(archive: Archive, group: SensorGroup, index: TileIndex) -> ReadyTile:
    """Reads and prepares one tile."""
    record = group.tiles[index[1]]
    tile = archive.read_tile(record)
    scene = group.scenes[record.scene]
    values, valid = {}, {}
    covered = np.zeros((group.tile_side, group.tile_side), dtype=np.bool_)
    for schema, modality in zip(group.schemas, scene.modalities, strict=True):
        has_data = tile.valid[modality.name]
        # tiles at the scene's edge are smaller; their windows never reach into the padding
        padding = ((0, group.tile_side - has_data.shape[0]), (0, group.tile_side - has_data.shape[1]))
        standardised = standardise(tile.values[modality.name], has_data, modality)
        values[schema.key] = torch.from_numpy(np.pad(standardised, (*padding, (0, 0))))
        valid[schema.key] = torch.from_numpy(np.pad(has_data, padding))
        covered |= valid[schema.key].numpy()
    core = np.zeros_like(covered)
    core[group.halo : group.halo + record.height, group.halo : group.halo + record.width] = True
    centres_V = torch.from_numpy(np.flatnonzero(covered & core))
    assert len(centres_V) == record.valid_pixels, f"{record.key}: {len(centres_V)} valid pixels, not as in the manifest"
    return ReadyTile(index, values, valid, centres_V, all(bool(mask.all()) for mask in valid.values()))


class _InOrder(Sampler[TileIndex]):
    def __init__(self, indices: Iterable[TileIndex]) -> None:
        self._indices = indices

    def __iter__(self) -> Iterator[TileIndex]:
        return iter(self._indices)


def _as_read(tile: Any) -> Any:
    return tile


def read_in_order(
    reader: TileReader, indices: Iterable[TileIndex], loader_processes: int
) -> Iterator[ReadyTile | None]:
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
