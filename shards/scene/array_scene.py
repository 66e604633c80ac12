"""A scene held in memory: what a Python user, or a package of public sets, hands over as arrays."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from shards.errors import BadInput
from shards.scene.readers.layer import plain_dtype
from shards.scene.readers.missing_values import MissingValues, valid_pixels
from shards.scene.source import Classes, Labels, Mask, Modality, Values

Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class ArrayScene:
    """A `SceneSource` over arrays.

    Attributes:
        name: name of the scene.
        values: per modality (row, col, band), all of one height and width; not finite is missing.
        wavelengths_nm: per modality, where known, one a band.
        classes: what the ids mean; None for an unlabelled scene.
        labels: class ids (row, col), 0 is unlabelled.
        split: official training and test maps (row, col), where `classes` says there is one.
        crs_wkt: coordinate reference system.
        transform: affine (a, b, c, d, e, f) from (col, row) to (x, y).
        generated: True where the scene is made up.

    Raises:
        BadInput: shapes, types or ids are not as said.
    """

    name: str
    values: Mapping[str, Values]
    wavelengths_nm: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    classes: Classes | None = None
    labels: Labels | None = None
    split: tuple[Labels, Labels] | None = None
    crs_wkt: str | None = None
    transform: Transform | None = None
    generated: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise BadInput(f"{self.name}: expected at least one modality")
        for name, array in self.values.items():
            if array.ndim != 3 or 0 in array.shape or array.shape[:2] != (self.height, self.width):
                raise BadInput(
                    f"{self.name}: {name}: array of shape {array.shape}, expected (row, col, band) with "
                    f"{self.height} rows and {self.width} columns"
                )
            if plain_dtype(array.dtype) != array.dtype:
                raise BadInput(
                    f"{self.name}: {name}: values of type {array.dtype}, expected little-endian real numbers"
                )
        if self.classes is None:
            return
        maps = {"labels": self.labels}
        if self.classes.official_split:
            maps |= {"train": self.split[0], "test": self.split[1]} if self.split else {"split": None}
        for name, ids in maps.items():
            if ids is None or ids.shape != (self.height, self.width):
                raise BadInput(f"{self.name}: {name}: expected a map of {self.height}x{self.width} pixels")
            if unknown := sorted(set(np.unique(ids).tolist()) - {0, *self.classes.names}):
                raise BadInput(f"{self.name}: {name}: unknown class id {unknown[0]}")
            if not ids.any():
                raise BadInput(f"{self.name}: {name}: no labelled pixel")

    @cached_property
    def height(self) -> int:
        """Rows."""
        return int(next(iter(self.values.values())).shape[0])

    @cached_property
    def width(self) -> int:
        """Columns."""
        return int(next(iter(self.values.values())).shape[1])

    @cached_property
    def identity(self) -> str:
        """Hash over all arrays."""
        digest = hashlib.sha256(repr((self.wavelengths_nm, self.classes, self.transform)).encode())
        maps = (self.labels, *(self.split or ()))
        for array in (*self.values.values(), *(ids for ids in maps if ids is not None)):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities in their order."""
        return tuple(
            Modality(name, array.shape[2], array.dtype.name, self.wavelengths_nm.get(name))
            for name, array in self.values.items()
        )

    def read(self, modality: str, rows: slice, cols: slice) -> tuple[Values, Mask]:
        """Values (row, col, band) and where they are valid (row, col)."""
        block = self.values[modality][rows, cols]
        return block, valid_pixels(block, MissingValues())

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); 0 is unlabelled."""
        assert self.labels is not None
        return self.labels[rows, cols].astype(np.uint16)

    def read_split(self, rows: slice, cols: slice) -> tuple[Labels, Labels]:
        """The official training and test maps (row, col)."""
        assert self.split is not None
        return self.split[0][rows, cols].astype(np.uint16), self.split[1][rows, cols].astype(np.uint16)
