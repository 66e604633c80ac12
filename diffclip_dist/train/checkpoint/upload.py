"""Writes checkpoints while training goes on: a snapshot on the node's own disk, uploaded by a thread of Ray's.

Only the snapshot holds the ranks up. Each rank uploads its own file; rank 0 waits until all of them are in the store
and writes the record, which makes the folder a checkpoint. Ray is told of it then, and ends no run before that.
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
    StoredFile,
    prune,
    stored_files,
    write_record,
)
from shards.archive.store import Store
from shards.errors import FailedRun

_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0)  # before a storage that fails is tried again
_POLL_S: Final = 0.2


class CheckpointUpload:
    """A rank's way into the store; one checkpoint at a time is under way.

    Args:
        store: of the run's checkpoints.
        attempt: the Ray run's name, which is its folder in the store.
        token: names this start of the workers, so that a step saved anew never meets an unfinished older one.
        keep: complete checkpoints that stay.
        timeout_s: seconds that rank 0 waits for the other ranks' files, and each rank for the checkpoint before.
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
        """Takes a snapshot and leaves its upload to a thread; every rank must call equally often.

        Raises:
            FailedRun: the checkpoint before is still not in the store.
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
        """Runs in Ray's thread; what it raises, Ray raises in the run."""
        folder = f"{self._attempt}/{name}"
        try:
            for file in own:
                self._patiently(partial(self._store.put, snapshot.path / file.path, f"{folder}/{file.path}"))
            if dist.get_rank() == 0:
                self._wait_for(record, folder)
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
