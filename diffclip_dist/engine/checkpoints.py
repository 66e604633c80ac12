"""Checkpoints: complete or absent, uploaded by Ray, and the same for every world size and ZeRO stage.

A checkpoint is a folder with a file of every rank, in the form of `sharded_state`: safetensors, no pickle. Its record,
written last by rank 0, lists each file with its hash and holds what the run must agree on to go on from it. A folder
without a record is not a checkpoint.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pydantic
import ray.train
import torch.distributed as dist
from deepspeed import DeepSpeedEngine

from diffclip_dist.config import PretrainConfig
from diffclip_dist.engine.sharded_state import write_state
from shards.errors import FailedRun

CHECKPOINTS: Final = "checkpoints"  # in the run's folder: a folder an attempt, in it a folder a checkpoint
RECORD_FILE: Final = "checkpoint.json"


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RunState:
    """What a checkpoint belongs to.

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
    config: PretrainConfig
    world_size: int
    probe_loss: float
    versions: dict[str, str]


@dataclass(frozen=True)
class CheckpointRecord:
    """What is written last: the state and every file."""

    state: RunState
    files: tuple[StoredFile, ...]


@dataclass(frozen=True)
class StoredCheckpoint:
    """A complete checkpoint in the run's folder."""

    folder: Path
    record: CheckpointRecord

    @property
    def state(self) -> RunState:
        return self.record.state


def save_checkpoint(engine: DeepSpeedEngine, state: RunState, attempt_folder: Path, token: str) -> None:
    """Writes a checkpoint and hands it to Ray; a barrier that every rank must reach equally often.

    Args:
        engine: whose state is saved.
        state: what it belongs to.
        attempt_folder: where this Ray run keeps its checkpoints; every node sees it.
        token: names this start of the workers, so that a step saved anew never meets an unfinished older one.
    """
    name = f"step-{state.step:08d}-{token}"
    with tempfile.TemporaryDirectory(prefix="diffclip-checkpoint-") as folder:
        write_state(engine, Path(folder))
        own_files = _stored_files(Path(folder))
        ray.train.report(
            {"step": state.step},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_dir_name=name,
        )
    files_of_rank: list[tuple[StoredFile, ...] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(files_of_rank, own_files)  # also waits until every rank has uploaded
    if dist.get_rank() == 0:
        files = {file.path: file for files in files_of_rank if files is not None for file in files}
        record = CheckpointRecord(state, tuple(files[path] for path in sorted(files)))
        partial = attempt_folder / name / f".{RECORD_FILE}.partial"
        partial.write_text(json.dumps(asdict(record), indent=1) + "\n")
        partial.replace(attempt_folder / name / RECORD_FILE)


def newest_checkpoint(checkpoints: Path) -> StoredCheckpoint | None:
    """The complete checkpoint with the most steps, over all of a run's attempts; ``None`` where there is none."""
    found = [
        StoredCheckpoint(file.parent, pydantic.TypeAdapter(CheckpointRecord).validate_json(file.read_bytes()))
        for file in sorted(checkpoints.glob(f"*/*/{RECORD_FILE}"))
    ]
    return max(found, key=lambda checkpoint: checkpoint.state.step, default=None)


def prune_other_attempts(checkpoints: Path, attempt: str, keep: int) -> None:
    """Removes what earlier attempts left, but for complete checkpoints among the newest; Ray prunes its own attempt."""
    complete = sorted(checkpoints.glob(f"*/*/{RECORD_FILE}"), key=lambda file: file.parent.name)
    kept = {file.parent for file in complete[-keep:]}
    for folder in checkpoints.glob("*/step-*"):
        if folder.parent.name != attempt and folder not in kept:
            (folder / RECORD_FILE).unlink(missing_ok=True)  # first of all: what is half removed is no checkpoint
            shutil.rmtree(folder)


def check_files(checkpoint: StoredCheckpoint) -> None:
    """Compares every file with the record.

    Raises:
        FailedRun: a file is missing or not as it was written, named.
    """
    for stored in checkpoint.record.files:
        file = checkpoint.folder / stored.path
        if not file.is_file():
            raise FailedRun(f"{file}: missing from the checkpoint of step {checkpoint.state.step}")
        if (found := _stored_file(checkpoint.folder, file)) != stored:
            raise FailedRun(
                f"{file}: damaged: expected {stored.bytes} bytes with sha256 {stored.sha256}, "
                f"found {found.bytes} with {found.sha256}"
            )


def _stored_files(folder: Path) -> tuple[StoredFile, ...]:
    return tuple(_stored_file(folder, file) for file in sorted(folder.rglob("*")) if file.is_file())


def _stored_file(folder: Path, file: Path) -> StoredFile:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return StoredFile(file.relative_to(folder).as_posix(), file.stat().st_size, digest)
