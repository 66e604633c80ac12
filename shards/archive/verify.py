"""Compares an archive's files with its manifest, and names each that is not as it was written."""

from collections.abc import Iterator
from itertools import groupby
from typing import Literal

from shards.archive.manifest import MANIFEST_NAME, Manifest
from shards.archive.store import Store
from shards.archive.tiles import END_OF_TAR, decode_sample

Check = Literal["size", "hash"]


def find_faults(store: Store, manifest: Manifest, check: Check) -> tuple[str, ...]:
    """One line for each file that is missing, extra, or not as the manifest says; empty where all is well.

    Args:
        store: where the archive lies.
        manifest: what it should hold.
        check: `size` looks at sizes alone; `hash` reads every byte, and opens every tile as a reader would.
    """
    faults = list(_size_faults(store, manifest))
    if check == "hash":
        wrong = {fault.partition(":")[0] for fault in faults}
        for record in manifest.files:
            if record.path not in wrong and store.sha256(record.path) != record.sha256:
                faults.append(f"{record.path}: its content was changed (sha256 differs)")
                wrong.add(record.path)
        faults.extend(_tile_faults(store, manifest, wrong))
    return tuple(faults)


def _size_faults(store: Store, manifest: Manifest) -> Iterator[str]:
    sizes = store.sizes()
    for record in manifest.files:
        size = sizes.pop(record.path, None)
        if size is None:
            yield f"{record.path}: is missing"
        elif size < 0:
            yield f"{record.path}: is a link or device, expected a plain file"
        elif size != record.bytes:
            yield f"{record.path}: {size} bytes, expected {record.bytes}"
    yield from (f"{path}: is not in the manifest" for path in sorted(sizes) if path != MANIFEST_NAME)


def _tile_faults(store: Store, manifest: Manifest, wrong: set[str]) -> Iterator[str]:
    """Faults of tars that were made by another hand than ours: hashes fit, but members are not the tiles listed."""
    sizes = {record.path: record.bytes for record in manifest.files}
    for scene in manifest.scenes:
        in_order = sorted(scene.tiles, key=lambda tile: (tile.path, tile.offset))
        for path, tiles in groupby(in_order, key=lambda tile: tile.path):
            if path in wrong:
                continue
            end = 0
            for tile in tiles:
                if tile.offset != end:
                    yield f"{path}: tile {tile.key} begins at byte {tile.offset}, expected {end}"
                end = tile.offset + tile.bytes
                try:
                    decode_sample(store.read_range(path, tile.offset, tile.bytes), tile, scene)
                except ValueError as error:
                    yield f"{path}: tile {tile.key}: {error}"
            if store.read_range(path, end, len(END_OF_TAR) + 1) != END_OF_TAR or end + len(END_OF_TAR) != sizes[path]:
                yield f"{path}: something follows the last tile"
