"""Standardised pixels, and windows cut from them.

A window gathers rows of a (pixels, bands) table, on the table's device. This copies each value once.

Shapes: P pixels of a table, B windows, N = window**2 tokens, C bands.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from shards.archive.archive import Scene
from shards.archive.manifest import ModalityRecord, SceneRecord


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """An array's values as a tensor of the same dtype; they share memory unless torch needs another layout."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    shares = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    return torch.from_numpy(native if shares else native.copy())


def standardise(values: Tensor, valid: Tensor, record: ModalityRecord) -> Tensor:
    """Zero mean and unit deviation per band over the scene's valid pixels; 0 where a pixel is missing.

    It is computed on the values' device, to the same bits on any of them.

    Args:
        values: (row, col, band), in the archive's dtype.
        valid: (row, col).
        record: holds each band's mean and standard deviation.

    Returns:
        float32 (row, col, band), a new tensor.
    """
    mean = torch.from_numpy(np.asarray(record.mean, dtype=np.float32)).to(values.device)
    scale = torch.from_numpy(np.float32(1.0) / np.asarray(record.std, dtype=np.float32)).to(values.device)
    standardised = values.to(torch.float32, copy=True)
    standardised -= mean
    standardised *= scale
    return standardised.masked_fill_(~valid[..., None], 0.0)


def window_offsets(window: int, row_length: int) -> Tensor:
    """int64 (N,): how far each pixel of a window lies from its centre in a row-major pixel table."""
    reach_W = torch.arange(window) - window // 2
    return (reach_W[:, None] * row_length + reach_W).flatten()


def cut_windows(table_PC: Tensor, centres_B: Tensor, offsets_N: Tensor) -> Tensor:
    """Windows (B, N, C) around centres given as rows of the table."""
    rows_BN = centres_B[:, None] + offsets_N
    return table_PC.index_select(0, rows_BN.flatten()).view(*rows_BN.shape, table_PC.shape[1])


class SceneWindows:
    """Windows anywhere in one scene that is held in memory.

    Args:
        scene: the scene's arrays.
        record: a manifest record, for the statistics; modalities of it that the scene lacks count as missing.
        window: side of a window in pixels, odd.
        device: where the windows are cut; also an attribute.
    """

    def __init__(self, scene: Scene, record: SceneRecord, window: int, device: torch.device | str = "cpu") -> None:
        self._reach = window // 2
        self._row_length = record.width + 2 * self._reach
        self._offsets_N = window_offsets(window, self._row_length).to(device)
        self.device = torch.device(device)
        self._bands = {modality.name: modality.bands for modality in record.modalities}
        self._statistics = {modality.name: (modality.mean, modality.std) for modality in record.modalities}
        self._tables: dict[str, Tensor] = {}
        self._valid: dict[str, Tensor] = {}
        margin = (self._reach,) * 4  # of columns and rows
        for modality in record.modalities:
            if modality.name not in scene.values:
                continue
            valid = as_tensor(scene.valid[modality.name]).to(device)
            values = standardise(as_tensor(scene.values[modality.name]).to(device), valid, modality)
            self._tables[modality.name] = F.pad(values, (0, 0, *margin)).flatten(0, 1)
            self._valid[modality.name] = F.pad(valid, margin).flatten()[:, None]

    def only(self, names: Collection[str]) -> "SceneWindows":
        """The same windows of those modalities alone; nothing is copied."""
        part = copy.copy(self)
        part._bands = {name: bands for name, bands in self._bands.items() if name in names}
        part._tables = {name: table for name, table in self._tables.items() if name in names}
        part._valid = {name: valid for name, valid in self._valid.items() if name in names}
        return part

    def gather(
        self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Windows centred on the given pixels of the scene.

        Returns:
            Modality name to values, float32 (B, N, C), and modality name to validity, bool (B, N). Pixels outside the
            scene are missing.
        """
        centres_B = self._places(rows, cols)
        windows = {name: cut_windows(table, centres_B, self._offsets_N) for name, table in self._tables.items()}
        valid = {name: cut_windows(table, centres_B, self._offsets_N)[..., 0] for name, table in self._valid.items()}
        return windows, valid

    def bands_at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Tensor:
        """Standardised bands of the record's modalities (P, C) at the given pixels, 0 where one has no data."""
        places_P = self._places(rows, cols)
        parts = [
            self._tables[name].index_select(0, places_P)
            if name in self._tables
            else torch.zeros(len(places_P), bands, device=self.device)
            for name, bands in self._bands.items()
        ]
        return torch.cat(parts, dim=1)

    def values_at(
        self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64], names: Collection[str]
    ) -> dict[str, Tensor]:
        """The scene's own values (P, C) of the named modalities at the given pixels, on the CPU, before standardising.

        NaN where a pixel is missing. A modality that is not in the record is left out.
        """
        places_P = self._places(rows, cols)
        found = {}
        for name in names:
            if name not in self._bands:
                continue
            mean_C, std_C = (torch.tensor(of_bands, dtype=torch.float32) for of_bands in self._statistics[name])
            if name in self._tables:
                values_PC = self._tables[name].index_select(0, places_P).cpu() * std_C + mean_C
                valid_P1 = self._valid[name].index_select(0, places_P).cpu()
                found[name] = torch.where(valid_P1, values_PC, torch.nan)
            else:
                found[name] = torch.full((len(places_P), len(mean_C)), torch.nan)
        return found

    def _places(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Tensor:
        places = (rows + self._reach) * self._row_length + cols + self._reach
        return torch.from_numpy(np.asarray(places, dtype=np.int64)).to(self.device)
