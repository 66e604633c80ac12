"""The tables of tiles and files beside the manifest of an archive of many files, so that it opens in constant time.

Each field of all `TileRecord` and of all `FileRecord` is a NumPy file of its own: text as UTF-8 in fixed width, numbers
as int64. A local column is mapped into memory, so that only what is looked at is read; one in an object store is
fetched when it is first looked at. The manifest has their hashes, and their names carry them, so that adding scenes
writes new tables beside the old ones before the manifest changes.

Shapes: R rows.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, TypeVar, overload

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from shards.archive.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    SceneRecord,
    TablesRecord,
    TileRecord,
    inside_archive,
    new_manifest,
)
from shards.archive.network import Unreachable
from shards.archive.store import LocalStore, Store
from shards.archive.tile_table import NUMBERS, TEXTS, TileTable, checked_tile
from shards.errors import DamagedArchive

TABLES_FOLDER: Final = "tables"
MOST_LISTED: Final = 50_000  # tiles and files that a manifest lists itself; of so many it opens in about a second
_TILES: Final = tuple(f"tiles.{name}" for name in (*TEXTS, *NUMBERS))
_FILES: Final = ("files.path", "files.sha256", "files.bytes", "files.samples")
_TEXT_COLUMNS: Final = frozenset({*(f"tiles.{name}" for name in TEXTS), "files.path", "files.sha256"})
_BLOCK: Final = 1 << 16  # rows that are looked at together

Record = TypeVar("Record")
Column = npt.NDArray[Any]


def archive_manifest(scenes: Sequence[SceneRecord], files: Sequence[FileRecord]) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of an archive, and by path the content of the tables that belong beside it; none for few files."""
    if len(files) + sum(len(scene.tiles) for scene in scenes) <= MOST_LISTED:
        return new_manifest(tuple(scenes), tuple(files)), {}
    ordered = sorted(scenes, key=lambda scene: scene.name)
    tiles = TileTable.of([tile for scene in ordered for tile in scene.tiles])
    listed = sorted(files, key=lambda record: record.path)
    columns: dict[str, Column] = {f"tiles.{name}": values for name, values in tiles.columns().items()}
    columns["files.path"] = np.array([record.path.encode() for record in listed], np.bytes_)
    columns["files.sha256"] = np.array([record.sha256.encode() for record in listed], np.bytes_)
    columns["files.bytes"] = np.array([record.bytes for record in listed], np.int64)
    columns["files.samples"] = np.array([record.samples for record in listed], np.int64)
    records, contents = {}, {}
    for name, values in sorted(columns.items()):
        content = _as_npy(values)
        digest = hashlib.sha256(content).hexdigest()
        path = f"{TABLES_FOLDER}/{name}-{digest[:16]}.npy"
        records[name] = FileRecord(path, len(content), digest, 0)
        contents[path] = content
    tables = TablesRecord({scene.name: len(scene.tiles) for scene in ordered}, len(listed), records)
    return new_manifest(tuple(ordered), tuple(listed), tables), contents


def _as_npy(values: Column) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def with_stored_tables(manifest: Manifest, store: Store) -> Manifest:
    """The manifest as read from an archive, with tiles and files that are read from its tables when they are asked for.

    Raises:
        DamagedArchive: it names other tables than it should.
    """
    tables = manifest.tables
    if tables is None:
        return manifest
    if set(tables.columns) != {*_TILES, *_FILES}:
        raise DamagedArchive(store.location, (f"{MANIFEST_NAME}: tables: expected columns {_TILES + _FILES}",))
    of_tiles = StoredTable(store, {name: tables.columns[name] for name in _TILES}, sum(tables.tiles.values()))
    of_files = StoredTable(store, {name: tables.columns[name] for name in _FILES}, tables.files)
    scenes, start = [], 0
    for scene in manifest.scenes:
        stop = start + tables.tiles[scene.name]
        scenes.append(replace(scene, tiles=StoredTiles(of_tiles, start, stop)))
        start = stop
    return replace(manifest, scenes=tuple(scenes), files=StoredFiles(of_files))


@dataclass(frozen=True)
class StoredTable:
    """A table in an archive; one that is sent to another process is read again there.

    Attributes:
        store: where it lies.
        columns: column name to its file.
        rows: number of rows.
    """

    store: Store
    columns: dict[str, FileRecord]
    rows: int
    _read: dict[str, Column] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["StoredTable"], tuple[Store, dict[str, FileRecord], int]]:
        return StoredTable, (self.store, self.columns, self.rows)

    def column(self, name: str) -> Column:
        """A column (R,), bytes or int64.

        Raises:
            DamagedArchive: its file is not such a column.
            Unreachable: the object store does not answer.
        """
        if name not in self._read:
            record = self.columns[name]
            try:
                self._read[name] = _read_column(self.store, record, self.rows, name in _TEXT_COLUMNS)
            except Unreachable:
                raise
            except (OSError, ValueError) as error:
                raise DamagedArchive(self.store.location, (f"{record.path}: {error}",)) from error
        return self._read[name]


def _read_column(store: Store, record: FileRecord, rows: int, is_text: bool) -> Column:
    """A column, mapped into memory where it lies on this machine.

    Raises:
        ValueError: it is of another kind or length.
    """
    local = isinstance(store, LocalStore)
    with store.open(record.path) if local else io.BytesIO(store.read(record.path)) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start, end = file.tell(), file.seek(0, io.SEEK_END)
        if shape != (rows,) or not (dtype.kind == "S" if is_text else dtype == np.dtype("<i8")):
            raise ValueError(f"holds {shape} of {dtype}, expected {rows} {'texts' if is_text else 'numbers'}")
        if not end == record.bytes == start + rows * dtype.itemsize:
            raise ValueError(f"{end} bytes, expected {record.bytes}")
        if rows == 0:
            return np.empty(0, dtype)
        if local:
            return np.memmap(file, dtype, "r", start, shape)
        file.seek(start)
        return np.frombuffer(file.read(), dtype)


@dataclass(frozen=True, eq=False)
class StoredTiles(Sequence[TileRecord]):
    """The tiles of some scenes: rows of a table from `start` to before `stop`."""

    stored: StoredTable
    start: int
    stop: int

    def table(self) -> TileTable:
        """The tiles as a table; a local one takes no memory of its own."""
        columns = {name: self.stored.column(f"tiles.{name}")[self.start : self.stop] for name in (*TEXTS, *NUMBERS)}
        return TileTable.from_columns(columns, self if isinstance(self.stored.store, LocalStore) else None)

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, index: int) -> TileRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TileRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> TileRecord | tuple[TileRecord, ...]:
        if isinstance(index, slice):
            return tuple(self._record(row) for row in range(self.start, self.stop)[index])
        return self._record(range(self.start, self.stop)[index])

    def __iter__(self) -> Iterator[TileRecord]:
        return (self._record(row) for row in range(self.start, self.stop))

    def _record(self, row: int) -> TileRecord:
        try:
            return checked_tile({name: self.stored.column(f"tiles.{name}")[row] for name in (*TEXTS, *NUMBERS)})
        except (ValidationError, ValueError) as error:
            raise _damaged_row(self.stored, "tiles", row, error) from error


@dataclass(frozen=True, eq=False)
class StoredFiles(Sequence[FileRecord]):
    """Every file that a table lists."""

    stored: StoredTable

    def __len__(self) -> int:
        return self.stored.rows

    @overload
    def __getitem__(self, index: int) -> FileRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FileRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> FileRecord | tuple[FileRecord, ...]:
        if isinstance(index, slice):
            return tuple(self._record(row) for row in range(len(self))[index])
        return self._record(range(len(self))[index])

    def __iter__(self) -> Iterator[FileRecord]:
        return (self._record(row) for row in range(len(self)))

    def _record(self, row: int) -> FileRecord:
        path, sha256, size, samples = (self.stored.column(name)[row] for name in _FILES)
        try:
            return FileRecord(inside_archive(bytes(path).decode()), int(size), bytes(sha256).decode(), int(samples))
        except ValueError as error:
            raise _damaged_row(self.stored, "files", row, error) from error


def _damaged_row(stored: StoredTable, kind: str, row: int, error: Exception) -> DamagedArchive:
    (path,) = (record.path for name, record in stored.columns.items() if name == f"{kind}.path")
    return DamagedArchive(stored.store.location, (f"{path}: row {row}: {' '.join(str(error).split())}",))


def tile_table(scenes: Sequence[SceneRecord]) -> TileTable:
    """The tiles of some scenes, one scene after the other.

    Scenes that stand together in an archive's own table stay there.
    """
    parts = [scene.tiles for scene in scenes]
    stored = [part for part in parts if isinstance(part, StoredTiles)]
    if len(stored) < len(parts):
        return TileTable.of([tile for part in parts for tile in part])
    if all(one.stop == other.start for one, other in pairwise(stored)):
        return StoredTiles(stored[0].stored, stored[0].start, stored[-1].stop).table()
    tables = [part.table().columns() for part in stored]
    return TileTable.from_columns({name: np.concatenate([table[name] for table in tables]) for name in tables[0]})


def table_faults(store: Store, manifest: Manifest) -> Iterator[str]:
    """One line for each table that is not as the manifest says, or else for each scene whose tiles contradict it."""
    if manifest.tables is None:
        return
    intact = True
    for record in manifest.tables.columns.values():
        try:
            changed = store.sha256(record.path) != record.sha256
        except FileNotFoundError:
            intact = False
            yield f"{record.path}: is missing"
            continue
        if changed:
            intact = False
            yield f"{record.path}: its content was changed (sha256 differs)"
    if not intact or not isinstance(manifest.files, StoredFiles):
        return
    paths_R = manifest.files.stored.column("files.path")
    if any(bool((block[1:] <= block[:-1]).any()) for block in _blocks(paths_R, overlap=1)):
        yield f"{manifest.tables.columns['files.path'].path}: a file is listed twice, or out of order"
        return
    sizes_R = manifest.files.stored.column("files.bytes")
    for scene in manifest.scenes:
        assert isinstance(scene.tiles, StoredTiles)
        if fault := _scene_contradiction(scene, scene.tiles.table(), paths_R, sizes_R):
            yield f"{TABLES_FOLDER}: {scene.name}: {fault}"


def _blocks(values_R: Column, overlap: int = 0) -> Iterable[Column]:
    return (values_R[start : start + _BLOCK + overlap] for start in range(0, len(values_R), _BLOCK))


def _scene_contradiction(scene: SceneRecord, tiles: TileTable, paths_R: Column, sizes_R: Column) -> str | None:
    """What contradicts itself in a scene's rows; None if nothing does."""
    if len(np.unique(tiles.keys_T)) < len(tiles):
        return "a tile is listed twice"
    name = scene.name.encode()
    for start in range(0, len(tiles), _BLOCK):
        rows = slice(start, start + _BLOCK)
        if (tiles.scenes_T[rows] != name).any():
            return "a tile is listed under another scene"
        offset, size, row, col, height, width, valid = (tiles.numbers_T[number][rows] for number in NUMBERS)
        own = tiles.paths_T[rows]
        place = np.searchsorted(paths_R, own.astype(paths_R.dtype)).clip(max=len(paths_R) - 1)
        if (paths_R[place] != own).any() or (offset < 0).any() or (size > sizes_R[place] - offset).any():
            return "a tile lies beyond the end of its file"
        if min(row.min(), col.min()) < 0 or min(height.min(), width.min(), size.min(), valid.min()) < 1:
            return "a tile does not lie in the scene"
        outside = (height > scene.height - row) | (width > scene.width - col)
        if outside.any() or max(height.max(), width.max()) > scene.tile_size:
            return "a tile does not lie in the scene"
        if (valid > height * width).any():
            return "a tile has more valid pixels than pixels"
    return None
