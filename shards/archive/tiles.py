"""Tiles as WebDataset samples: KEY.json and KEY.MODALITY.npy in a plain tar, written and read without any pickle."""

import functools
import io
import json
import tarfile
from dataclasses import dataclass

import numpy as np

from shards.archive.manifest import ModalityRecord, SceneRecord, TileRecord
from shards.archive.missing import valid_mask
from shards.scene.source import Mask, Values

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)


@dataclass(frozen=True)
class Tile:
    """A tile as read, halo included.

    Attributes:
        record: its place.
        values: per modality (height + 2 * halo, width + 2 * halo, band) in the stored dtype, read-only.
        valid: per modality (height + 2 * halo, width + 2 * halo); False beyond the scene's edge.
    """

    record: TileRecord
    values: dict[str, Values]
    valid: dict[str, Mask]


def tile_key(scene: str, row: int, col: int) -> str:
    """WebDataset key of the tile whose core begins at this pixel."""
    return f"{scene}_{row:07d}_{col:07d}"


def encode_sample(key: str, description: dict[str, object], values: dict[str, Values]) -> bytes:
    """A sample as it stands in the tar: one member a file, USTAR headers, no time and no owner."""
    members = [(f"{key}.json", json.dumps(description, sort_keys=True).encode())]
    for modality, array in values.items():
        members.append((f"{key}.{modality}.npy", _npy_header(array.shape, array.dtype) + array.tobytes()))
    parts: list[bytes] = []
    for name, content in members:
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(content), 0o644
        parts += [header.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % BLOCK)]
    return b"".join(parts)


def decode_sample(sample: bytes, record: TileRecord, scene: SceneRecord) -> Tile:
    """Reads a sample back; nothing in it is trusted, nothing is allocated by its own word.

    Args:
        sample: `record.bytes` bytes of the tar from `record.offset`.
        record: the tile, from the manifest.
        scene: its scene, from the manifest.

    Raises:
        ValueError: the bytes are not the members, shapes and dtypes that the manifest promises.
    """
    if len(sample) != record.bytes:
        raise ValueError(f"{len(sample)} bytes, expected {record.bytes}")
    view = memoryview(sample)
    rows, cols = record.height + 2 * scene.halo, record.width + 2 * scene.halo
    _, position = _member(view, 0, f"{record.key}.json")
    values: dict[str, Values] = {}
    valid: dict[str, Mask] = {}
    for modality in scene.modalities:
        content, position = _member(view, position, f"{record.key}.{modality.name}.npy")
        values[modality.name] = _decode_array(content, (rows, cols, modality.bands), modality)
        valid[modality.name] = valid_mask(values[modality.name], modality.missing_value)
    if position != len(sample):
        raise ValueError(f"{len(sample) - position} bytes more than the members expected")
    return Tile(record, values, valid)


def _member(view: memoryview, position: int, name: str) -> tuple[memoryview, int]:
    """Content of the member that begins at a position, which must bear this name, and where the next begins."""
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


def _decode_array(content: memoryview, shape: tuple[int, ...], modality: ModalityRecord) -> Values:
    dtype = np.dtype(modality.dtype)
    header = _npy_header(shape, dtype)
    if bytes(content[: len(header)]) != header:
        raise ValueError(f"{modality.name}: not a .npy file of {dtype} values in shape {shape}")
    data = content[len(header) :]
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
