"""The terrain of a generated scene: districts, streets, houses, fields, woods, a river.

Lengths are in pixels; a pixel is `PIXEL_M` metres. y runs down the rows and x along the columns. The terrain at
a pixel does not depend on the block that it is part of.
"""

import enum
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from shards.simulate.procedural_noise import Hashes, Integers, Reals, hashes, nearest_points, uniform, value_noise

PIXEL_M = 2.5
DISTRICT = 30.0  # spacing of districts

Flags = npt.NDArray[np.bool_]
Covers = npt.NDArray[np.int64]


class Cover(enum.IntEnum):
    """What covers the ground; the value is the class id in label maps."""

    HEALTHY_GRASS = 1
    DRY_GRASS = 2
    SYNTHETIC_TURF = 3
    SHRUBS = 4
    BROADLEAF_TREES = 5
    CONIFERS = 6
    CROPS = 7
    BARE_SOIL = 8
    WATER = 9
    ROAD = 10
    RAILWAY = 11
    CONCRETE = 12
    TILE_ROOF = 13
    METAL_ROOF = 14
    BITUMEN_ROOF = 15


class District(enum.IntEnum):
    """Land use of a district. There are nine, so that a block of 3 x 3 districts holds each once."""

    VILLAS = 0
    TERRACES = 1
    COMMERCE = 2
    INDUSTRY = 3
    CROPLAND = 4
    FALLOW = 5
    BROADLEAF_WOOD = 6
    CONIFER_WOOD = 7
    PARK = 8


@dataclass
class Terrain:
    """The ground of a block and what stands on it, every field (row, col).

    Attributes:
        cover: `Cover` of each pixel.
        stands_m: height above the ground in metres.
        ground_m: height of the ground in metres.
        object_hash: a hash shared by the pixels of one house, field, tree or street.
    """

    cover: Covers
    stands_m: Reals
    ground_m: Reals
    object_hash: Hashes

    def paint(self, where: Flags, cover: Cover, stands_m: Reals | float, object_hash: Hashes) -> None:
        """Puts one kind of cover over what is there."""
        self.cover = np.where(where, int(cover), self.cover)
        self.stands_m = np.where(where, stands_m, self.stands_m)
        self.object_hash = np.where(where, object_hash, self.object_hash)


@dataclass(frozen=True)
class _Lot:
    """A rectangular grid over a district, rotated with it: the place of each pixel in its lot."""

    along: Reals
    across: Reals
    row: Integers
    col: Integers


# a district's rotation comes from a table, so that no sine is taken per pixel
_ROTATIONS = np.array([(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (-24, -11, 0, 8, 17, 31)])


def terrain(seed: int, rows: Integers, cols: Integers, relief_m: float) -> Terrain:
    """The terrain of a block of pixels.

    Args:
        seed: another seed is another place; the fields use the hundred seeds from here on.
        rows: row of each row of the block, may be negative.
        cols: column of each column of the block, may be negative.
        relief_m: difference between the highest and the lowest ground in metres.
    """
    y, x = np.meshgrid(rows.astype(np.float64), cols.astype(np.float64), indexing="ij")
    bend_y = y + 9.0 * (value_noise(seed + 1, y, x, 23.0) - 0.5)
    bend_x = x + 9.0 * (value_noise(seed + 2, y, x, 23.0) - 0.5)
    first, second, row, col = nearest_points(seed + 3, bend_y, bend_x, DISTRICT)
    district = _districts(seed + 4, row, col)
    word = hashes(seed + 5, row, col)

    shape = y.shape
    piece = Terrain(
        np.full(shape, int(Cover.HEALTHY_GRASS)),
        0.1 + 0.1 * value_noise(seed + 6, y, x, 3.0),
        relief_m * (0.7 * value_noise(seed + 7, y, x, 90.0) + 0.3 * value_noise(seed + 8, y, x, 31.0)),
        word,
    )
    _paint_open_land(piece, seed + 20, y, x, district, word)
    _paint_buildings(piece, seed + 40, y, x, district, word)
    _paint_trees(piece, seed + 60, y, x, district)
    _paint_ways(piece, seed + 80, y, x, district, second - first, word)
    return piece


@lru_cache(maxsize=8)
def _orders(seed: int) -> Integers:
    """Some orders of the nine land uses; a block of 3 x 3 districts takes one of them."""
    # each row sorts nine hashes, which is a permutation
    return np.argsort(hashes(seed, np.arange(32)[:, None], np.arange(9)), axis=1, kind="stable")


def _districts(seed: int, row: Integers, col: Integers) -> Integers:
    orders = _orders(seed)
    block = hashes(seed, row // 3, col // 3) % np.uint64(len(orders))
    return np.asarray(orders[block.astype(np.int64), (row % 3) * 3 + col % 3], dtype=np.int64)


def _lot(y: Reals, x: Reals, word: Hashes, length: float, depth: float) -> _Lot:
    cosine, sine = np.moveaxis(_ROTATIONS[(word % np.uint64(len(_ROTATIONS))).astype(np.int64)], -1, 0)
    across, along = (cosine * y - sine * x) / depth, (sine * y + cosine * x) / length
    row, col = np.floor(across), np.floor(along)
    return _Lot((along - col) * length, (across - row) * depth, row.astype(np.int64), col.astype(np.int64))


def _paint_open_land(piece: Terrain, seed: int, y: Reals, x: Reals, district: Integers, word: Hashes) -> None:
    patches = value_noise(seed, y, x, 11.0)
    texture = value_noise(seed + 1, y, x, 2.5)
    half = value_noise(seed + 2, y, x, 40.0) < 0.5
    side = half.astype(np.int64)

    crops = district == District.CROPLAND
    piece.paint(crops, Cover.CROPS, 0.5 + 0.4 * texture, hashes(seed + 3, word, side))
    fallow = district == District.FALLOW
    piece.paint(fallow & half, Cover.BARE_SOIL, 0.05, hashes(seed + 4, word, side))
    piece.paint(fallow & ~half, Cover.DRY_GRASS, 0.2 + 0.2 * texture, hashes(seed + 4, word, side))
    piece.paint((fallow & (patches > 0.66)) | (crops & (patches > 0.83)), Cover.SHRUBS, 0.8 + 1.8 * texture, word)

    park = district == District.PARK
    piece.paint(park & (patches < 0.3), Cover.DRY_GRASS, 0.15, hashes(seed + 5, word))
    pitch = _lot(y, x, word, 27.0, 19.0)
    playing = park & (pitch.along > 4) & (pitch.along < 24) & (pitch.across > 3) & (pitch.across < 16)
    piece.paint(playing, Cover.SYNTHETIC_TURF, 0.02, hashes(seed + 6, pitch.row, pitch.col))


def _paint_buildings(piece: Terrain, seed: int, y: Reals, x: Reals, district: Integers, word: Hashes) -> None:
    homes = (district == District.VILLAS) | (district == District.TERRACES)
    lot = _lot(y, x, word, 10.0, 13.0)
    plot = hashes(seed, lot.row, lot.col, word)
    piece.paint(homes & (plot % np.uint64(3) == np.uint64(0)), Cover.DRY_GRASS, 0.1, plot)
    piece.paint(homes & (lot.across < 2.0), Cover.ROAD, 0.0, hashes(seed + 1, lot.row, word))
    terrace = district == District.TERRACES
    margin = np.where(terrace, 0.0, 1.5) + uniform(hashes(seed + 2, plot))
    house = homes & (lot.along > margin) & (lot.along < 9.6 - np.where(terrace, 0.0, 1.2))
    house &= (lot.across > 4.2) & (lot.across < 10.8)
    eaves = 4.0 + 4.0 * uniform(hashes(seed + 3, plot)) + np.where(terrace, 2.0, 0.0)
    gable = eaves + 0.9 * (3.3 - np.abs(lot.across - 7.5))
    kind = uniform(hashes(seed + 4, plot))
    piece.paint(house, Cover.TILE_ROOF, gable, hashes(seed + 5, plot))
    piece.paint(house & (kind > 0.78), Cover.BITUMEN_ROOF, eaves, hashes(seed + 5, plot))

    works = (district == District.COMMERCE) | (district == District.INDUSTRY)
    lot = _lot(y, x, word, 23.0, 17.0)
    plot = hashes(seed + 6, lot.row, lot.col, word)
    lane = (lot.across < 2.2) | (lot.along < 2.2)
    piece.paint(works, Cover.CONCRETE, 0.0, hashes(seed + 7, plot))
    piece.paint(works & lane, Cover.ROAD, 0.0, hashes(seed + 8, word))
    verge = works & ~lane & (lot.across > 15.5)
    piece.paint(verge, Cover.HEALTHY_GRASS, 0.1, plot)
    length = 11.0 + 7.0 * uniform(hashes(seed + 9, plot))
    hall = works & (lot.along > 4.0) & (lot.along < 4.0 + length) & (lot.across > 4.0) & (lot.across < 12.5)
    metal = uniform(hashes(seed + 10, plot)) < np.where(district == District.INDUSTRY, 0.9, 0.4)
    top = 5.0 + 7.0 * uniform(hashes(seed + 11, plot))
    piece.paint(hall & metal, Cover.METAL_ROOF, top + 0.15 * np.abs(lot.across - 8.0), hashes(seed + 12, plot))
    piece.paint(hall & ~metal, Cover.BITUMEN_ROOF, top, hashes(seed + 12, plot))


def _paint_trees(piece: Terrain, seed: int, y: Reals, x: Reals, district: Integers) -> None:
    away, _, row, col = nearest_points(seed, y, x, 4.5)
    tree = hashes(seed + 1, row, col)
    chance = np.array([0.28, 0.12, 0.06, 0.03, 0.01, 0.08, 1.0, 1.0, 0.22])[district]
    wood = (district == District.BROADLEAF_WOOD) | (district == District.CONIFER_WOOD)
    clearing = wood & (value_noise(seed + 2, y, x, 9.0) > 0.74)
    radius = np.where(wood, 9.0, 1.4 + 1.2 * uniform(hashes(seed + 3, tree)))
    open_ground = (piece.stands_m < 1.5) & (piece.cover != Cover.SYNTHETIC_TURF) & (piece.cover != Cover.ROAD)
    grows = (uniform(hashes(seed + 4, tree)) < chance) & (away < radius) & open_ground & ~clearing
    conifer = uniform(hashes(seed + 5, tree)) < np.where(wood, 0.0, 0.25)
    conifer |= district == District.CONIFER_WOOD
    top = 7.0 + 7.0 * uniform(hashes(seed + 6, tree))
    crown = top * (1.0 - 0.035 * away * away)
    piece.paint(grows & ~conifer, Cover.BROADLEAF_TREES, crown, tree)
    piece.paint(grows & conifer, Cover.CONIFERS, 1.2 * top * (1.0 - 0.12 * away), tree)
    piece.paint(clearing, Cover.SHRUBS, 1.0 + 1.6 * value_noise(seed + 7, y, x, 2.5), tree)


def _paint_ways(piece: Terrain, seed: int, y: Reals, x: Reals, district: Integers, gap: Reals, word: Hashes) -> None:
    town = district <= District.INDUSTRY
    way = np.zeros(y.shape, dtype=np.uint64)
    piece.paint(gap < np.where(town, 4.0, 2.2), Cover.ROAD, 0.0, hashes(seed, way, word % np.uint64(2)))
    piece.paint((gap < 3.2) & (district == District.FALLOW), Cover.BARE_SOIL, 0.0, hashes(seed, word))

    column = np.zeros_like(y)
    middle = 52.0 + 46.0 * (value_noise(seed + 1, y, column, 55.0) - 0.5)
    width = 3.8 + 2.4 * value_noise(seed + 2, y, column, 18.0)
    bank = np.abs((x - middle + 150.0) % 300.0 - 150.0)
    piece.paint(bank < width + 2.0, Cover.SHRUBS, 0.6 + 1.6 * value_noise(seed + 3, y, x, 3.0), hashes(seed + 3, way))
    piece.paint(bank < width, Cover.WATER, 0.0, hashes(seed + 4, way))
    piece.stands_m = np.where(bank < width, -1.0, piece.stands_m)

    track = np.abs((x + 0.45 * y + 9.0 * value_noise(seed + 5, y, column, 80.0) - 118.0 + 130.0) % 260.0 - 130.0)
    piece.paint(track < 3.2, Cover.RAILWAY, 0.6, hashes(seed + 6, way))
    road = np.abs((y - 0.3 * x - 62.0 + 130.0) % 260.0 - 130.0)
    # the main road crosses everything on a low embankment
    piece.paint(road < 2.6, Cover.ROAD, 1.0, hashes(seed + 7, way))
