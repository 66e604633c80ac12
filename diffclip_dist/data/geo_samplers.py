"""Bounding boxes for an `ArchiveGeoDataset`: drawn at random, or one beside the other."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from diffclip_dist.data.geo_dataset import ArchiveGeoDataset, Box
from diffclip_dist.randomness import fold, integers, keys
from shards.errors import BadInput


class RandomGeoSampler(Sampler[Box]):
    """Boxes drawn evenly from all places where a whole box lies in a scene.

    A box is drawn from seed, epoch and its number alone, so it is the same with any number of loader workers.

    Args:
        dataset: what is asked.
        size: pixels along a box's side.
        length: boxes an epoch.
        seed: of the draws.

    Raises:
        BadInput: no scene is as large as a box.
    """

    def __init__(self, dataset: ArchiveGeoDataset, size: int, length: int, seed: int = 0) -> None:
        _check("size", size)
        _check("length", length)
        self.size, self.length, self.seed, self.epoch = size, length, seed, 0
        self._dataset = dataset
        places = [
            max(0, scene.record.height - size + 1) * max(0, scene.record.width - size + 1) for scene in dataset.scenes
        ]
        self._ends = np.cumsum(places)
        if not self._ends[-1]:
            raise BadInput(f"size: no scene is {size} pixels high and wide")

    def set_epoch(self, epoch: int) -> None:
        """Chooses the boxes of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Box]:
        for number in range(self.length):
            key = keys(torch.tensor([number]), fold(self.seed, self.epoch))
            drawn = int(integers(key, int(self._ends[-1])))
            index = int(np.searchsorted(self._ends, drawn, side="right"))
            scene = self._dataset.scenes[index]
            row, col = divmod(drawn - int(self._ends[index - 1] if index else 0), scene.record.width - self.size + 1)
            yield self._dataset.grid.box(scene.row + row, scene.col + col, self.size, self.size)


class GridGeoSampler(Sampler[Box]):
    """Boxes beside one another over each scene, row by row, so that every pixel lies in one at least.

    The last box of a row or column is moved inwards, so that it ends with the scene. A scene smaller than a box gets
    one that reaches beyond it.

    Args:
        dataset: what is asked.
        size: pixels along a box's side.
        stride: pixels from box to box, at most ``size``; None takes ``size``.
    """

    def __init__(self, dataset: ArchiveGeoDataset, size: int, stride: int | None = None) -> None:
        _check("size", size)
        self.size, self.stride = size, size if stride is None else stride
        if not 1 <= self.stride <= size:
            raise BadInput(f"stride: expected 1 to {size}, the size, found {stride}")
        self._dataset = dataset

    def __len__(self) -> int:
        return sum(
            len(self._starts(scene.record.height)) * len(self._starts(scene.record.width))
            for scene in self._dataset.scenes
        )

    def __iter__(self) -> Iterator[Box]:
        for scene in self._dataset.scenes:
            for row in self._starts(scene.record.height):
                for col in self._starts(scene.record.width):
                    yield self._dataset.grid.box(scene.row + row, scene.col + col, self.size, self.size)

    def _starts(self, length: int) -> list[int]:
        """First pixels of the boxes along an axis."""
        last = max(0, length - self.size)
        return [*range(0, last, self.stride), last]


def _check(name: str, value: int) -> None:
    if value < 1:
        raise BadInput(f"{name}: expected at least 1, found {value}")
