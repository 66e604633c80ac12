"""Writes checkpoints while training goes on: a thread of Ray uploads a snapshot from the node's own disk.

Ranks wait for the snapshot alone. Each rank uploads its own file. Rank 0 waits until the store has all of them, reads
them back and compares them with the record. Then it writes the record, which makes the folder a checkpoint. Only after
that it removes old checkpoints. Ray ends no run before the upload has ended.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import ray.train
import torch.distributed as dist

from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import write_state
from diffclip_dist.train.checkpoint.snapshot_folder import SnapshotFolder, remove_abandoned
from diffclip_dist.train.checkpoint.stored_checkpoint import (
    CheckpointRecord,
    RunState,
    StoredCheckpoint,
    StoredFile,
    check_files,
    prune,
    stored_files,
    write_record,
)
from shards.archive.store import Store
from shards.errors import FailedRun

_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0)  # waits between tries when the storage fails
_POLL_S: Final = 0.2


class CheckpointUpload:
    """Uploads a rank's part of each checkpoint, one checkpoint at a time.

    Args:
        store: of the run's checkpoints.
        attempt: the Ray run's name, which is its folder in the store.
        token: a name for this start of the workers; a step that is saved again gets a new folder.
        keep: number of newest complete checkpoints that stay.
        timeout_s: seconds that rank 0 waits for the other ranks' files, and each rank for the previous checkpoint.
    """

    def __init__(self, store: Store, attempt: str, token: str, keep: int, timeout_s: float) -> None:
        self._store = store
        self._attempt = attempt
        self._token = token
        self._keep = keep
        self._timeout_s = timeout_s
        self._idle = threading.Event()
        self._idle.set()
        remove_abandoned()

    def save(self, engine: DeepSpeedEngine, state: RunState) -> None:
        """Takes a snapshot, which a thread uploads; every rank must call equally often.

        Raises:
            FailedRun: the store still lacks the previous checkpoint.
        """
        if not self._idle.wait(self._timeout_s):  # at most one snapshot lies on the node's disk
            raise FailedRun(f"{self._store.location}: a checkpoint was not written within {self._timeout_s:g} s")
        folder = SnapshotFolder()
        try:
            write_state(engine, folder.path)
            own = stored_files(folder.path)
        except BaseException:
            folder.remove()
            raise
        files_of_rank: list[tuple[StoredFile, ...] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(files_of_rank, own)
        files = {file.path: file for files in files_of_rank if files is not None for file in files}
        record = CheckpointRecord(state, tuple(files[path] for path in sorted(files)))
        self._idle.clear()
        ray.train.report(
            {"step": state.step},
            checkpoint=ray.train.Checkpoint.from_directory(folder.path),
            checkpoint_dir_name=f"step-{state.step:08d}-{self._token}",
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=partial(self._upload, record, own, folder),
        )

    def _upload(
        self,
        record: CheckpointRecord,
        own: tuple[StoredFile, ...],
        snapshot: SnapshotFolder,
        _: ray.train.Checkpoint,
        name: str,
    ) -> ray.train.Checkpoint:
        """Runs in Ray's thread; Ray raises in the run what this raises."""
        folder = f"{self._attempt}/{name}"
        try:
            for file in own:
                self._patiently(partial(self._store.put, snapshot.path / file.path, f"{folder}/{file.path}"))
            if dist.get_rank() == 0:
                self._wait_for(record, folder)
                self._patiently(partial(check_files, StoredCheckpoint(self._store, folder, record)))
                self._patiently(partial(write_record, self._store, folder, record))
                self._patiently(partial(prune, self._store, folder, self._keep))
        finally:
            snapshot.remove()
            self._idle.set()
        place = ray.train.get_context().get_storage()
        return ray.train.Checkpoint(f"{place.experiment_fs_path}/{name}", place.storage_filesystem)

    def _wait_for(self, record: CheckpointRecord, folder: str) -> None:
        expected = {f"{folder}/{file.path}": file.bytes for file in record.files}
        deadline = time.monotonic() + self._timeout_s
        while not expected.items() <= (sizes := self._store.sizes()).items():
            if time.monotonic() > deadline:
                missing = min(path for path in expected if sizes.get(path) != expected[path])
                raise FailedRun(f"{self._store.location}/{missing}: not written within {self._timeout_s:g} s")
            time.sleep(_POLL_S)

    def _patiently(self, write: Callable[[], None]) -> None:
        """Tries again when the storage fails.

        Raises:
            FailedRun: it still does.
        """
        for wait_s in (*_WAITS_S, None):
            try:
                return write()
            except OSError as error:
                if wait_s is None:
                    reason = error.strerror or " ".join(str(error).split())
                    raise FailedRun(
                        f"{self._store.location}: no checkpoint could be written in {len(_WAITS_S) + 1} tries: {reason}"
                    ) from error
                time.sleep(wait_s)
        return None
