"""Reads many pixels of a scene through an encoder, window by window, in bounded memory.

Shapes: P pixels, B windows, C bands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.feature_extraction.bands_only import BandsOnly, FeatureEncoder, device_of
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.pixel_features import PixelFeatures, read_out
from diffclip_dist.feature_extraction.threads import in_threads
from diffclip_dist.feature_extraction.views import Grid, Positions, View

# For reading windows in a quick run: some seconds on two cores
QUICK_FLOPS = 2.5e11
# The same where there is no encoder
QUICK_PIXELS = 50_000
# Windows that a thread reads at once: more take memory in every thread and no less time
WINDOWS_ON_CPU: Final = 64
# The same where there is no encoder, and a window is a pixel
PIXELS_AT_ONCE: Final = 4_096


def affordable_windows(encoder: FeatureEncoder) -> int:
    """Windows that a quick run may read, at least 1: a count, not a time, so that it reads the same every time."""
    if isinstance(encoder, BandsOnly):
        return QUICK_PIXELS
    parameters = sum(parameter.numel() for parameter in encoder.transformer.parameters())
    return max(int(QUICK_FLOPS / (2.0 * parameters * encoder.config.tokens * len(encoder.modalities))), 1)


@dataclass(frozen=True)
class WindowsToRead:
    """Windows that are read at once, and the pixels that are read from them.

    Attributes:
        centre_rows: of the windows.
        centre_cols: of the windows.
        rows: of the pixels.
        cols: of the pixels.
        window_of: which of the windows each pixel is read from.
        tokens: which token of that window it is.
    """

    centre_rows: Positions
    centre_cols: Positions
    rows: Positions
    cols: Positions
    window_of: Positions
    tokens: Positions


@dataclass(frozen=True)
class ReadPixels:
    """Features of pixels from one batch of windows."""

    rows: Positions
    cols: Positions
    features: PixelFeatures

    @classmethod
    def joined(cls, parts: Sequence["ReadPixels"]) -> "ReadPixels":
        """The pixels of all parts, in their order."""
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.cols for part in parts]),
            PixelFeatures.joined([part.features for part in parts]),
        )


def read_view(encoder: FeatureEncoder, view: View, config: FeatureConfig) -> PixelFeatures:
    """Features of pixels that have a window each; differentiable."""
    features = encoder(view.windows, view.valid)
    return read_out(
        features, torch.arange(len(view.tokens_P), device=view.tokens_P.device), view.tokens_P, config.readout
    )


def read_view_in_batches(encoder: FeatureEncoder, view: View, config: FeatureConfig) -> PixelFeatures:
    """The same without a graph, a bounded number of windows at a time."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(view.tokens_P), config.window_batch):
            piece = slice(start, start + config.window_batch)
            part = View(
                {name: values[piece] for name, values in view.windows.items()},
                {name: valid[piece] for name, valid in view.valid.items()},
                view.tokens_P[piece],
            )
            parts.append(read_view(encoder, part, config))
    return PixelFeatures.joined(parts)


def read_pixels(
    encoder: FeatureEncoder, scene: SceneWindows, grid: Grid, wanted: npt.NDArray[np.bool_], config: FeatureConfig
) -> Iterator[ReadPixels]:
    """Features of the wanted pixels, batch of windows by batch of windows, each pixel once.

    Args:
        encoder: any encoder that knows the scene's modalities, or none; the features lie on its device.
        scene: where windows are cut.
        grid: the windows to read from.
        wanted: (row, col) of the scene.
        config: the read-out and the size of a batch.
    """
    asked = batches(grid, wanted, windows_at_once(encoder, config))
    return in_threads(lambda batch: read_batch(encoder, scene, grid, batch, config), asked)


def windows_at_once(encoder: FeatureEncoder, config: FeatureConfig) -> int:
    """Windows that are read at once."""
    if isinstance(encoder, BandsOnly):
        return PIXELS_AT_ONCE
    on_cpu = device_of(encoder).type == "cpu"
    return min(config.window_batch, WINDOWS_ON_CPU) if on_cpu else config.window_batch


def batches(grid: Grid, wanted: npt.NDArray[np.bool_], at_once: int) -> Iterator[WindowsToRead]:
    """The windows that the wanted pixels are read from, so many at once.

    Which window a pixel is read from depends on its place in the scene alone, so that a part of a scene is read as the
    whole is.
    """
    rows, cols = np.nonzero(wanted)
    centre_rows, centre_cols = grid.centres(rows, cols)
    centres, window_of = np.unique(centre_rows * grid.width + centre_cols, return_inverse=True)
    order = np.argsort(window_of, kind="stable")
    tokens = grid.tokens(rows, cols, centre_rows, centre_cols)
    ends = np.searchsorted(window_of[order], np.arange(len(centres) + at_once))
    for start in range(0, len(centres), at_once):
        stop = min(start + at_once, len(centres))
        pixels = order[ends[start] : ends[stop]]
        batch_rows, batch_cols = np.divmod(centres[start:stop], grid.width)
        yield WindowsToRead(
            batch_rows,
            batch_cols,
            rows[pixels],
            cols[pixels],
            window_of[pixels] - start,
            tokens[pixels],
        )


def read_batch(
    encoder: FeatureEncoder, scene: SceneWindows, grid: Grid, batch: WindowsToRead, config: FeatureConfig
) -> ReadPixels:
    """Features of a batch's pixels, without a graph. The encoder's last block computes what is read alone."""
    device = device_of(encoder)
    windows, valid = scene.gather(batch.centre_rows, batch.centre_cols)
    wanted_T = torch.from_numpy(grid.wanted_tokens).to(device)
    with torch.no_grad():
        features = encoder(windows, valid, wanted_T)
        read = read_out(
            features,
            torch.from_numpy(batch.window_of).to(device),
            torch.from_numpy(batch.tokens).to(device),
            config.readout,
            wanted_T,
        )
    return ReadPixels(batch.rows, batch.cols, read)
