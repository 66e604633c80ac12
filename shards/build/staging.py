"""Where an archive is built: finished files, a journal of finished shards, and how the whole is published.

A local archive is built in a hidden folder beside its final place and renamed at the end. An object store cannot
rename, so there each file is put in its final place and the manifest is written last: without a manifest there is no
archive.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shards.archive.manifest import MANIFEST_NAME, SCENES_FOLDER, TILES_FOLDER, Manifest, write_manifest
from shards.archive.manifest_tables import TABLES_FOLDER
from shards.archive.publish import publish_folder
from shards.archive.store import LocalStore, Store, open_store
from shards.errors import BadInput, FailedRun


@dataclass(frozen=True)
class Staging:
    """Where one build keeps its files; a plain value that workers share.

    Attributes:
        content: where finished files of the archive go.
        journal: an entry for each finished shard, see `build_journal`.
        scratch: local folder, on the content's disk, for unfinished files; None for the system's temporary folder.
    """

    content: Store
    journal: Store
    scratch: Path | None

    @contextmanager
    def shard_folder(self) -> Iterator[Path]:
        """An empty local folder for one shard's files."""
        if self.scratch is not None:
            self.scratch.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="shard-", dir=self.scratch)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_staging(out: str | Path, scenes: Sequence[str], adding: bool) -> Iterator[Staging]:
    """The staging of the archive at `out`; it is discarded if the build fails, kept for a restart if it is interrupted.

    Args:
        out: place of the archive.
        scenes: names of the scenes that are built.
        adding: whether the scenes are added to an archive at `out`.

    Raises:
        BadInput: something else lies at `out`, another build of it is running, or it cannot be written.
    """
    target = open_store(out)
    if isinstance(target, LocalStore):
        beside = target.folder.parent / f".{target.folder.name}.building"
        if target.folder.exists() and not adding:
            raise BadInput(f"{out}: exists already; name a new place, or add to it with --add")
        with _locked(beside, target.location):
            staging = Staging(LocalStore(beside / "content"), LocalStore(beside / "journal"), beside / "scratch")
            shutil.rmtree(beside / "scratch", ignore_errors=True)
            try:
                yield staging
            except Exception:
                shutil.rmtree(beside, ignore_errors=True)
                raise
        return
    staging = Staging(target, open_store(f"{target.location}.building"), None)
    if not adding and target.sizes() and not staging.journal.sizes():
        raise BadInput(f"{out}: is not empty; name a new place, or add to an archive with --add")
    try:
        yield staging
    except Exception:
        for path in target.sizes():
            if belongs_to(path, scenes) or (path.startswith(f"{TABLES_FOLDER}/") and not adding):
                target.delete(path)
        staging.journal.delete_all()
        raise


def publish(
    staging: Staging,
    out: str | Path,
    manifest: Manifest,
    tables: Mapping[str, bytes],
    scenes: Sequence[str],
    adding: bool,
) -> None:
    """Publishes the finished content as the archive at `out`, the manifest last.

    Args:
        staging: holds every file of the new scenes.
        out: place of the archive.
        manifest: of the whole archive, older scenes included.
        tables: what belongs beside it, by path; see `manifest_tables`.
        scenes: names of the scenes that were built.
        adding: whether the archive has older scenes.

    Raises:
        FailedRun: a file that a worker finished is absent.
    """
    target = open_store(out)
    listed = {record.path for record in manifest.files}
    there = staging.content.sizes()
    for record in manifest.files:
        if belongs_to(record.path, scenes) and there.get(record.path) != record.bytes:
            raise FailedRun(
                f"{out}: {record.path}: a worker wrote it where this machine sees nothing of it; "
                "workers on several machines need an archive on storage that all share"
            )
    for path in there:
        # left by a killed build of these scenes, from other input or with other settings
        if belongs_to(path, scenes) and path not in listed:
            staging.content.delete(path)
    for path, content in tables.items():
        staging.content.write(path, content)
    if isinstance(target, LocalStore):
        _delete_tables(staging.content, there, tables)  # left by a killed build
    text = write_manifest(manifest)
    if isinstance(target, LocalStore) and isinstance(staging.content, LocalStore):
        if adding:
            for path in staging.content.sizes():
                target.put(staging.content.folder / path, path)
            target.write(MANIFEST_NAME, text)
            if tables:
                _delete_tables(target, target.sizes(), tables)  # of the archive as it was
        else:
            staging.content.write(MANIFEST_NAME, text)
            publish_folder(staging.content.folder, target.folder)
        shutil.rmtree(staging.content.folder.parent, ignore_errors=True)
    else:
        target.write(MANIFEST_NAME, text)
        _delete_tables(target, there, tables)
        staging.journal.delete_all()


def _delete_tables(store: Store, there: Iterable[str], but: Mapping[str, bytes]) -> None:
    """Deletes the tables among the files that are there, except some."""
    for path in there:
        if path.startswith(f"{TABLES_FOLDER}/") and path not in but:
            store.delete(path)


def belongs_to(path: str, scenes: Sequence[str]) -> bool:
    """Whether a file of an archive is part of one of these scenes."""
    folder, _, rest = path.partition("/")
    if folder == SCENES_FOLDER:
        return any(rest.startswith(f"{scene}.zarr/") for scene in scenes)
    return folder == TILES_FOLDER and rest.rpartition("-")[0] in scenes


@contextmanager
def _locked(folder: Path, out: str) -> Iterator[None]:
    """Locks a folder for this process. The system unlocks it when the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(f"{out}: another build of this archive is running") from error
            yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            (folder / "scratch").rmdir()
