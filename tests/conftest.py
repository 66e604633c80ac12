"""What every test may use."""

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """Commands that a test runs in this process set their own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def torch_extensions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of this test run's own for compiled extensions: torch waits for ever at a lock of a killed process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real scenes; a test that asks for it skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFCLIP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real scenes are not at {folder}; set DIFFCLIP_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def generated_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one small generated scene: 48x56 pixels, 12 bands and a height with holes, tiles of 16."""
    folder = tmp_path_factory.mktemp("generated") / "archive"
    spec = GeneratedSceneSpec(name="small", height=48, width=56, bands=12)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings(tile_size=16, halo=5))
    return folder


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket on an S3 server of its own, on loopback; every server of one process holds the same buckets."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="scenes")
    fsspec.filesystem("s3").clear_instance_cache()
    yield "s3://scenes"
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
    server.stop()
