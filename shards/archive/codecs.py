"""How the values of a scene are compressed.

The choice is `benchmarks/archive_io.py`'s, among the codecs of the Zarr version 3 specification itself, which every
reader of the format can decode: Zstd behind Blosc's byte shuffle. With blocks of a megabyte in place of Blosc's own
small ones, level 1 makes scenes as small as level 4 otherwise would, several times as fast. PCodec makes float scenes
smaller still, but only zarr-python can read them. crc32c around each chunk tells damage at once.
"""

import numcodecs.blosc
import numpy as np
import zarr
from numcodecs.bitround import BitRound
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from shards.scene.source import Values

# threads would leave the order of Blosc's blocks to chance; a worker is one process on one core, and many workers on a
# node would have their threads wait for each other
numcodecs.blosc.use_threads = False
zarr.config.set({"threading.max_workers": 1})

LEVEL = 1
BLOCK_BYTES = 1 << 20


def chunk_codecs(dtype: np.dtype[np.generic]) -> list[Codec]:
    """From values to a chunk's bytes, lossless."""
    return [
        BytesCodec(),
        BloscCodec(cname="zstd", clevel=LEVEL, shuffle="shuffle", typesize=dtype.itemsize, blocksize=BLOCK_BYTES),
        Crc32cCodec(),
    ]


def sharded(dtype: np.dtype[np.generic], chunk_shape: tuple[int, ...]) -> ShardingCodec:
    """Many chunks in one file, so that an object store holds few objects and a reader still fetches single chunks."""
    return ShardingCodec(
        chunk_shape=chunk_shape, codecs=chunk_codecs(dtype), index_codecs=[BytesCodec(), Crc32cCodec()]
    )


def round_bits(values: Values, kept_bits: int) -> Values:
    """Floats with all but so many bits of their mantissa rounded away, to compress better; integers as they are."""
    if values.dtype.kind != "f" or kept_bits >= np.finfo(values.dtype.name).nmant:
        return values
    rounded: Values = BitRound(keepbits=kept_bits).encode(np.ascontiguousarray(values))
    return rounded.view(values.dtype).reshape(values.shape)
