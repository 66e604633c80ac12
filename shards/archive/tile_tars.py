"""Tars of tiles, written and read in sequence with the webdataset package.

Importing webdataset imports torch wherever torch is installed: seconds, and some 500 MB for each process that builds.
The writer does not use torch, so only the writer's module is imported. The reader cannot be imported alone, so
webdataset is imported when a tar is read in sequence. `shards` itself needs no torch.
"""

import functools
import importlib
import importlib.util
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final

from shards.archive.manifest import SceneRecord, TileRecord
from shards.archive.store import Store
from shards.archive.tiles import BLOCK, decode_members, member_suffixes
from shards.scene.source import Values

END_OF_TAR: Final = bytes(2 * BLOCK)
# a name of our own for the package's files, so that `import webdataset` still gives the whole package
_WRITER_PACKAGE: Final = "_webdataset_writer"


@dataclass(frozen=True)
class Sample:
    """A tile before it is written.

    Attributes:
        key: WebDataset key.
        description: content of KEY.json.
        values: per modality (row, col, band), in the order of the members.
    """

    key: str
    description: dict[str, object]
    values: dict[str, Values]


@dataclass(frozen=True)
class Extent:
    """Where a sample lies in its tar, in bytes; headers and padding included."""

    offset: int
    bytes: int


def write_tile_tar(path: Path, samples: Iterable[Sample]) -> list[Extent]:
    """Writes a tar of tiles, the same bytes for the same tiles.

    Owner, mode and time are fixed. The file ends after the two empty blocks that the tar format asks for.

    Args:
        path: the tar; its folder exists.
        samples: taken one by one, so that one tile at a time is in memory.

    Returns:
        Where each sample lies.
    """
    extents = []
    with path.open("wb") as file:
        with _webdataset_writer().TarWriter(file, user="", group="", mode=0o644, mtime=0) as tar:
            for sample in samples:
                start = tar.tarstream.offset
                # TarWriter sorts the members of one call by name; a call for each member keeps the scene's order
                tar.write({"__key__": sample.key, "json": dict(sorted(sample.description.items()))})
                for modality, values in sample.values.items():
                    tar.write({"__key__": sample.key, f"{modality}.npy": values})
                extents.append(Extent(start, tar.tarstream.offset - start))
            end = tar.tarstream.offset
        # tarfile fills the last 10 KiB record with zeros, which no reader needs
        file.truncate(end + len(END_OF_TAR))
    return extents


@functools.cache
def _webdataset_writer() -> ModuleType:
    """The module `webdataset.writer`, without running the package's own `__init__`."""
    spec = importlib.util.find_spec("webdataset")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("webdataset is not installed", name="webdataset")
    package = ModuleType(_WRITER_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_WRITER_PACKAGE] = package
    return importlib.import_module(f"{_WRITER_PACKAGE}.writer")


def read_samples(file: BinaryIO, path: str) -> Iterator[dict[str, Any]]:
    """Samples of a tar in sequence: suffix to content, undecoded, and the key under `__key__`.

    It uses none of webdataset's decoders, because some of them unpickle.

    Args:
        file: the tar, open at its beginning.
        path: its name, for messages.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    members = tar_file_expander([{"url": path, "stream": file}])
    for sample in group_by_keys(members, lcase=False):
        yield {name: content for name, content in sample.items() if name != "__url__"}


def tar_faults(store: Store, path: str, tiles: Iterable[TileRecord], scene: SceneRecord) -> Iterator[str]:
    """Reads a tar in sequence and gives one line for each tile that is not as the manifest lists it.

    Args:
        store: where the archive lies.
        path: the tar; its size and hash are the manifest's.
        tiles: the tiles that it should hold, by offset.
        scene: their scene.
    """
    listed = list(tiles)
    first = f"{listed[0].key}.json".encode()
    # tarfile would decompress a tar to any size; a compressed one does not begin with a member's name
    if store.read_range(path, 0, len(first)) != first:
        yield f"{path}: does not begin with the member {first.decode()}"
        return
    end = 0
    try:
        with store.open(path) as file:
            for tile, sample in zip_longest(listed, read_samples(file, path)):
                if tile is None:
                    yield f"{path}: holds {sample['__key__']}, which the manifest does not list"
                    return
                if tile.offset != end:
                    yield f"{path}: tile {tile.key} begins at byte {end}, the manifest says {tile.offset}"
                end = tile.offset + tile.bytes
                if fault := _sample_fault(sample, tile, scene):
                    yield f"{path}: tile {tile.key}: {fault}"
    except (tarfile.TarError, ValueError, EOFError) as error:
        yield f"{path}: cannot be read in sequence: {error.args[0] if error.args else type(error).__name__}"
        return
    if store.read_range(path, end, len(END_OF_TAR) + 1) != END_OF_TAR:
        yield f"{path}: something follows the last tile"


def _sample_fault(sample: dict[str, Any] | None, tile: TileRecord, scene: SceneRecord) -> str | None:
    """What is wrong with a sample; None where nothing is."""
    if sample is None:
        return "is missing"
    key, *suffixes = sample
    expected = member_suffixes(scene)
    if sample[key] != tile.key or tuple(suffixes) != expected:
        names = ", ".join(f"{sample[key]}.{suffix}" for suffix in suffixes)
        return f"tar members {names}; expected the files {', '.join(f'{tile.key}.{suffix}' for suffix in expected)}"
    size = sum(BLOCK + len(sample[suffix]) + -len(sample[suffix]) % BLOCK for suffix in expected)
    if size != tile.bytes:
        return f"{size} bytes, expected {tile.bytes}"
    try:
        decode_members(sample, tile, scene)
    except ValueError as error:
        return str(error)
    return None
