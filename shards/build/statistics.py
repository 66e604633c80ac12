"""Mean and standard deviation per band in one pass, mergeable over blocks (Chan, Golub and LeVeque, 1983)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from shards.scene.source import Mask, Values

# values converted to float64 at once; more would double a block's memory
SLICE_VALUES = 1 << 21

PerBand = tuple[float, ...]


@dataclass(frozen=True)
class BandStatistics:
    """Of some valid pixels: their count, and per band the mean, sum of squared deviations, lowest and highest value."""

    # the lowest and highest value of no pixel are infinite, which JSON holds as text
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")
    count: int
    mean: PerBand
    squares: PerBand
    lowest: PerBand
    highest: PerBand

    @classmethod
    def empty(cls, bands: int) -> "BandStatistics":
        """Statistics of no pixel."""
        zero = (0.0,) * bands
        return cls(0, zero, zero, (np.inf,) * bands, (-np.inf,) * bands)

    @classmethod
    def of(cls, values: Values, valid: Mask) -> "BandStatistics":
        """Statistics of values (row, col, band) where valid (row, col)."""
        bands = values.shape[-1]
        total = cls.empty(bands)
        rows = max(1, SLICE_VALUES // (bands * values.shape[1]))
        for start in range(0, values.shape[0], rows):
            part = values[start : start + rows][valid[start : start + rows]].astype(np.float64)
            if len(part):
                mean = part.mean(axis=0)
                squares = np.square(part - mean).sum(axis=0)
                total = total.merged(
                    cls(len(part), *(tuple(x.tolist()) for x in (mean, squares, part.min(axis=0), part.max(axis=0))))
                )
        return total

    def merged(self, other: "BandStatistics") -> "BandStatistics":
        """Statistics of both sets of pixels together."""
        count = self.count + other.count
        if count == 0:
            return self
        mean, shift = np.array(self.mean), np.array(other.mean) - np.array(self.mean)
        squares = np.array(self.squares) + np.array(other.squares)
        mean += shift * (other.count / count)
        squares += np.square(shift) * (self.count * other.count / count)
        lowest, highest = np.minimum(self.lowest, other.lowest), np.maximum(self.highest, other.highest)
        return BandStatistics(count, *(tuple(x.tolist()) for x in (mean, squares, lowest, highest)))

    @property
    def std(self) -> PerBand:
        """Population standard deviation per band; exactly 0 for a constant band, whatever the rounding."""
        deviation = np.sqrt(np.array(self.squares) / max(self.count, 1))
        return tuple(np.where(np.equal(self.lowest, self.highest), 0.0, deviation).tolist())
