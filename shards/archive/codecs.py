"""Compression of a scene's values.

The codec is Zstd after Blosc's byte shuffle. `benchmarks/archive_io.py` compares it with others. It belongs to the Zarr
version 3 specification, so every reader of the format decodes it. Blocks of a megabyte, larger than Blosc's default,
make level 1 compress as well as level 4 does otherwise, several times as fast. PCodec makes float scenes smaller still,
but only zarr-python reads it. A crc32c around each chunk reveals damage on reading.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import numcodecs.blosc
import numpy as np
import zarr
from numcodecs.bitround import BitRound
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from shards.scene.source import Values

# with threads the order of Blosc's blocks, and so the bytes, would vary; and a worker is one process on one core
numcodecs.blosc.use_threads = False
zarr.config.set({"threading.max_workers": 1})

LEVEL = 1
BLOCK_BYTES = 1 << 20
# what Blosc compresses at once, and the most tiles of a shard (`tiling.ArchiveSettings`)
LARGEST_CHUNK_BYTES: Final = (1 << 31) - 1
MOST_CHUNKS: Final = 1 << 20


def chunk_codecs(dtype: np.dtype[np.generic]) -> list[Codec]:
    """The lossless codecs from values to a chunk's bytes, in order."""
    return [
        BytesCodec(),
        BloscCodec(cname="zstd", clevel=LEVEL, shuffle="shuffle", typesize=dtype.itemsize, blocksize=BLOCK_BYTES),
        Crc32cCodec(),
    ]


def sharded(dtype: np.dtype[np.generic], chunk_shape: tuple[int, ...]) -> ShardingCodec:
    """A codec that packs many chunks into one file. Stores hold few objects; a reader fetches single chunks."""
    return ShardingCodec(
        chunk_shape=chunk_shape, codecs=chunk_codecs(dtype), index_codecs=[BytesCodec(), Crc32cCodec()]
    )


def check_storage(name: str, metadata: Any, item_bytes: int) -> None:
    """Refuses an array whose chunks are not compressed as above, since other codecs decompress to any size.

    Blosc decompresses a chunk to `LARGEST_CHUNK_BYTES` at most.

    Args:
        name: of the array, for the message.
        metadata: of the Zarr array.
        item_bytes: of one value.

    Raises:
        ValueError: the codecs or the chunks are others.
    """
    (sharding,) = metadata.codecs if len(metadata.codecs) == 1 else (None,)
    if not isinstance(sharding, ShardingCodec):
        raise ValueError(f"{name}: codecs {_kinds(metadata.codecs)}, expected chunks packed by sharding_indexed")
    packed, index = _kinds(sharding.codecs), _kinds(sharding.index_codecs)
    if (packed, index) != ("BytesCodec, BloscCodec, Crc32cCodec", "BytesCodec, Crc32cCodec"):
        raise ValueError(f"{name}: codecs {packed}; index {index}, expected bytes, blosc, crc32c; index bytes, crc32c")
    inner, outer = sharding.chunk_shape, metadata.chunk_grid.chunk_shape
    if math.prod(inner) * item_bytes > LARGEST_CHUNK_BYTES or math.prod(outer) > MOST_CHUNKS * math.prod(inner):
        raise ValueError(f"{name}: chunks {inner} in shards {outer}, larger than any archive's")


def _kinds(codecs: Iterable[object]) -> str:
    return ", ".join(type(codec).__name__ for codec in codecs)


def round_bits(values: Values, kept_bits: int) -> Values:
    """Floats rounded to so many bits of mantissa, which compress better; integers unchanged."""
    if values.dtype.kind != "f" or kept_bits >= np.finfo(values.dtype.name).nmant:
        return values
    rounded: Values = BitRound(keepbits=kept_bits).encode(np.ascontiguousarray(values))
    return rounded.view(values.dtype).reshape(values.shape)
