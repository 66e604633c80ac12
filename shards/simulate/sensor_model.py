"""A simulated spectrometer and a simulated laser scanner, which measure a terrain.

Both work on a block of pixels with a rim of `RIM` pixels around it, from which shadows and blur reach into the block.
Array names: H rows and W columns of the block, R its rows and Q its columns with the rim, B bands, E materials,
C classes.
"""

from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from shards.scene.source import Mask
from shards.simulate.land_cover import MATERIAL_NAMES, mixing_table
from shards.simulate.procedural_noise import Integers, Reals, hashes, uniform, value_noise
from shards.simulate.spectra import reflectance
from shards.simulate.terrain import PIXEL_M, Terrain

RIM = 6
STORED_PER_REFLECTANCE = 10_000

Singles = npt.NDArray[np.float32]
Kind = TypeVar("Kind", bound=np.generic)

# the sun is in the south-east at an elevation of 50 degrees; rise of a ray per diagonal step
_RAY_CLIMB_M = 1.19 * PIXEL_M * 2**0.5
_RAY_STEPS = 4


def inner(array_RQ: npt.NDArray[Kind], rim: int = RIM) -> npt.NDArray[Kind]:
    """The block without its rim."""
    return array_RQ[rim:-rim, rim:-rim]


@cache
def _normal_table() -> Singles:
    """The normal distribution as 65,536 equally likely values, indexed by 16 bits of a hash."""
    table: Singles = ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
    return table


def normals(seed: int, y_H: Integers, x_W: Integers, count: int) -> Singles:
    """Standard normal noise (row, col, count), four values from each hash."""
    fours = np.arange(-(-count // 4))
    words = hashes(seed, y_H[:, None, None], x_W[None, :, None], fours)
    pieces = words.astype("<u8").view("<u2")[..., :count]
    drawn: Singles = _normal_table()[pieces]
    return drawn


def blurred(plane_RQ: Reals) -> Reals:
    """Point spread of the optics, weights 1-2-1 in both directions. The result has one pixel less on each side."""
    rows = 0.25 * (plane_RQ[:-2] + plane_RQ[2:]) + 0.5 * plane_RQ[1:-1]
    return 0.25 * (rows[:, :-2] + rows[:, 2:]) + 0.5 * rows[:, 1:-1]


def _sunlit(piece: Terrain) -> Reals:
    """Direct sunlight on each pixel, relative to level open ground, blurred (R - 2, Q - 2); exact within RIM."""
    top_RQ = piece.ground_m + piece.stands_m
    shadow_RQ = np.zeros(top_RQ.shape)
    for step in range(1, _RAY_STEPS + 1):
        blocker = top_RQ[step:, step:] - step * _RAY_CLIMB_M - top_RQ[:-step, :-step]
        darker = np.clip(blocker / 1.5, 0.0, 1.0)
        shadow_RQ[:-step, :-step] = np.maximum(shadow_RQ[:-step, :-step], darker)
    # a slope that faces the sun gets more light, above all on roofs and crowns
    slope_RQ = np.zeros(top_RQ.shape)
    slope_RQ[:-1, :-1] = (top_RQ[:-1, :-1] - top_RQ[1:, 1:]) / (PIXEL_M * 2**0.5)
    facing = np.clip(1.0 + 0.22 * slope_RQ, 0.45, 1.3)
    return blurred(np.clip((1.0 - 0.85 * shadow_RQ) * facing, 0.1, 1.3))


class Spectrometer:
    """An imaging spectrometer with its noise.

    Args:
        wavelengths_nm: centre of each band.
        noise: standard deviation of the noise in units of reflectance, in the bands with the least noise.
        overlap, variation, roughness: how materials mix, see `GeneratedSceneSpec`.
    """

    def __init__(
        self, wavelengths_nm: tuple[float, ...], noise: float, overlap: float, variation: float, roughness: float
    ) -> None:
        nm = np.asarray(wavelengths_nm)
        self._mixing = mixing_table(overlap)
        self._variation = variation
        self._roughness = roughness
        self._spectra_EB = reflectance(MATERIAL_NAMES, wavelengths_nm).astype(np.float32)
        # light from the sky in full shadow, relative to the sun: more in blue than in red
        self._skylight_B = np.round(0.30 * (400.0 / nm) ** 2, 6).astype(np.float32)
        vapour = np.exp(-(((nm - 1390.0) / 40.0) ** 2)) + np.exp(-(((nm - 1880.0) / 55.0) ** 2))
        ends = 0.8 * np.exp(-(nm - 400.0) / 60.0) + 0.8 * np.exp((nm - 2500.0) / 120.0)
        self._noise_B = np.round(noise * (1.0 + 2.5 * vapour + ends), 6).astype(np.float32)

    def measure(self, piece: Terrain, seed: int, y_R: Integers, x_Q: Integers) -> npt.NDArray[np.int16]:
        """Stored values (H, W, B) of a block from its terrain with the rim and its pixel coordinates."""
        planes = self._materials(piece, seed, y_R, x_Q)
        y_H, x_W = y_R[RIM:-RIM], x_Q[RIM:-RIM]
        seen_HWB = np.zeros((y_H.size, x_W.size, self._noise_B.size), np.float32)
        # a sum in a fixed order; the rounding of a matrix product depends on the block's shape
        for share_HW, spectrum_B in zip(planes, self._spectra_EB, strict=True):
            if share_HW.any():
                seen_HWB += share_HW.astype(np.float32)[..., None] * spectrum_B
        haze = value_noise(seed + 1, y_H[:, None].astype(np.float64), x_W[None].astype(np.float64), 45.0)
        sun_HW1 = (inner(_sunlit(piece), RIM - 1) * (0.82 + 0.3 * haze)).astype(np.float32)[..., None]
        seen_HWB *= sun_HW1 * (1 - self._skylight_B) + self._skylight_B
        seen_HWB += self._noise_B * normals(seed + 2, y_H, x_W, self._noise_B.size)
        seen_HWB *= STORED_PER_REFLECTANCE
        return np.clip(np.rint(seen_HWB), -1000, 20_000).astype(np.int16)

    def _materials(self, piece: Terrain, seed: int, y_R: Integers, x_Q: Integers) -> list[Reals]:
        """Share of each material in each pixel (H, W), blurred by the optics."""
        y, x = np.broadcast_arrays(y_R[:, None], x_Q[None])
        own = uniform(hashes(seed + 3, piece.object_hash))
        rough = uniform(hashes(seed + 4, y, x))
        clumps = value_noise(seed + 5, y.astype(np.float64), x.astype(np.float64), 4.0)
        between = self._variation * own
        # squared, so that most pixels are nearly typical and a few are not
        within = self._roughness * (0.6 * rough * rough + 0.4 * clumps * clumps)
        typical = (1 - between) * (1 - within)
        typical_CE, between_CE, within_CE = self._mixing
        planes = []
        for material in range(len(MATERIAL_NAMES)):
            share_RQ = (
                typical * typical_CE[piece.cover, material]
                + between * (1 - within) * between_CE[piece.cover, material]
                + within * within_CE[piece.cover, material]
            )
            planes.append(inner(blurred(share_RQ), RIM - 1))
        return planes


def scan(piece: Terrain, seed: int, y_R: Integers, x_Q: Integers) -> tuple[Singles, Mask]:
    """Surface height (H, W, 1) in metres above the lowest ground, and where a pulse came back (H, W).

    Missing pixels are gaps between flight lines and patches of lost pulses, whatever the land cover.
    """
    y, x = np.broadcast_arrays(y_R[RIM:-RIM, None].astype(np.float64), x_Q[None, RIM:-RIM].astype(np.float64))
    top_HW = inner(piece.ground_m + piece.stands_m)
    height = top_HW.astype(np.float32)[..., None] + np.float32(0.08) * normals(seed, y_R[RIM:-RIM], x_Q[RIM:-RIM], 1)
    line = np.abs((0.35 * x + y + 6.0 * value_noise(seed + 1, y, x, 20.0) + 40.0) % 190.0 - 95.0)
    valid = (line > 2.5) & (value_noise(seed + 2, y, x, 16.0) < 0.86)
    return np.where(valid[..., None], height, np.float32(np.nan)), valid
