"""The placed scenes of an archive as a PyTorch dataset that is asked by bounding boxes, in the manner of torchgeo.

Shapes: C bands of all modalities, M modalities, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import torch
from torch.utils.data import Dataset

from shards.archive.archive import Archive
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput

Box = tuple[slice, slice]
Sample = dict[str, Any]

# largest distance of two scenes' pixels, in pixels, that lie on one grid
_SAME_GRID: Final = 1e-3


@dataclass(frozen=True)
class GeoGrid:
    """A grid of square or oblong pixels, north up, without an end.

    Attributes:
        x: of a corner of pixels, in units of the CRS.
        y: of the same corner.
        width: of a pixel.
        height: of a pixel.
    """

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, record: SceneRecord) -> "GeoGrid | None":
        """A scene's grid, whose corner is that of its first pixel; None where it has no place or is turned."""
        if record.crs_wkt is None or record.transform is None:
            return None
        a, b, c, d, e, f = record.transform
        return cls(c, f, a, -e) if b == d == 0 and a > 0 > e else None

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the pixel whose upper left corner lies nearest."""
        return round((self.y - y) / self.height), round((x - self.x) / self.width)

    def box(self, row: int, col: int, height: int, width: int) -> Box:
        """Bounds of some pixels, as a dataset takes them."""
        left, bottom = self.x + col * self.width, self.y - (row + height) * self.height
        return slice(left, left + width * self.width), slice(bottom, bottom + height * self.height)

    def holds(self, other: "GeoGrid") -> bool:
        """Whether another's pixels lie on this one's."""
        steps = np.array([(other.x - self.x) / self.width, (self.y - other.y) / self.height])
        sizes = np.array([other.width / self.width, other.height / self.height])
        return bool(np.all(np.abs(steps - np.round(steps)) < _SAME_GRID) and np.allclose(sizes, 1, rtol=1e-9, atol=0))


@dataclass(frozen=True)
class PlacedScene:
    """A scene on the dataset's grid.

    Attributes:
        record: the scene.
        row: of its first pixel on the grid.
        col: of its first pixel on the grid.
    """

    record: SceneRecord
    row: int
    col: int


class ArchiveGeoDataset(Dataset[Sample]):
    """Scenes of an archive that lie on one grid, asked by bounding boxes in units of their CRS.

    ``dataset[xmin:xmax, ymin:ymax]`` gives a dict, as datasets of torchgeo do, which PyTorch's own collate function
    puts into batches:

    - ``image``: float32 (C, H, W), the bands of all modalities in their order, in the archive's units, 0 where missing.
    - ``valid``: bool (M, H, W), where each modality has data.
    - ``mask``: int64 (H, W), class ids of the archive, 0 where unlabelled; absent where no scene has labels.
    - ``bounds``: float64 (4,), xmin, ymin, xmax, ymax of the pixels that were read.
    - ``crs``: the CRS as WKT.

    A box takes the pixels that its corners lie nearest to. It may reach beyond scenes: what no scene covers is missing.
    Where scenes overlap, the first that has data of a modality at a pixel gives it.

    Args:
        archive: the archive, or its place.
        scenes: names of scenes; None takes all that have a place, north up.
        modalities: names of modalities that each scene has; None takes all of the first scene's.
        transforms: called with each sample; gives what is returned.

    Attributes:
        crs: of all scenes, as WKT.
        grid: of all scenes; its corner is that of the first scene.
        scenes: where each lies on the grid.
        modalities: their names, in the order of ``valid``.
        bands: band of each channel of ``image``, as (modality, number from 1).
        classes: class ids to names.

    Raises:
        BadInput: no scene has a place, or scenes differ in CRS, grid, bands or classes.

    Example:
        >>> dataset = dc.ArchiveGeoDataset("archive")
        >>> sampler = dc.RandomGeoSampler(dataset, size=64, length=1000)
        >>> loader = torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=16)
    """

    def __init__(
        self,
        archive: str | Path | Archive,
        scenes: Sequence[str] | None = None,
        modalities: Sequence[str] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.archive = archive if isinstance(archive, Archive) else Archive.open(archive)
        self.transforms = transforms
        records = self._chosen(scenes)
        first = records[0]
        self.modalities = (
            tuple(modality.name for modality in first.modalities) if modalities is None else (*modalities,)
        )
        self.crs, self.grid, self.classes = _crs(first), _grid(first), dict(first.classes)
        bands = self._bands(first)
        self.bands = tuple((name, band + 1) for name, count, _ in bands for band in range(count))
        for record in records[1:]:
            if rasterio.CRS.from_wkt(_crs(record)) != rasterio.CRS.from_wkt(self.crs):
                raise self._differ(first, record, "CRS")
            if not self.grid.holds(_grid(record)):
                raise self._differ(first, record, "grid")
            if self._bands(record) != bands:
                raise self._differ(first, record, "bands")
            if record.classes and self.classes and dict(record.classes) != self.classes:
                raise self._differ(first, record, "classes")
            self.classes = self.classes or dict(record.classes)
        corners = [self.grid.place(_grid(record).x, _grid(record).y) for record in records]
        self.scenes = tuple(PlacedScene(record, row, col) for record, (row, col) in zip(records, corners, strict=True))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """xmin, ymin, xmax and ymax of all scenes together."""
        first_row, first_col = min(one.row for one in self.scenes), min(one.col for one in self.scenes)
        end_row = max(one.row + one.record.height for one in self.scenes)
        end_col = max(one.col + one.record.width for one in self.scenes)
        x, y = self.grid.box(first_row, first_col, end_row - first_row, end_col - first_col)
        return x.start, y.start, x.stop, y.stop

    def __getitem__(self, query: Box) -> Sample:
        """The pixels of a box.

        Args:
            query: ``xmin:xmax, ymin:ymax`` in units of the CRS; an end that is left out is that of all scenes.

        Raises:
            IndexError: the box holds no pixel, or meets no scene.
        """
        row, col, height, width = self._pixels(query)
        image = np.zeros((len(self.bands), height, width), np.float32)
        valid = np.zeros((len(self.modalities), height, width), np.bool_)
        mask = np.zeros((height, width), np.int64)
        met = False
        for scene in self.scenes:
            rows = slice(max(row, scene.row), min(row + height, scene.row + scene.record.height))
            cols = slice(max(col, scene.col), min(col + width, scene.col + scene.record.width))
            if rows.start >= rows.stop or cols.start >= cols.stop:
                continue
            met = True
            read = self.archive.read_scene(
                scene.record.name, self.modalities, _shifted(rows, scene.row), _shifted(cols, scene.col)
            )
            here = _shifted(rows, row), _shifted(cols, col)
            channel = 0
            for number, name in enumerate(self.modalities):
                bands = read.values[name].shape[2]
                new = read.valid[name] & ~valid[number][here]
                part = image[channel : channel + bands, here[0], here[1]]
                part[:, new] = read.values[name][new].T
                valid[number][here] |= new
                channel += bands
            if read.labels is not None:
                part_of_mask = mask[here]
                part_of_mask[part_of_mask == 0] = read.labels[part_of_mask == 0]
        if not met:
            raise IndexError(f"{_described(query)}: meets no scene; they lie in {self.bounds}")
        x, y = self.grid.box(row, col, height, width)
        sample: Sample = {
            "image": torch.from_numpy(image),
            "valid": torch.from_numpy(valid),
            "bounds": torch.tensor([x.start, y.start, x.stop, y.stop], dtype=torch.float64),
            "crs": self.crs,
        }
        if self.classes:
            sample["mask"] = torch.from_numpy(mask)
        return sample if self.transforms is None else self.transforms(sample)

    def _pixels(self, query: Box) -> tuple[int, int, int, int]:
        """First row and column of a box on the grid, its rows and its columns."""
        if not (isinstance(query, tuple) and len(query) == 2 and all(isinstance(one, slice) for one in query)):
            raise IndexError(f"{query!r}: expected dataset[xmin:xmax, ymin:ymax] in units of the CRS")
        xmin, ymin, xmax, ymax = self.bounds
        x, y = query
        if x.step is not None or y.step is not None:
            raise IndexError(f"{_described(query)}: expected no steps; the archive's pixels are given as they are")
        left, right = xmin if x.start is None else x.start, xmax if x.stop is None else x.stop
        bottom, top = ymin if y.start is None else y.start, ymax if y.stop is None else y.stop
        row, col = self.grid.place(left, top)
        end_row, end_col = self.grid.place(right, bottom)
        if end_row <= row or end_col <= col:
            raise IndexError(f"{_described(query)}: holds no pixel; they are {self.grid.width} x {self.grid.height}")
        return row, col, end_row - row, end_col - col

    def _chosen(self, names: Sequence[str] | None) -> list[SceneRecord]:
        if names is None:
            found = [record for record in self.archive.manifest.scenes if GeoGrid.of(record) is not None]
            if not found:
                raise BadInput(f"{self.archive.location}: no scene has a CRS and a grid that is north up")
            return found
        records = [self.archive.scene(name) for name in names]
        if not records:
            raise BadInput("scenes: expected at least one name")
        for record in records:
            if GeoGrid.of(record) is None:
                raise BadInput(f"{self.archive.location}: scene {record.name} has no CRS or no grid that is north up")
        return records

    def _bands(self, record: SceneRecord) -> list[tuple[str, int, tuple[float, ...] | None]]:
        """Name, number of bands and wavelengths of the modalities that are read."""
        found = []
        for name in self.modalities:
            try:
                modality = record.modality(name)
            except KeyError:
                known = ", ".join(one.name for one in record.modalities)
                raise BadInput(f"scene {record.name}: no modality {name!r}; it has: {known}") from None
            found.append((name, modality.bands, modality.wavelengths_nm))
        return found

    def _differ(self, first: SceneRecord, other: SceneRecord, what: str) -> BadInput:
        return BadInput(
            f"{self.archive.location}: scenes {first.name} and {other.name} differ in {what}; name scenes that share it"
        )


def _crs(record: SceneRecord) -> str:
    assert record.crs_wkt is not None
    return record.crs_wkt


def _grid(record: SceneRecord) -> GeoGrid:
    grid = GeoGrid.of(record)
    assert grid is not None
    return grid


def _shifted(part: slice, start: int) -> slice:
    """Rows or columns counted from `start`."""
    return slice(part.start - start, part.stop - start)


def _described(query: Box) -> str:
    return ", ".join(f"{one.start}:{one.stop}" for one in query)
