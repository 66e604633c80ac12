"""Archives on object stores: written to and read from a real S3 server on loopback, and memory://."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import fsspec
import numpy as np
import pytest
import requests
import urllib3
from failing_s3 import BUCKET, failing_s3
from small_scenes import ShardCommand, pixels, write_scene

from shards.archive import network
from shards.archive.archive import Archive
from shards.archive.cache import Cache, machine_cache, private_folder
from shards.archive.manifest import TileRecord
from shards.archive.store import LocalStore, RemoteStore, open_store
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput, DamagedArchive, FailedRun
from shards.open_scene import open_scene
from shards.simulate.generated_scene import generated_scene

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ArchiveSettings(tile_size=8, halo=2, samples_per_shard=4)


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes remote archives use a cache of 1 MB of their own; gives its folder."""
    monkeypatch.setenv("DIFFCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIFFCLIP_CACHE_MB", "1")
    return tmp_path / "cache"


def all_bytes(location: str) -> dict[str, bytes]:
    store = open_store(location)
    return {path: store.read(path) for path in store.sizes()}


@pytest.mark.parametrize("workers", [1, 2])
def test_s3_holds_the_same_bytes_as_a_folder(
    workers: int, bucket: str, plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    size = ("--tile-size", 8, "--halo", 2, "--samples-per-shard", 4)
    assert shard_command(plain_scene, "--out", tmp_path / "archive", *size).status == 0
    outcome = shard_command(plain_scene, "--out", f"{bucket}/archive", *size, "--workers", workers)
    assert outcome.status == 0, outcome.err
    assert all_bytes(f"{bucket}/archive") == all_bytes(str(tmp_path / "archive"))
    assert not open_store(f"{bucket}/archive.building").sizes()
    assert shard_command("--verify", f"{bucket}/archive").status == 0
    local, remote = Archive.open(tmp_path / "archive"), Archive.open(f"{bucket}/archive", verify="hash")
    assert remote.fingerprint == local.fingerprint
    np.testing.assert_array_equal(remote.read_scene("place").values["hsi"], local.read_scene("place").values["hsi"])
    for tile in remote.scene("place").tiles:
        np.testing.assert_array_equal(remote.read_tile(tile).values["hsi"], local.read_tile(tile).values["hsi"])


def test_a_failed_build_leaves_nothing_on_s3(bucket: str, plain_scene: Path, shard_command: ShardCommand) -> None:
    np.save(plain_scene.parent / "hsi.npy", np.full((20, 30, 5), 3, np.int16))  # constant: seen only at the end
    assert shard_command(plain_scene, "--out", f"{bucket}/archive").status == 2
    assert not open_store(f"{bucket}/archive").sizes()
    assert not open_store(f"{bucket}/archive.building").sizes()


def test_what_lies_on_s3_is_not_overwritten(bucket: str, plain_scene: Path, shard_command: ShardCommand) -> None:
    open_store(f"{bucket}/mine").write("thesis.txt", b"years of work")
    outcome = shard_command(plain_scene, "--out", f"{bucket}/mine")
    assert outcome.status == 2
    assert "not empty" in outcome.err
    assert all_bytes(f"{bucket}/mine") == {"thesis.txt": b"years of work"}


def test_damage_on_s3_is_named(bucket: str, plain_scene: Path, shard_command: ShardCommand) -> None:
    assert shard_command(plain_scene, "--out", f"{bucket}/archive").status == 0
    store = open_store(f"{bucket}/archive")
    content = bytearray(store.read("tiles/place-000000.tar"))
    content[3000] ^= 1
    store.write("tiles/place-000000.tar", bytes(content))
    outcome = shard_command("--verify", f"{bucket}/archive")
    assert outcome.status == 1
    assert "tiles/place-000000.tar" in outcome.err
    store.delete("tiles/place-000000.tar")
    with pytest.raises(DamagedArchive, match=r"place-000000\.tar: is missing"):
        Archive.open(f"{bucket}/archive")


def test_memory_holds_an_archive_and_takes_more_scenes(plain_scene: Path, tmp_path: Path) -> None:
    build_archive([open_scene(str(plain_scene))], "memory://archive", SMALL)
    np.save(tmp_path / "hsi.npy", pixels(9, 9, 2))
    other = open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.npy"}}, name="other")))
    before = all_bytes("memory://archive")
    try:
        build_archive([other], "memory://archive", SMALL, add=True)
        archive = Archive.open("memory://archive", verify="hash")
        assert [scene.name for scene in archive.manifest.scenes] == ["other", "place"]
        np.testing.assert_array_equal(archive.read_scene("other").values["hsi"], np.load(tmp_path / "hsi.npy"))
        after = all_bytes("memory://archive")
        assert {path: after[path] for path in before if path != "manifest.json"} == {
            path: content for path, content in before.items() if path != "manifest.json"
        }
    finally:
        open_store("memory://archive").delete_all()


def test_an_unknown_scheme_is_bad_input(plain_scene: Path, shard_command: ShardCommand) -> None:
    outcome = shard_command(plain_scene, "--out", "nowhere://archive")
    assert outcome.status == 2
    assert "nowhere" in outcome.err


def test_the_cache_stays_within_its_bound_and_serves_tiles_without_the_store(
    small_cache: Path, plain_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_archive([open_scene(str(plain_scene))], "memory://cached", SMALL)
    try:
        tiles = Archive.open("memory://cached").scene("place").tiles
        limit = tiles[0].bytes * 3
        archive = Archive(
            open_store("memory://cached"), Archive.open("memory://cached").manifest, Cache(small_cache, limit)
        )
        for tile in tiles:
            archive.read_tile(tile)
            held = sum(entry.stat().st_size for entry in os.scandir(small_cache))
            assert 0 < held <= limit
        last = tiles[-1]
        expected = archive.read_tile(last).values["hsi"]

        asked: list[TileRecord] = []
        monkeypatch.setattr(type(archive.store), "read_range", lambda *_: asked.append(last))
        np.testing.assert_array_equal(archive.read_tile(last).values["hsi"], expected)
        assert not asked
    finally:
        open_store("memory://cached").delete_all()


def test_a_damaged_piece_of_the_cache_is_read_again(small_cache: Path) -> None:
    cache = Cache(private_folder(small_cache), 1000)
    cache.put("key", b"piece")
    (path,) = small_cache.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert cache.get("key") is None
    assert not list(small_cache.iterdir())


def test_a_piece_is_not_taken_for_another(small_cache: Path) -> None:
    cache = Cache(private_folder(small_cache), 1000)
    cache.put("key", b"piece")
    (path,) = small_cache.iterdir()
    cache.put("other", b"other piece")
    (other,) = set(small_cache.iterdir()) - {path}
    shutil.copy(other, path)
    assert cache.get("key") is None
    assert cache.get("other") == b"other piece"


def test_the_default_cache_is_the_user_s_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIFFCLIP_CACHE")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = machine_cache().folder
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)  # as earlier versions made it
    assert stat.S_IMODE(machine_cache().folder.stat().st_mode) == 0o700


def _of_another_user(folder: Path) -> None:
    folder.mkdir()
    try:
        os.chown(folder, 12345, 12345)
    except PermissionError:
        pytest.skip("only root can give a folder to another user")


def _open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def _link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("trap", [_of_another_user, _open_to_all, _link, Path.touch])
def test_a_cache_that_others_could_have_filled_is_refused(
    trap: Callable[[Path], None], small_cache: Path, plain_scene: Path
) -> None:
    trap(small_cache)
    build_archive([open_scene(str(plain_scene))], "memory://trapped", SMALL)
    try:
        with pytest.raises(BadInput, match=r"DIFFCLIP_CACHE: .* nobody else can write to"):
            Archive.open("memory://trapped")
    finally:
        open_store("memory://trapped").delete_all()


WRITER = """
import sys
from pathlib import Path
from shards.archive.store import LocalStore
store = LocalStore(Path(sys.argv[1]))
print("writing", flush=True)
for turn in range(10**9):
    store.write(f"{sys.argv[2]}/step-{turn % 7}/file", b"12")
    if turn % 3 == 0:
        store.delete_folder(f"{sys.argv[2]}/step-{(turn + 4) % 7}")
"""


def test_a_folder_is_listed_while_others_rename_and_remove_in_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    stays = {f"stays/{name}": size for name, size in (("a", 1), ("b", 2), ("c", 3))}
    for path, size in stays.items():
        store.write(path, bytes(size))
    command = [sys.executable, "-c", WRITER, str(store.folder)]
    writers = [
        subprocess.Popen([*command, attempt], stdout=subprocess.PIPE, cwd=REPOSITORY) for attempt in ("run-1", "run-2")
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for _ in range(2000):
            found = store.sizes()
            assert stays.items() <= found.items()
            assert all(path.startswith(("stays/", "run-1/step-", "run-2/step-")) for path in found)
        assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_data_and_folder_are_on_disk_around_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def syncing(descriptor: int) -> None:
        happened.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        fsync(descriptor)

    def replacing(self: Path, target: Path) -> Path:
        happened.append(f"name {target}")
        return replace(self, target)

    def renaming(self: Path, target: Path) -> Path:
        happened.append(f"name {target}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "rename", renaming)
    scratch, store = tmp_path / "scratch", LocalStore(tmp_path / "store")
    scratch.write_bytes(b"a shard")
    store.put(scratch, "deep/shard")
    written, folder = happened.index(f"name {store.folder}/deep/shard"), f"sync {store.folder}/deep"
    assert f"sync {scratch}" in happened[:written]
    assert happened[written + 1 :] == [folder]
    assert {f"sync {store.folder}", f"sync {tmp_path}"} <= {*happened[:written]}  # the new folders' own names

    happened.clear()
    store.write("deep/record", b"{}")
    sync, name, after = happened
    assert sync.startswith(f"sync {store.folder}/deep/record.")
    assert (name, after) == (f"name {store.folder}/deep/record", folder)

    happened.clear()
    build_archive([generated_scene("synthetic")], tmp_path / "archive", ArchiveSettings())
    place = happened.index(f"name {tmp_path}/archive")
    named = {
        line.removeprefix("name ")
        for line in happened[:place]
        if "building/content/" in line and line.startswith("name ")
    }
    assert any(name.endswith("content/manifest.json") for name in named)
    assert {str(Path(name).parent) for name in named} <= {line.removeprefix("sync ") for line in happened[:place]}
    assert happened[place + 1] == f"sync {tmp_path}"


class Flaky:
    """A file system whose calls fail so many times before they succeed."""

    def __init__(self, error: Exception, times: int) -> None:
        self._inner, self._error, self._left = fsspec.filesystem("memory"), error, times

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)

        def called(*arguments: Any, **named: Any) -> Any:
            if name != "invalidate_cache" and self._left > 0:
                self._left -= 1
                raise self._error
            return inner(*arguments, **named)

        return called


FAULTS = [
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError("response ended early"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://store"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://store"),
    requests.exceptions.ChunkedEncodingError("connection broken"),
    urllib3.exceptions.ProtocolError("connection aborted"),
    ConnectionResetError("reset by peer"),
    TimeoutError("timed out"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_network_that_fails_twice_is_tried_again(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.time, "sleep", lambda _: None)
    file = tmp_path / "file"
    file.write_bytes(b"put here")

    def store() -> RemoteStore:
        return RemoteStore("memory://flaky", Flaky(fault, times=2), "/flaky")

    try:
        store().write("in/a", b"123")
        store().put(file, "in/b")
        assert store().sizes() == {"in/a": 3, "in/b": 8}
        assert store().read("in/a") == b"123"
        assert store().read_range("in/a", 1, 2) == b"23"
        assert store().sha256("in/b") == hashlib.sha256(b"put here").hexdigest()
        with store().local_folder("in", ["a"]) as folder:
            assert (folder / "a").read_bytes() == b"123"
        store().delete("in/a")
        assert store().sizes() == {"in/b": 8}
        store().delete_folder("in")
        assert store().sizes() == {}
    finally:
        open_store("memory://flaky").delete_all()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_network_that_stays_away_fails_the_run_and_is_not_called_damage(
    fault: Exception, plain_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.time, "sleep", lambda _: None)
    build_archive([open_scene(str(plain_scene))], "memory://away", SMALL)
    try:
        archive = Archive.open("memory://away")
        away = RemoteStore("memory://away", Flaky(fault, times=10**6), "/away")
        monkeypatch.setattr(RemoteStore, "zarr_store", lambda *_: away.read("anything"))
        unreachable = Archive(away, archive.manifest)
        for read in (
            lambda: unreachable.read_tile(archive.manifest.scenes[0].tiles[0]),
            lambda: unreachable.read_scene("place"),
            lambda: away.sizes(),
        ):
            with pytest.raises(FailedRun, match=r"memory://away.*cannot be reached"):
                read()
    finally:
        open_store("memory://away").delete_all()


def test_a_server_that_fails_one_request_in_eight_holds_the_same_bytes(plain_scene: Path, tmp_path: Path) -> None:
    """Refused, unanswered and cut: tests/soak/object_store.py goes on with it for as long as asked."""
    build_archive([open_scene(str(plain_scene))], tmp_path / "archive", SMALL)
    with failing_s3(one_in=8) as server:
        build_archive([open_scene(str(plain_scene))], f"s3://{BUCKET}/archive", SMALL)
        assert all_bytes(f"s3://{BUCKET}/archive") == all_bytes(str(tmp_path / "archive"))
        archive = Archive.open(f"s3://{BUCKET}/archive", verify="hash")
        np.testing.assert_array_equal(
            archive.read_scene("place").values["hsi"], np.load(plain_scene.parent / "hsi.npy")
        )
        open_store(f"s3://{BUCKET}/archive").delete_all()
    assert server.failures.keys() == {*server.KINDS}


def test_a_missing_file_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(network.time, "sleep", slept.append)
    with pytest.raises(FileNotFoundError):
        open_store("memory://nothing").read("there")
    assert not slept


def test_a_bad_cache_size_is_bad_input(monkeypatch: pytest.MonkeyPatch, plain_scene: Path) -> None:
    monkeypatch.setenv("DIFFCLIP_CACHE_MB", "a lot")
    build_archive([open_scene(str(plain_scene))], "memory://sized", SMALL)
    try:
        with pytest.raises(BadInput, match="DIFFCLIP_CACHE_MB"):
            Archive.open("memory://sized")
    finally:
        open_store("memory://sized").delete_all()
