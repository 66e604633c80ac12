"""What a layer that changes another one passes on of it."""

from pathlib import Path

import numpy as np

from shards.scene.readers.layer import Layer
from shards.scene.source import Scaling


class WrappedLayer:
    """A part of a `Layer` that reads another one; a subclass overrides what it changes.

    A subclass that is a dataclass must not have a field of the name of a property here: it could not be set.

    Attributes:
        layer: the other one.
    """

    layer: Layer

    @property
    def files(self) -> str:
        return self.layer.files

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.layer.paths

    @property
    def bands(self) -> int:
        return self.layer.bands

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.layer.dtype

    @property
    def mask_bands(self) -> tuple[int, ...]:
        return self.layer.mask_bands

    @property
    def band_names(self) -> tuple[str, ...] | None:
        return self.layer.band_names

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        return self.layer.scalings

    @property
    def notes(self) -> tuple[str, ...]:
        return self.layer.notes

    @property
    def nodata(self) -> float | None:
        return self.layer.nodata
