"""launch/pretrain.py with faults in its workers: ``python faulty_run.py FAULT LEDGER ARGUMENTS...``.

FAULT is ``killed`` (the writer of checkpoints is killed at each of `MOMENTS` in turn), ``full`` (the storage fails
twice, and is full after the first checkpoint), ``lost`` (what rank 1 writes after the first checkpoint never comes
there) or ``told`` (LEDGER says what the storage does now: ``slow``, ``full``, or nothing). Otherwise LEDGER is a file
that remembers what has happened already.
"""

import sys
from pathlib import Path
from typing import Any

import diffclip_dist.train.cluster.driver
from diffclip_dist.cli.main import script_main
from diffclip_dist.train.pretrain_config import PretrainConfig

MOMENTS = (
    "1 snapshot half written", "0 snapshot written", "0 first file uploaded", "1 first file uploaded",
    "0 record not yet in its place", "0 record in its place", "0 old record removed", "0 old folder removed",
)  # fmt: skip
SLOW_S = 3.0  # that a slow storage takes longer for each file


def faulty_worker(config: PretrainConfig, attempt: str) -> None:
    """A worker whose storage fails; sent to it by value, so that it imports for itself."""
    import errno
    import os
    import signal
    import time

    import safetensors.torch
    import torch.distributed as dist

    from diffclip_dist.train.checkpoint import upload as checkpoint_upload
    from diffclip_dist.train.checkpoint.stored_checkpoint import RECORD_FILE
    from diffclip_dist.train.cluster.worker import pretrain_worker
    from shards.archive.store import LocalStore

    def happened() -> list[str]:
        return LEDGER.read_text().splitlines()

    def note(what: str) -> None:
        with LEDGER.open("a") as file:
            file.write(f"{what}\n")
            file.flush()
            os.fsync(file.fileno())

    def die_at(moment: str) -> None:
        seen = len(happened())
        if FAULT == "killed" and seen < len(MOMENTS) and MOMENTS[seen] == f"{dist.get_rank()} {moment}":
            note(MOMENTS[seen])
            os.kill(os.getpid(), signal.SIGKILL)

    write_state, save_file = checkpoint_upload.write_state, safetensors.torch.save_file
    put, delete, delete_folder, replace = LocalStore.put, LocalStore.delete, LocalStore.delete_folder, Path.replace

    def writing_state(*arguments: Any) -> None:
        write_state(*arguments)
        die_at("snapshot written")

    def saving_file(tensors: Any, file: Path) -> None:
        save_file(tensors, file)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        die_at("snapshot half written")
        file.write_bytes(whole)

    def putting(self: LocalStore, file: Path, path: str) -> None:
        if FAULT == "full" and len(happened()) < 2:
            note(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        told = LEDGER.read_text() if FAULT == "told" else ""
        if told == "slow":
            time.sleep(SLOW_S)
        if told == "full" or (FAULT == "full" and "step-00000005" not in path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if FAULT == "lost" and dist.get_rank() == 1 and "step-00000005" not in path:
            return
        put(self, file, path)
        die_at("first file uploaded")

    def replacing(self: Path, target: Path) -> Path:
        if Path(target).name == RECORD_FILE:
            die_at("record not yet in its place")
        moved = replace(self, target)
        if Path(target).name == RECORD_FILE:
            die_at("record in its place")
        return moved

    def deleting(self: LocalStore, path: str) -> None:
        delete(self, path)
        die_at("old record removed")

    def deleting_folder(self: LocalStore, path: str) -> None:
        delete_folder(self, path)
        die_at("old folder removed")

    checkpoint_upload.write_state, safetensors.torch.save_file = writing_state, saving_file
    LocalStore.put, LocalStore.delete, LocalStore.delete_folder = putting, deleting, deleting_folder
    Path.replace = replacing
    pretrain_worker(config, attempt)


if __name__ == "__main__":
    FAULT, LEDGER = sys.argv[1], Path(sys.argv[2])
    LEDGER.touch()
    diffclip_dist.train.cluster.driver.pretrain_worker = faulty_worker
    sys.argv = sys.argv[3:]
    sys.exit(script_main("pretrain"))
