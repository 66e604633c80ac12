"""Checkpoints in a store: complete or absent, and the same for every world size and ZeRO stage.

A checkpoint is a folder with a file of every rank, in the form of `sharded_state`: safetensors, no pickle. Its record
is written last. It lists each file with its hash, and the settings that a resumed run must share. A folder without a
record is not a checkpoint.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import pydantic

from diffclip_dist.train.pretrain_config import PretrainConfig, with_current_names
from shards.archive.store import Store, open_store
from shards.errors import FailedRun

CHECKPOINTS: Final = "checkpoints"  # in the run's folder; below it attempts, and in each its checkpoints
RECORD_FILE: Final = "checkpoint.json"


class DamagedCheckpoint(FailedRun):
    """A checkpoint's record cannot be read, or a file is not as the record says."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint."""

    path: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if PurePosixPath(self.path).name != self.path:
            raise ValueError(f"path: expected a file in the checkpoint's own folder, found {self.path}")


@dataclass(frozen=True)
class RunState:
    """The run and the step that a checkpoint belongs to.

    Attributes:
        step: steps done.
        archive_fingerprint: of the archive that the samples come from.
        config: of the run that wrote it.
        world_size: of the run that wrote it.
        probe_loss: loss of one fixed batch, which must be the same after loading.
        versions: of the libraries that wrote it.
        arithmetic: what the numbers were computed with, from `arithmetic`; empty in checkpoints of earlier versions.
    """

    step: int
    archive_fingerprint: str
    config: Annotated[PretrainConfig, pydantic.BeforeValidator(with_current_names)]
    world_size: int
    probe_loss: float
    versions: dict[str, str]
    arithmetic: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointRecord:
    """The record of a checkpoint: its state and its files."""

    state: RunState
    files: tuple[StoredFile, ...]


@dataclass(frozen=True)
class StoredCheckpoint:
    """A complete checkpoint.

    Attributes:
        store: that a run keeps its checkpoints in.
        folder: below it.
        record: of its state and files.
    """

    store: Store
    folder: str
    record: CheckpointRecord

    @property
    def state(self) -> RunState:
        return self.record.state

    def __str__(self) -> str:
        """Its location, for messages."""
        return f"{self.store.location}/{self.folder}"


def checkpoint_store(config: PretrainConfig) -> Store:
    """The store of a run's checkpoints."""
    return open_store(config.storage_path or Path(config.run_dir) / CHECKPOINTS)


def newest_checkpoint(store: Store) -> StoredCheckpoint | None:
    """The checkpoint with the most steps whose record can be read, over all of a run's attempts.

    Returns:
        The checkpoint, whose files have not been read; ``None`` where there is none at all.

    Raises:
        DamagedCheckpoint: there are checkpoints, and no record can be read; the message names the newest one.
    """
    return _newest_of(store, _read_record)[0]


def newest_whole_checkpoint(store: Store) -> tuple[StoredCheckpoint | None, tuple[str, ...]]:
    """The checkpoint with the most steps that is whole; reads all its files.

    Returns:
        The checkpoint, ``None`` where there is none at all; and each newer one's fault, a line that names the file.

    Raises:
        DamagedCheckpoint: there are checkpoints, and none is whole; the message names the newest one's fault.
    """

    def read_and_check(store: Store, folder: str) -> StoredCheckpoint:
        checkpoint = _read_record(store, folder)
        check_files(checkpoint)
        return checkpoint

    return _newest_of(store, read_and_check)


def _newest_of(
    store: Store, read: Callable[[Store, str], StoredCheckpoint]
) -> tuple[StoredCheckpoint | None, tuple[str, ...]]:
    faults: list[str] = []
    for folder in reversed(complete_folders(store.sizes())):
        try:
            return read(store, folder), tuple(faults)
        except DamagedCheckpoint as damage:
            faults.append(str(damage))
    if len(faults) > 1:
        raise DamagedCheckpoint(f"{faults[0]} (and {len(faults) - 1} earlier checkpoints are damaged too)")
    if faults:
        raise DamagedCheckpoint(f"{faults[0]} (and there is no earlier checkpoint)")
    return None, ()


def _read_record(store: Store, folder: str) -> StoredCheckpoint:
    file = f"{folder}/{RECORD_FILE}"
    try:
        record = pydantic.TypeAdapter(CheckpointRecord).validate_json(store.read(file))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedCheckpoint(
            f"{store.location}/{file}: damaged: not a checkpoint's record: {where}: {first['msg']}"
        ) from None
    return StoredCheckpoint(store, folder, record)


def complete_folders(sizes: dict[str, int]) -> list[str]:
    """Folders of complete checkpoints among a store's files, those with the fewest steps first."""
    records = [PurePosixPath(path) for path in sizes]
    complete = [str(path.parent) for path in records if path.name == RECORD_FILE and len(path.parts) == 3]
    return sorted(complete, key=lambda folder: PurePosixPath(folder).name)


def write_record(store: Store, folder: str, record: CheckpointRecord) -> None:
    """Writes the record, which turns a folder with all its files into a checkpoint."""
    store.write(f"{folder}/{RECORD_FILE}", (json.dumps(asdict(record), indent=1) + "\n").encode())


def prune(store: Store, newest: str, keep: int) -> None:
    """Removes old checkpoints, unfinished ones that killed workers have left, and those that the run went back behind.

    The run goes back behind a checkpoint that is damaged. So one of as many steps as the newest or more, left by
    earlier workers, never counts among those that stay.

    Args:
        store: of the run's checkpoints.
        newest: folder of the checkpoint that is just complete and has been compared with its record; later ones of the
            same workers stay, though unfinished.
        keep: number of newest complete checkpoints that stay, the newest among them.
    """
    sizes = store.sizes()
    attempt, name = PurePosixPath(newest).parts
    step, _, token = name.rpartition("-")
    earlier = [folder for folder in complete_folders(sizes) if PurePosixPath(folder).name.rpartition("-")[0] < step]
    kept = {newest, *earlier[max(0, len(earlier) - (keep - 1)) :]}
    for folder in {PurePosixPath(path).parent for path in sizes}:
        being_written = folder.parent.name == attempt and folder.name.endswith(f"-{token}") and folder.name > name
        if folder.name.startswith("step-") and str(folder) not in kept and not being_written:
            store.delete(f"{folder}/{RECORD_FILE}")  # first, so that half a folder is no checkpoint
            store.delete_folder(str(folder))


def check_files(checkpoint: StoredCheckpoint) -> None:
    """Compares every file with the record.

    Raises:
        DamagedCheckpoint: a file is missing or has changed; the message names it.
    """
    store, sizes = checkpoint.store, checkpoint.store.sizes()
    for stored in checkpoint.record.files:
        path = f"{checkpoint.folder}/{stored.path}"
        if path not in sizes:
            raise DamagedCheckpoint(
                f"{store.location}/{path}: missing from the checkpoint of step {checkpoint.state.step}"
            )
        found = StoredFile(stored.path, sizes[path], store.sha256(path))
        if found != stored:
            raise DamagedCheckpoint(
                f"{store.location}/{path}: damaged: expected {stored.bytes} bytes with sha256 {stored.sha256}, "
                f"found {found.bytes} with {found.sha256}"
            )


def local_files(checkpoint: StoredCheckpoint) -> AbstractContextManager[Path]:
    """A checkpoint's files in a local folder while the block lasts."""
    return checkpoint.store.local_folder(checkpoint.folder, [stored.path for stored in checkpoint.record.files])


def stored_files(folder: Path) -> tuple[StoredFile, ...]:
    """Records of the files in a local folder, by name."""
    return tuple(_stored_file(file) for file in sorted(folder.iterdir()))


def _stored_file(file: Path) -> StoredFile:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return StoredFile(file.name, file.stat().st_size, digest)
