"""Compares an archive's files with its manifest and names each changed file."""

from collections.abc import Iterator
from itertools import chain, groupby
from typing import Literal

from shards.archive.manifest import MANIFEST_NAME, Manifest, is_as_written
from shards.archive.manifest_tables import table_faults
from shards.archive.store import Store
from shards.archive.tile_tars import tar_faults

Check = Literal["size", "hash"]


def find_faults(store: Store, manifest: Manifest, check: Check) -> tuple[str, ...]:
    """One line for each file that is missing, extra, or not as the manifest says; empty if there is none.

    Args:
        store: where the archive lies.
        manifest: what it should hold.
        check: `size` compares sizes alone, and reads the tables of an archive that has them; `hash` reads every
            byte, the manifest's included, and every tile.
    """
    if faults := list(table_faults(store, manifest)):
        return tuple(faults)  # they say what the other files are, and cannot be believed
    faults = list(_size_faults(store, manifest))
    if check == "hash":
        if not is_as_written(store.read(MANIFEST_NAME)):
            faults.append(f"{MANIFEST_NAME}: its text was changed after it was written, though it says the same")
        wrong = {fault.partition(":")[0] for fault in faults}
        for record in manifest.files:
            if record.path not in wrong and store.sha256(record.path) != record.sha256:
                faults.append(f"{record.path}: its content was changed (sha256 differs)")
                wrong.add(record.path)
        faults.extend(_tile_faults(store, manifest, wrong))
    return tuple(faults)


def _size_faults(store: Store, manifest: Manifest) -> Iterator[str]:
    sizes = store.sizes()
    tables = () if manifest.tables is None else manifest.tables.columns.values()
    for record in chain(manifest.files, tables):
        size = sizes.pop(record.path, None)
        if size is None:
            yield f"{record.path}: is missing"
        elif size < 0:
            yield f"{record.path}: is a link or device, expected a plain file"
        elif size != record.bytes:
            yield f"{record.path}: {size} bytes, expected {record.bytes}"
    yield from (f"{path}: is not in the manifest" for path in sorted(sizes) if path != MANIFEST_NAME)


def _tile_faults(store: Store, manifest: Manifest, wrong: set[str]) -> Iterator[str]:
    """Faults of tars whose hashes fit but whose members are not the listed tiles, as of a forged archive."""
    for scene in manifest.scenes:
        in_order = sorted(scene.tiles, key=lambda tile: (tile.path, tile.offset))
        for path, tiles in groupby(in_order, key=lambda tile: tile.path):
            if path not in wrong:
                yield from tar_faults(store, path, tiles, scene)
