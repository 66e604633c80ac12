"""Checkpoints in a store: complete or absent, and the same for every world size and ZeRO stage.

A checkpoint is a folder with a file of every rank, in the form of `sharded_state`: safetensors, no pickle. Its record
is written last. It lists each file with its hash, and the settings that a resumed run must share. A folder without a
record is not a checkpoint.
"""

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import pydantic

from diffclip_dist.train.pretrain_config import PretrainConfig, with_current_names
from shards.archive.store import Store, open_store
from shards.errors import FailedRun

CHECKPOINTS: Final = "checkpoints"  # in the run's folder; below it attempts, and in each its checkpoints
RECORD_FILE: Final = "checkpoint.json"


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
    """

    step: int
    archive_fingerprint: str
    config: Annotated[PretrainConfig, pydantic.BeforeValidator(with_current_names)]
    world_size: int
    probe_loss: float
    versions: dict[str, str]


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
    """The complete checkpoint with the most steps, over all of a run's attempts; ``None`` where there is none.

    Raises:
        FailedRun: its record cannot be read; the message names it.
    """
    folders = complete_folders(store.sizes())
    if not folders:
        return None
    file = f"{folders[-1]}/{RECORD_FILE}"
    try:
        record = pydantic.TypeAdapter(CheckpointRecord).validate_json(store.read(file))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FailedRun(f"{store.location}/{file}: not a checkpoint's record: {where}: {first['msg']}") from None
    return StoredCheckpoint(store, folders[-1], record)


def complete_folders(sizes: dict[str, int]) -> list[str]:
    """Folders of complete checkpoints among a store's files, those with the fewest steps first."""
    records = [PurePosixPath(path) for path in sizes]
    complete = [str(path.parent) for path in records if path.name == RECORD_FILE and len(path.parts) == 3]
    return sorted(complete, key=lambda folder: PurePosixPath(folder).name)


def write_record(store: Store, folder: str, record: CheckpointRecord) -> None:
    """Writes the record, which turns a folder with all its files into a checkpoint."""
    store.write(f"{folder}/{RECORD_FILE}", (json.dumps(asdict(record), indent=1) + "\n").encode())


def prune(store: Store, newest: str, keep: int) -> None:
    """Removes old checkpoints, and unfinished ones that killed workers have left.

    Args:
        store: of the run's checkpoints.
        newest: folder of the checkpoint that is just complete; later ones of the same workers stay, though unfinished.
        keep: number of newest complete checkpoints that stay.
    """
    sizes = store.sizes()
    kept = set(complete_folders(sizes)[-keep:])
    attempt, name = PurePosixPath(newest).parts
    token = name.rpartition("-")[2]
    for folder in {PurePosixPath(path).parent for path in sizes}:
        being_written = folder.parent.name == attempt and folder.name.endswith(f"-{token}") and folder.name > name
        if folder.name.startswith("step-") and str(folder) not in kept and not being_written:
            store.delete(f"{folder}/{RECORD_FILE}")  # first, so that half a folder is no checkpoint
            store.delete_folder(str(folder))


def check_files(checkpoint: StoredCheckpoint) -> None:
    """Compares every file with the record.

    Raises:
        FailedRun: a file is missing or has changed; the message names it.
    """
    store, sizes = checkpoint.store, checkpoint.store.sizes()
    for stored in checkpoint.record.files:
        path = f"{checkpoint.folder}/{stored.path}"
        if path not in sizes:
            raise FailedRun(f"{store.location}/{path}: missing from the checkpoint of step {checkpoint.state.step}")
        found = StoredFile(stored.path, sizes[path], store.sha256(path))
        if found != stored:
            raise FailedRun(
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
