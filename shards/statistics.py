"""Mean and standard deviation per band in one pass, mergeable over blocks (Chan, Golub and LeVeque, 1983)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.source import Mask, Values

# values turned to float64 at once, so that statistics never double the memory of a block
SLICE_VALUES = 1 << 21


@dataclass(frozen=True)
class BandStatistics:
    """Count of pixels, mean and sum of squared deviations per band, each over the valid pixels seen so far."""

    count: int
    mean: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, bands: int) -> "BandStatistics":
        """Statistics of no pixel at all."""
        zero = np.zeros(bands)
        return cls(0, zero, zero, np.full(bands, np.inf), np.full(bands, -np.inf))

    @classmethod
    def of(cls, values: Values, valid: Mask) -> "BandStatistics":
        """Statistics of values (..., band) where valid (...)."""
        bands = values.shape[-1]
        pixels = values[valid]
        total = cls.empty(bands)
        step = max(1, SLICE_VALUES // bands)
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step].astype(np.float64)
            mean = part.mean(axis=0)
            squares = np.square(part - mean).sum(axis=0)
            total = total.merged(cls(len(part), mean, squares, part.min(axis=0), part.max(axis=0)))
        return total

    def merged(self, other: "BandStatistics") -> "BandStatistics":
        """Statistics of both sets of pixels together."""
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        squares = self.squares + other.squares + np.square(shift) * (self.count * other.count / count)
        lowest, highest = np.minimum(self.lowest, other.lowest), np.maximum(self.highest, other.highest)
        return BandStatistics(count, mean, squares, lowest, highest)

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation per band; exactly 0 for a constant band, whatever the rounding."""
        deviation = np.sqrt(self.squares / max(self.count, 1))
        return np.where(self.lowest == self.highest, 0.0, deviation)
