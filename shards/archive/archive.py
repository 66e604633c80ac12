"""Opens and checks an archive, and reads its tiles and scenes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from shards.archive.cache import Cache, machine_cache
from shards.archive.manifest import MANIFEST_NAME, Manifest, SceneRecord, TileRecord, read_manifest
from shards.archive.manifest_tables import with_stored_tables
from shards.archive.missing import valid_mask
from shards.archive.network import Unreachable, is_network_fault, unreachable
from shards.archive.store import LocalStore, Store, open_store
from shards.archive.tiles import Tile, decode_sample
from shards.archive.verify import Check, find_faults
from shards.archive.zarr_scenes import LABELS, SPLIT_TEST, SPLIT_TRAIN, open_zarr_scene, read_part
from shards.errors import BadInput, DamagedArchive
from shards.nearest import did_you_mean
from shards.scene.source import Labels, Mask, Values

WHOLE = slice(None)
# what zarr and its codecs raise on damaged metadata and chunks
CODEC_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, MemoryError)


@dataclass(frozen=True)
class Scene:
    """A scene, or a part of it, as read.

    Attributes:
        record: the manifest's record of the scene.
        values: per modality (row, col, band) in the stored dtype.
        valid: per modality (row, col).
        labels: class ids (row, col), 0 is unlabelled; None for a scene without labels.
        split: official training and test maps (row, col), class ids; None where there is no official split.
    """

    record: SceneRecord
    values: dict[str, Values]
    valid: dict[str, Mask]
    labels: Labels | None
    split: tuple[Labels, Labels] | None

    def read(self, modalities: tuple[str, ...] | None = None, rows: slice = WHOLE, cols: slice = WHOLE) -> "Scene":
        """Some of its modalities, rows and columns, as views of the same arrays; counted from its own first pixel."""
        chosen = tuple(self.values) if modalities is None else modalities
        part = rows, cols
        return Scene(
            self.record,
            {name: self.values[name][part] for name in chosen},
            {name: self.valid[name][part] for name in chosen},
            None if self.labels is None else self.labels[part],
            None if self.split is None else (self.split[0][part], self.split[1][part]),
        )


class ReadableScene(Protocol):
    """A scene that can be read part by part, wherever it lies."""

    @property
    def record(self) -> SceneRecord: ...

    def read(self, modalities: tuple[str, ...] | None = None, rows: slice = WHOLE, cols: slice = WHOLE) -> Scene:
        """Some of its modalities, rows and columns, with labels; None takes all modalities."""


@dataclass(frozen=True)
class StoredScene:
    """A scene of an archive, read when it is asked for.

    Attributes:
        archive: where it lies.
        record: the manifest's record of the scene.
    """

    archive: "Archive"
    record: SceneRecord

    def read(self, modalities: tuple[str, ...] | None = None, rows: slice = WHOLE, cols: slice = WHOLE) -> Scene:
        """Reads some of its modalities, rows and columns, see `Archive.read_scene`."""
        return self.archive.read_scene(self.record.name, modalities, rows, cols)


@dataclass(frozen=True)
class Archive:
    """Scenes and tiles at a place, as its manifest lists them. Make one with `Archive.open`.

    An archive that is sent to another process opens a store and a cache there. It takes along its manifest without the
    tables of files and tiles, which would fill every process of a large run. It reads no file until a tile or a scene
    is asked for, and lists none.

    Attributes:
        store: where it lies.
        manifest: what it holds.
        cache: keeps tiles of a remote archive on this machine; None for a local archive.
    """

    store: Store
    manifest: Manifest
    cache: Cache | None = None

    @property
    def location(self) -> str:
        """Where it lies, as the user wrote it."""
        return self.store.location

    @classmethod
    def open(cls, location: str | Path, verify: Check | None = None) -> "Archive":
        """Opens an archive and checks its files.

        Args:
            location: the archive's folder or fsspec URL.
            verify: `size` checks that each file is there with its size and no other file is; `hash` reads every
                byte as well. None takes `size` where the manifest lists the files itself. Of an archive so large that
                tables beside the manifest list them, it reads the manifest alone, in a time that grows with neither
                tiles nor files; a file that is not as it should be is then named when it is read.

        Raises:
            BadInput: there is no archive.
            DamagedArchive: a file is not as the manifest says; every such file is named.
        """
        archive = cls.open_unverified(location)
        if verify is None and archive.manifest.tables is not None:
            return archive
        if faults := find_faults(archive.store, archive.manifest, verify or "size"):
            raise DamagedArchive(archive.location, faults)
        return archive

    @classmethod
    def open_unverified(cls, location: str | Path) -> "Archive":
        """Reads an archive's manifest and looks at no other file.

        For a process that asks whether it sees the archive that another process has verified.

        Raises:
            BadInput: there is no archive.
            DamagedArchive: the manifest is damaged.
        """
        store = open_store(location)
        try:
            content = store.read(MANIFEST_NAME)
        except Unreachable:
            raise
        except OSError as error:
            if isinstance(error, NotADirectoryError):
                raise BadInput(
                    f"{location}: a file, expected an archive's folder; shard.py SCENE --out ARCHIVE makes one"
                ) from error
            raise BadInput(f"{location}: no archive here: {MANIFEST_NAME}: {error.strerror or error}") from error
        return _archive_at(store, with_stored_tables(read_manifest(content, store.location), store))

    def __reduce__(self) -> tuple[Callable[[str, Manifest], "Archive"], tuple[str, Manifest]]:
        scenes = tuple(replace(scene, tiles=()) for scene in self.manifest.scenes)
        return _received, (self.location, replace(self.manifest, scenes=scenes, files=(), tables=None))

    @property
    def fingerprint(self) -> str:
        """Hash over all content; training is tied to it."""
        return self.manifest.fingerprint

    def __getitem__(self, name: str) -> StoredScene:
        """The scene of that name, to be read part by part.

        Raises:
            BadInput: the archive holds no such scene.
        """
        return StoredScene(self, self.scene(name))

    def scene(self, name: str) -> SceneRecord:
        """The scene of that name.

        Raises:
            BadInput: the archive holds no such scene.
        """
        for record in self.manifest.scenes:
            if record.name == name:
                return record
        known = [record.name for record in self.manifest.scenes]
        raise BadInput(f"{self.location}: no scene {name!r}; it holds: {', '.join(known)}{did_you_mean(name, known)}")

    def read_tile(self, tile: TileRecord) -> Tile:
        """A tile with its halo.

        Raises:
            DamagedArchive: its bytes are not the sample that the manifest lists.
            Unreachable: the object store does not answer.
        """
        try:
            return decode_sample(self._sample(tile), tile, self.scene(tile.scene))
        except Unreachable:
            raise
        except (OSError, ValueError) as error:
            raise DamagedArchive(self.location, (f"{tile.path}: tile {tile.key}: {error}",)) from error

    def _sample(self, tile: TileRecord) -> bytes:
        if self.cache is None:
            return self.store.read_range(tile.path, tile.offset, tile.bytes)
        # with the fingerprint in the key, an archive that was rebuilt is not read from the old one's pieces
        key = f"{self.fingerprint} {tile.path} {tile.offset} {tile.bytes}"
        sample = self.cache.get(key)
        if sample is None:
            sample = self.store.read_range(tile.path, tile.offset, tile.bytes)
            self.cache.put(key, sample)
        return sample

    def read_scene(
        self,
        name: str,
        modalities: tuple[str, ...] | None = None,
        rows: slice = WHOLE,
        cols: slice = WHOLE,
    ) -> Scene:
        """A scene, or some of its modalities, or some of its rows and columns, with its labels.

        Args:
            name: the scene.
            modalities: names of the modalities to read; None reads all.
            rows: rows to read, counted from 0.
            cols: columns to read, counted from 0.

        Raises:
            BadInput: there is no such scene or modality.
            DamagedArchive: a chunk cannot be decoded.
            Unreachable: the object store does not answer.
        """
        record = self.scene(name)
        known = tuple(modality.name for modality in record.modalities)
        chosen = known if modalities is None else modalities
        for modality in chosen:
            if modality not in known:
                raise BadInput(
                    f"{self.location}: scene {name!r} has no modality {modality!r}; it has: {', '.join(known)}"
                    f"{did_you_mean(modality, known)}"
                )
        try:
            group = open_zarr_scene(self.store.zarr_store(record.zarr_path))

            def part(array: str, dtype: str, *bands: int) -> Values:
                return read_part(group, array, (record.height, record.width, *bands), dtype, (rows, cols))

            def class_ids(array: str) -> Labels:
                return part(array, "uint16").astype(np.uint16, copy=False)

            values = {m.name: part(m.name, m.dtype, m.bands) for m in map(record.modality, chosen)}
            labels = class_ids(LABELS) if record.classes else None
            split = (class_ids(SPLIT_TRAIN), class_ids(SPLIT_TEST)) if record.official_split else None
        except Exception as error:
            if is_network_fault(error):
                raise unreachable(f"{self.location}/{record.zarr_path}", error) from error
            if not isinstance(error, CODEC_ERRORS):
                raise
            raise DamagedArchive(self.location, (f"{record.zarr_path}: {type(error).__name__}: {error}",)) from error
        valid = {m: valid_mask(values[m], record.modality(m).missing_value) for m in chosen}
        return Scene(record, values, valid, labels, split)


def _archive_at(store: Store, manifest: Manifest) -> Archive:
    return Archive(store, manifest, None if isinstance(store, LocalStore) else machine_cache())


def _received(location: str, manifest: Manifest) -> Archive:
    """An archive that another process has sent here."""
    return _archive_at(open_store(location), manifest)
