"""The tiles of one sensor combination, shuffled anew in each epoch, and read a buffer of a few tiles at a time.

An epoch's line is the pixels of all tiles, tile after tile in the epoch's order. A stream takes a stretch of the line.

A table of all tiles for each epoch would take longer the more tiles there are. So the seed deals the tiles into blocks
once. An epoch shuffles the blocks, and the tiles within each block that is reached.

Shapes: T tiles of a block or a buffer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.randomness import fold, permutation, word_keys

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# each shuffle folds the seed with its own number, so that the shuffles are independent; order.py uses 1
_TILES, _PIXELS, _BUFFERS, _PIXEL_SHARE, _DEAL, _BLOCKS = 2, 3, 4, 5, 6, 7

_BLOCK_TILES: Final = 256


@dataclass(frozen=True)
class TileBuffer:
    """Tiles whose pixels a stream shuffles together; its pixels are a stretch of the epoch's line.

    Attributes:
        epoch: that it belongs to.
        start, stop: the stretch.
        key: of its shuffle.
        tiles_T: indices.
        starts_T, ends_T: each tile's pixels, counted from ``start``. The first tile may begin before it, and the last
            may end behind ``stop``, where a stream begins or ends within a tile.
        used_T: pixels that training uses.
        valid_T: valid pixels.
        keys_T: of the shuffle of each tile's pixels.
        share_keys_T: of the choice of the pixels that training uses.
    """

    epoch: int
    start: int
    stop: int
    key: int
    tiles_T: Indices
    starts_T: Indices
    ends_T: Indices
    used_T: Indices
    valid_T: Indices
    keys_T: Words
    share_keys_T: Words

    @property
    def pixels(self) -> int:
        """How many there are to shuffle."""
        return self.stop - self.start


@dataclass(frozen=True)
class _Block:
    """Tiles in an epoch's order.

    Attributes:
        tiles_T: indices.
        ends_T: where each tile's pixels end, counted from the block's first.
    """

    tiles_T: Indices
    ends_T: Indices

    @property
    def pixels(self) -> int:
        return int(self.ends_T[-1])


@dataclass(frozen=True)
class _Line:
    """An epoch's blocks, in its order.

    Attributes:
        blocks: indices.
        pixel_ends: where each block's pixels end on the line.
        tile_starts: how many tiles come before each block; one entry more than there are blocks.
    """

    blocks: Indices
    pixel_ends: Indices
    tile_starts: Indices


class TileShuffle:
    """Where the tiles of one sensor group lie in each epoch.

    Args:
        valid_pixels: of each tile.
        sensor: index of the group, which tells its shuffles from those of others.
        config: of the order.
    """

    def __init__(
        self, valid_pixels: Sequence[int] | npt.NDArray[np.integer[Any]], sensor: int, config: OrderConfig
    ) -> None:
        self._sensor = sensor
        self._seed = config.seed
        self._buffer_tiles = config.shuffle_buffer
        # int32, since each rank keeps these for all tiles of the archive
        self.valid = np.asarray(valid_pixels, dtype=np.int32)
        share = config.pixel_share
        self._used = self.valid if share == 1.0 else np.ceil(self.valid * share).astype(np.int32)
        count = len(self.valid)
        self._dealt = permutation(count, self._seed, _DEAL, sensor).astype(np.int32)
        blocks = -(-count // _BLOCK_TILES)
        self._block_starts = np.arange(blocks + 1) * count // max(blocks, 1)
        ends = np.concatenate([[0], np.cumsum(self._used[self._dealt], dtype=np.int64)])
        self._block_pixels = np.diff(ends[self._block_starts])
        self.pixels = int(ends[-1])
        self._line_of = lru_cache(maxsize=2)(self._shuffle_blocks)
        self._block_of = lru_cache(maxsize=2 * config.shuffle_streams + 2)(self._shuffle_block)

    def buffer_at(self, epoch: int, stream: int, stretch: range, pixel: int) -> TileBuffer:
        """The buffer of a stream that holds a pixel.

        Args:
            epoch: counted from 0.
            stream: which.
            stretch: the stream's part of the epoch's line.
            pixel: a place in it.
        """
        size, first = self._buffer_tiles, self._tiles_before(epoch, stretch.start)
        number = (self._tiles_before(epoch, pixel) - first) // size
        tiles_T, starts_T = self._tiles(epoch, first + number * size, size)
        used_T = self._used[tiles_T].astype(np.int64)
        ends_T = starts_T + used_T
        start = max(stretch.start, int(starts_T[0]))
        return TileBuffer(
            epoch,
            start,
            min(stretch.stop, int(ends_T[-1])),
            fold(self._seed, _BUFFERS, epoch, fold(self._sensor, stream, number)),
            tiles_T,
            starts_T - start,
            ends_T - start,
            used_T,
            self.valid[tiles_T].astype(np.int64),
            word_keys(tiles_T, self._seed, _PIXELS, epoch, self._sensor),
            word_keys(tiles_T, self._seed, _PIXEL_SHARE, self._sensor),
        )

    def _shuffle_blocks(self, epoch: int) -> _Line:
        blocks = permutation(len(self._block_pixels), self._seed, _BLOCKS, epoch, self._sensor)
        tile_ends = np.cumsum(np.diff(self._block_starts)[blocks])
        return _Line(blocks, np.cumsum(self._block_pixels[blocks]), np.concatenate([[0], tile_ends]))

    def _shuffle_block(self, epoch: int, block: int) -> _Block:
        members = self._dealt[self._block_starts[block] : self._block_starts[block + 1]].astype(np.int64)
        tiles_T = members[permutation(len(members), self._seed, _TILES, epoch, fold(self._sensor, block))]
        return _Block(tiles_T, np.cumsum(self._used[tiles_T], dtype=np.int64))

    def _tiles_before(self, epoch: int, pixel: int) -> int:
        """How many tiles come before the one that a pixel of the line is in."""
        line = self._line_of(epoch)
        number = int(np.searchsorted(line.pixel_ends, pixel, side="right"))
        block = self._block_of(epoch, int(line.blocks[number]))
        within = pixel - int(line.pixel_ends[number]) + block.pixels
        return int(line.tile_starts[number]) + int(np.searchsorted(block.ends_T, within, side="right"))

    def _tiles(self, epoch: int, first: int, count: int) -> tuple[Indices, Indices]:
        """At most so many tiles of the line from one on, and where the pixels of each begin."""
        line = self._line_of(epoch)
        tiles, starts = [], []
        for number in range(int(np.searchsorted(line.tile_starts, first, side="right")) - 1, len(line.blocks)):
            before = int(line.tile_starts[number])
            if before >= first + count:
                break
            block = self._block_of(epoch, int(line.blocks[number]))
            part = slice(max(first - before, 0), first + count - before)
            tiles_T = block.tiles_T[part]
            block_start = int(line.pixel_ends[number]) - block.pixels
            tiles.append(tiles_T)
            starts.append(block_start + block.ends_T[part] - self._used[tiles_T])
        return np.concatenate(tiles), np.concatenate(starts)
