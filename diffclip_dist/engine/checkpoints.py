"""Checkpoints: complete or absent, uploaded by Ray, and loadable at another world size or ZeRO stage.

A checkpoint is a folder of every rank's shard of the engine's state. Its record, written last by rank 0, lists each
file with its hash and holds what the run must agree on to go on from it. A folder without a record is not a checkpoint.

DeepSpeed's own files are pickles: they are trusted input, read only from the run's own folder. What is shared with
others is the exported encoder.
"""

import hashlib
import json
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pydantic
import ray.train
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.checkpoint import ds_to_universal

from shards.errors import BadInput, FailedRun

CHECKPOINTS: Final = "checkpoints"  # in the run's folder: a folder an attempt, in it a folder a checkpoint
TAG: Final = "engine"
RECORD_FILE: Final = "checkpoint.json"
_CONVERTIBLE_STAGES: Final = ((0,), (1, 2), (3,))


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
        zero_stage: of the engine that wrote it.
        world_size: of the run that wrote it.
        probe_loss: loss of one fixed batch, which must be the same after loading.
        versions: of the libraries that wrote it.
    """

    step: int
    archive_fingerprint: str
    zero_stage: int
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
        (Path(folder) / TAG).mkdir()  # DeepSpeed makes it on rank 0 alone, and each rank has a folder of its own
        engine.save_checkpoint(folder, tag=TAG)
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


def needs_conversion(state: RunState, zero_stage: int, world_size: int) -> bool:
    """Whether a checkpoint's shards do not fit the engine that is to load them.

    Raises:
        BadInput: they cannot be made to fit.
    """
    related = next(stages for stages in _CONVERTIBLE_STAGES if state.zero_stage in stages)
    if zero_stage not in related:
        raise BadInput(
            f"checkpoint of step {state.step}: expected --zero-stage {' or '.join(map(str, related))}, "
            f"found {zero_stage}: DeepSpeed's universal form does not lead from one to the other"
        )
    # ZeRO 0 keeps whole states, which load at any world size
    return state.zero_stage != 0 and (state.zero_stage, state.world_size) != (zero_stage, world_size)


@contextmanager
def loadable(checkpoint: StoredCheckpoint, convert: bool) -> Iterator[Path]:
    """The folder to load from: the checkpoint's own, or its universal form in a temporary folder beside it.

    Every rank must call; rank 0 checks and converts, which takes as long as writing the whole state once.
    """
    universal = checkpoint.folder.parent / f".universal-{checkpoint.folder.name}"
    if dist.get_rank() == 0:
        check_files(checkpoint)
        if convert:
            shutil.rmtree(universal, ignore_errors=True)
            ds_to_universal.main(
                Namespace(
                    input_folder=str(checkpoint.folder / TAG), output_folder=str(universal / TAG),
                    num_extract_workers=1, num_merge_workers=1, keep_temp_folder=False, strict=True,
                    inject_missing_state=True,
                )
            )  # fmt: skip
    dist.barrier()
    try:
        yield universal if convert else checkpoint.folder
    finally:
        dist.barrier()
        if convert and dist.get_rank() == 0:
            shutil.rmtree(universal, ignore_errors=True)


def load_checkpoint(engine: DeepSpeedEngine, folder: Path) -> None:
    """Loads a folder that `loadable` gave into a fresh engine.

    Raises:
        FailedRun: DeepSpeed found nothing to load; it would only warn.
    """
    loaded, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if loaded is None:
        raise FailedRun(f"{folder}: DeepSpeed found nothing to load")


def _stored_files(folder: Path) -> tuple[StoredFile, ...]:
    return tuple(_stored_file(folder, file) for file in sorted(folder.rglob("*")) if file.is_file())


def _stored_file(folder: Path, file: Path) -> StoredFile:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return StoredFile(file.relative_to(folder).as_posix(), file.stat().st_size, digest)
