"""Random fields without state. A value is a hash of a seed and a place, so blocks of any shape agree in every bit.

Per-pixel arithmetic uses only operations that IEEE 754 rounds exactly: no exp or sin, no matrix products. Vectorised
functions and blocked sums may round differently with the length of an array.
"""

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mixed(words: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele et al., 2014): every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def hashes(seed: int, *coordinates: Integers | Hashes) -> Hashes:
    """One 64-bit hash per place; coordinates broadcast against each other.

    Args:
        seed: any integer; another seed gives an unrelated field.
        coordinates: integer arrays, at least one.
    """
    # a mixed seed keeps consecutive seeds from giving shifted copies of one field
    state = _mixed(np.array([(seed * _GOLDEN + 1) & _WORD], dtype=np.uint64))
    for coordinate in coordinates:
        state = _mixed((state ^ coordinate.astype(np.uint64)) + np.uint64(_GOLDEN))
    return state


def uniform(words: Hashes) -> Reals:
    """Hashes to numbers in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def smoothstep(x: Reals) -> Reals:
    """3x^2 - 2x^3 on [0, 1], constant outside; its slope has no step."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def value_noise(seed: int, y: Reals, x: Reals, scale: float) -> Reals:
    """A smooth field in [0, 1] that varies over about `scale` pixels: hashed values on a grid, smoothly joined."""
    y, x = np.broadcast_arrays(y / scale, x / scale)
    row, col = np.floor(y), np.floor(x)
    along_y, along_x = smoothstep(y - row), smoothstep(x - col)
    i, j = row.astype(np.int64), col.astype(np.int64)
    top = (1 - along_x) * uniform(hashes(seed, i, j)) + along_x * uniform(hashes(seed, i, j + 1))
    bottom = (1 - along_x) * uniform(hashes(seed, i + 1, j)) + along_x * uniform(hashes(seed, i + 1, j + 1))
    return (1 - along_y) * top + along_y * bottom


def nearest_points(seed: int, y: Reals, x: Reals, spacing: float) -> tuple[Reals, Reals, Integers, Integers]:
    """The nearest of one jittered point per square cell (Worley's cellular noise).

    Returns:
        The distance to it and to the second nearest, in pixels, and its cell's row and column.
    """
    y, x = y / spacing, x / spacing
    cell_y, cell_x = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    first = np.full(y.shape, np.inf)
    second = np.full(y.shape, np.inf)
    row, col = cell_y.copy(), cell_x.copy()
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            i, j = cell_y + step_y, cell_x + step_x
            word = hashes(seed, i, j)
            # jitter over 70 % of the cell: over the whole cell, a point two cells away could be the nearest
            point_y = i + 0.15 + 0.7 * (word >> np.uint64(40)).astype(np.float64) * 2.0**-24
            point_x = j + 0.15 + 0.7 * (word & np.uint64(0xFFFFFF)).astype(np.float64) * 2.0**-24
            square = (y - point_y) * (y - point_y) + (x - point_x) * (x - point_x)
            closer = square < first
            second = np.where(closer, first, np.minimum(second, square))
            row, col = np.where(closer, i, row), np.where(closer, j, col)
            first = np.where(closer, square, first)
    return np.sqrt(first) * spacing, np.sqrt(second) * spacing, row, col
