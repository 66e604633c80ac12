"""Pretraining from an archive on an object store, checked before anything starts."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
from conftest import pretrain_command
from moto.server import ThreadedMotoServer

from shards.store import open_store


@pytest.fixture
def remote_archive(generated_archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The small generated archive on an S3 server of its own, on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DIFFCLIP_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # a Ray of the run's own inherits where the server is
    boto3.client("s3").create_bucket(Bucket="scenes")
    fsspec.filesystem("s3").clear_instance_cache()
    local, location = open_store(generated_archive), "s3://scenes/archive"
    remote = open_store(location)
    for path in local.sizes():
        remote.write(path, local.read(path))
    yield location
    server.stop()


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
