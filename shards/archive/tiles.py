"""Tiles, and the reading of one sample by its offset in a tar.

A sample is KEY.json and KEY.MODALITY.npy, in WebDataset's form. Training reads tiles in a shuffled global order, so it
fetches single samples by the offset and size that the manifest lists. webdataset reads a tar from its beginning only,
so this way of reading is our own. `shards.archive.tile_tars` writes tars, and reads them in sequence, with webdataset.
"""

import functools
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.archive.manifest import ModalityRecord, SceneRecord, TileRecord
from shards.archive.missing import valid_mask
from shards.scene.source import Mask, Values

BLOCK = tarfile.BLOCKSIZE

Content = bytes | memoryview


@dataclass(frozen=True)
class Tile:
    """A tile as read, halo included.

    Attributes:
        record: the manifest's record of the tile.
        values: per modality (height + 2 * halo, width + 2 * halo, band) in the stored dtype, read-only.
        valid: per modality (height + 2 * halo, width + 2 * halo); False beyond the scene's edge.
    """

    record: TileRecord
    values: dict[str, Values]
    valid: dict[str, Mask]


def tile_key(scene: str, row: int, col: int) -> str:
    """WebDataset key of the tile whose core begins at this pixel."""
    return f"{scene}_{row:07d}_{col:07d}"


def member_suffixes(scene: SceneRecord) -> tuple[str, ...]:
    """What follows the key in the names of a sample's members, in their order in the tar."""
    return ("json", *(f"{modality.name}.npy" for modality in scene.modalities))


def decode_sample(sample: bytes, record: TileRecord, scene: SceneRecord) -> Tile:
    """Reads one sample. It trusts nothing in the bytes and allocates no memory that they ask for.

    Args:
        sample: `record.bytes` bytes of the tar from `record.offset`.
        record: the tile, from the manifest.
        scene: its scene, from the manifest.

    Raises:
        ValueError: the bytes are not the members, shapes and dtypes that the manifest lists.
    """
    if len(sample) != record.bytes:
        raise ValueError(f"{len(sample)} bytes, expected {record.bytes}")
    view, position = memoryview(sample), 0
    members: dict[str, Content] = {}
    for suffix in member_suffixes(scene):
        members[suffix], position = _member(view, position, f"{record.key}.{suffix}")
    if position != len(sample):
        raise ValueError(f"{len(sample) - position} bytes more than the members expected")
    return decode_members(members, record, scene)


def decode_members(members: Mapping[str, Content], record: TileRecord, scene: SceneRecord) -> Tile:
    """A tile from the contents of its members, by suffix.

    Raises:
        ValueError: a shape or a dtype is not the one that the manifest lists.
    """
    rows, cols = record.height + 2 * scene.halo, record.width + 2 * scene.halo
    values = {
        modality.name: _decode_array(members[f"{modality.name}.npy"], (rows, cols, modality.bands), modality)
        for modality in scene.modalities
    }
    valid = {modality.name: valid_mask(values[modality.name], modality.missing_value) for modality in scene.modalities}
    return Tile(record, values, valid)


def _member(view: memoryview, position: int, name: str) -> tuple[memoryview, int]:
    """Content of the member of this name at a position, and the position of the next member."""
    try:
        header = tarfile.TarInfo.frombuf(view[position : position + BLOCK].tobytes(), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise ValueError(f"no tar header for {name}: {error}") from error
    if header.name != name or header.type != tarfile.REGTYPE:
        raise ValueError(f"tar member {header.name!r}, expected the file {name!r}")
    start = position + BLOCK
    end = start + header.size + -header.size % BLOCK
    if header.size < 0 or end > len(view):
        raise ValueError(f"tar member {name!r} claims {header.size} bytes, {max(0, len(view) - start)} are left")
    return view[start : start + header.size], end


def _decode_array(content: Content, shape: tuple[int, ...], modality: ModalityRecord) -> Values:
    dtype = np.dtype(modality.dtype)
    header = _npy_header(shape, dtype)
    if bytes(content[: len(header)]) != header:
        raise ValueError(f"{modality.name}: not a .npy file of {dtype} values in shape {shape}")
    data = memoryview(content)[len(header) :]
    if len(data) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{modality.name}: {len(data)} bytes of values, expected those of shape {shape}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


@functools.lru_cache(maxsize=256)
def _npy_header(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bytes:
    """Header of a .npy file (version 1.0) of a C-ordered array."""
    file = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()
