"""Pretraining from an archive on an object store, checked before anything starts, and checkpoints on one."""

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from small_runs import STEPS, Refused, Run, pretrain_command

from diffclip_dist.train.checkpoint.stored_checkpoint import complete_folders, newest_checkpoint
from shards.archive.store import open_store


@pytest.fixture
def remote_archive(bucket: str, generated_archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The small generated archive on the S3 server."""
    monkeypatch.setenv("DIFFCLIP_CACHE", str(tmp_path / "cache"))
    local, location = open_store(generated_archive), f"{bucket}/archive"
    remote = open_store(location)
    for path in local.sizes():
        remote.write(path, local.read(path))
    return location


def test_a_run_streams_from_an_object_store(remote_archive: str, refused: Refused, tmp_path: Path) -> None:
    command = pretrain_command(tmp_path / "run", remote_archive, ["--steps", "2"], ["stream.verify=hash"])
    # without RAY_ADDRESS the run starts a Ray of its own, whose workers inherit where the server is
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    trained = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "encoder" / "model.safetensors").is_file()

    store = open_store(remote_archive)
    tar = next(path for path in store.sizes() if path.endswith(".tar"))
    content = bytearray(store.read(tar))
    content[len(content) // 2] ^= 1
    store.write(tar, bytes(content))
    assert tar in refused(tmp_path / "refused", settings=("stream.verify=hash",), archive=remote_archive)
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_checkpoints_go_to_an_object_store_and_a_run_goes_on_from_there(
    bucket: str, undisturbed: Run, generated_archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # a Ray of the run's own inherits where the server is
    folder, storage = tmp_path / "run", f"{bucket}/run"

    def run(*arguments: str) -> Run:
        settings = ("checkpoint_every=20", "max_failures=0", f"storage_path={storage}")
        arguments = ("--steps", str(STEPS), "--workers", "2", *arguments)
        command = pretrain_command(folder, generated_archive, arguments, settings)
        ended = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=240)
        return Run(ended.returncode, ended.stdout, ended.stderr, folder)

    whole = run()
    assert whole.status == 0, whole.err
    assert whole.losses == undisturbed.losses
    store = open_store(storage)
    kept = complete_folders(store.sizes())
    assert [PurePosixPath(name).name[:13] for name in kept] == ["step-00000040", "step-00000060"]
    assert not (folder / "checkpoints").exists()

    newest = newest_checkpoint(store)
    assert newest is not None
    victim = f"{newest.folder}/{newest.record.files[0].path}"
    store.write(victim, store.read(victim)[:-1] + b"0")
    damaged = run("--resume")
    assert damaged.status == 0, damaged.err
    (line,) = [line for line in damaged.out.splitlines() if victim in line]
    assert line.endswith("; going on from step 40 instead")
    assert damaged.losses == undisturbed.losses
