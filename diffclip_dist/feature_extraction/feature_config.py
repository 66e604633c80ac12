"""The settings of feature extraction."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from shards.errors import BadInput

Readout = Literal["class", "pixel", "both"]

# Pixels on each side that one round of smoothing looks at
SMOOTHING_RADIUS: Final = 2


@dataclass(frozen=True)
class FeatureConfig:
    """How the features of a scene's pixels are extracted.

    Attributes:
        readout: the features of a pixel: the ``class`` token of its window (published), its own token (``pixel``), or
            both; always of every modality, joined.
        stride: pixels between the centres of the windows that are read, at least 1; each window gives the features of
            the stride x stride pixels around its centre. 1 gives each pixel a window of its own.
        smoothing: rounds, 0 or more, of averaging over similar neighbours.
        statistics_windows: windows, evenly spread over the scene, that features are standardised by, at least 1.
        window_batch: windows the encoder takes at once, at least 1.
    """

    readout: Readout = "pixel"
    stride: int = 3
    smoothing: int = 3
    statistics_windows: int = 384
    window_batch: int = 256

    def __post_init__(self) -> None:
        if self.readout not in get_args(Readout):
            raise BadInput(f"fewshot.readout: expected {', '.join(get_args(Readout))}, found {self.readout}")
        for name in ("stride", "statistics_windows", "window_batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"fewshot.{name}: expected at least 1, found {getattr(self, name)}")
        if self.smoothing < 0:
            raise BadInput(f"fewshot.smoothing: expected 0 or more, found {self.smoothing}")

    @property
    def smoothing_reach(self) -> int:
        """Pixels on each side of a pixel that its smoothed features depend on."""
        return SMOOTHING_RADIUS * self.smoothing
