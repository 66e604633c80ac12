"""Several files stacked as the bands of one layer."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shards.errors import BadInput
from shards.scene.readers.layer import Grid, Layer
from shards.scene.readers.resampled import resample
from shards.scene.readers.same_grid import check_same_grid
from shards.scene.readers.scaling import identity
from shards.scene.source import Mask, Scaling, Values

# B2, B02, B8A, SR_B4, band_10: the part of a file's name that says which band it is
BAND_TOKEN = re.compile(r"(?:^|[_.\-\s])((?:B|band[_\-]?)\d{1,3}A?)(?=$|[_.\-\s])", re.IGNORECASE)


@dataclass(frozen=True)
class StackedLayer:
    """Layers on one grid, their bands one after the other.

    Attributes:
        names: of the layers.
        layers: all on one grid.
    """

    names: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def files(self) -> str:
        return f"{self.layers[0].files} (and {len(self.layers) - 1} more stacked)"

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for layer in self.layers for path in layer.paths)

    @property
    def grid(self) -> Grid:
        return self.layers[0].grid

    @property
    def bands(self) -> int:
        return len(self._places)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.result_type(*(layer.dtype for layer in self.layers))

    @property
    def wavelengths_nm(self) -> tuple[float, ...] | None:
        return self._joined([layer.wavelengths_nm for layer in self.layers])

    @property
    def fwhm_nm(self) -> tuple[float, ...] | None:
        return self._joined([layer.fwhm_nm for layer in self.layers])

    @property
    def bad_bands(self) -> tuple[int, ...]:
        return self._marked([layer.bad_bands for layer in self.layers])

    @property
    def mask_bands(self) -> tuple[int, ...]:
        return self._marked([layer.mask_bands for layer in self.layers])

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(
            self.names[number] if self.layers[number].bands == 1 else f"{self.names[number]}_{band}"
            for number, band in self._places
        )

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        """One, if any layer has one; where a layer's files differ, its further ones follow."""
        most = max(len(layer.scalings) for layer in self.layers)
        joined = []
        for turn in range(most):
            turns = [
                layer.scalings[min(turn, len(layer.scalings) - 1)] if layer.scalings else identity(layer.bands)
                for layer in self.layers
            ]
            scale = tuple(turns[number].scale[band - 1] for number, band in self._places)
            offset = tuple(turns[number].offset[band - 1] for number, band in self._places)
            joined.append(Scaling(scale, offset, sum(one.files for one in turns)))
        return tuple(joined)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for layer in self.layers for note in layer.notes)

    @property
    def nodata(self) -> float | None:
        values = {layer.nodata for layer in self.layers}
        return values.pop() if len(values) == 1 else None

    def read(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[Values, Mask]:
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        values: Values = np.zeros((*shape, len(bands)), dtype=self.dtype)
        valid: Mask = np.ones(shape, dtype=np.bool_)
        for layer, places, own in self._asked(bands):
            values[..., places], layer_valid = layer.read(rows, cols, own)
            valid &= layer_valid
        return values, valid

    def bands_with_data(self, rows: slice, cols: slice, bands: tuple[int, ...]) -> tuple[int, ...]:
        found: list[int] = []
        for layer, places, own in self._asked(bands):
            filled = layer.bands_with_data(rows, cols, own)
            found += [bands[place] for place, band in zip(places, own, strict=True) if band in filled]
        return tuple(band for band in bands if band in found)

    @cached_property
    def _places(self) -> tuple[tuple[int, int], ...]:
        """For each band: which layer, and which of its bands (from 1)."""
        return tuple((number, band) for number, layer in enumerate(self.layers) for band in range(1, layer.bands + 1))

    def _asked(self, bands: tuple[int, ...]) -> list[tuple[Layer, list[int], tuple[int, ...]]]:
        """The layers that hold these bands, with the bands' places in the answer and their numbers in the layer."""
        asked: dict[int, list[tuple[int, int]]] = {}
        for place, band in enumerate(bands):
            number, own = self._places[band - 1]
            asked.setdefault(number, []).append((place, own))
        return [
            (self.layers[number], [place for place, _ in found], tuple(own for _, own in found))
            for number, found in asked.items()
        ]

    def _joined(self, values: list[tuple[float, ...] | None]) -> tuple[float, ...] | None:
        known = [value for value in values if value is not None]
        return tuple(one for value in known for one in value) if len(known) == len(values) else None

    def _marked(self, bands: list[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(place for place, (number, band) in enumerate(self._places, start=1) if band in bands[number])


def stack(layers: Mapping[str, Layer], method: str, field: str) -> StackedLayer:
    """Stacks layers; those on another grid are resampled onto the finest, the first of several.

    Args:
        layers: by name, in the order of the bands.
        method: name of a rasterio resampling.
        field: of scene.yaml, for messages.

    Raises:
        BadInput: a layer lies on another grid and does not say where.
    """
    finest_name, finest = min(layers.items(), key=lambda item: _pixel_area(item[1].grid))
    placed: list[Layer] = []
    for layer in layers.values():
        try:
            check_same_grid(finest, layer, field, finest_name)
            placed.append(layer)
        except BadInput:
            if layer.grid.transform is None or finest.grid.transform is None:
                raise
            placed.append(resample(layer, finest.grid, method, field))
    return StackedLayer(tuple(layers), tuple(placed))


def _pixel_area(grid: Grid) -> float:
    """Area of a pixel in units of the CRS; infinite where the files do not say it."""
    if grid.transform is None:
        return math.inf
    a, b, _, d, e, _ = grid.transform
    return abs(a * e - b * d)


def bands_by_name(paths: tuple[Path, ...]) -> dict[str, tuple[Path, ...]]:
    """Files grouped by the band that their names tell, in natural order (B2 before B10).

    Where a name tells no band, each file is one band, named by the part of its name that the others lack.
    """
    tokens = [BAND_TOKEN.findall(path.stem) for path in paths]
    if all(tokens):
        names = [found[-1] for found in tokens]
    else:
        parts = [re.split(r"[_.\-\s]", path.stem) for path in paths]
        shared = set.intersection(*map(set, parts))
        names = [
            "_".join(part for part in one if part not in shared) or path.stem
            for one, path in zip(parts, paths, strict=True)
        ]
        if len(set(names)) < len(names):
            names = [path.stem for path in paths]
    grouped: dict[str, tuple[Path, ...]] = {}
    for name, path in sorted(zip(names, paths, strict=True), key=lambda item: natural_order(item[0])):
        grouped[name] = (*grouped.get(name, ()), path)
    return grouped


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which numbers inside a name count as numbers."""
    parts = re.split(r"(\d+)", name.lower())
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
