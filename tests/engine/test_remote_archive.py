"""Pretraining from an archive on an object store, checked before anything starts."""

import os
import subprocess
from pathlib import Path

import pytest
from small_runs import pretrain_command

from shards.store import open_store


@pytest.fixture
def remote_archive(bucket: str, generated_archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The small generated archive on the S3 server."""
    monkeypatch.setenv("DIFFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # a Ray of the run's own inherits where the server is
    local, location = open_store(generated_archive), f"{bucket}/archive"
    remote = open_store(location)
    for path in local.sizes():
        remote.write(path, local.read(path))
    return location


def test_a_run_streams_from_an_object_store(remote_archive: str, tmp_path: Path) -> None:
    def run(folder: str, *settings: str) -> "subprocess.CompletedProcess[str]":
        command = pretrain_command(tmp_path / folder, Path("unused"), ["--steps", "2"], settings)
        command[command.index("--archive") + 1] = remote_archive
        return subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=240)

    trained = run("run", "stream.verify=hash")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "encoder" / "model.safetensors").is_file()

    store = open_store(remote_archive)
    tar = next(path for path in store.sizes() if path.endswith(".tar"))
    content = bytearray(store.read(tar))
    content[len(content) // 2] ^= 1
    store.write(tar, bytes(content))
    refused = run("refused", "stream.verify=hash")
    assert refused.returncode in (1, 2)
    assert tar in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "refused").exists()
