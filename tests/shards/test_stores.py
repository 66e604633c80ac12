"""Archives on object stores: written to and read from a real S3 server on loopback, and memory://."""

import os
from pathlib import Path

import numpy as np
import pytest
from small_scenes import ShardCommand, pixels, write_scene

from shards.archive.archive import Archive
from shards.archive.cache import Cache
from shards.archive.manifest import TileRecord
from shards.archive.store import open_store
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput, DamagedArchive
from shards.open_scene import open_scene

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
    cache = Cache(small_cache, 1000)
    cache.put("key", b"piece")
    (path,) = small_cache.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert cache.get("key") is None
    assert not list(small_cache.iterdir())


def test_a_bad_cache_size_is_bad_input(monkeypatch: pytest.MonkeyPatch, plain_scene: Path) -> None:
    monkeypatch.setenv("DIFFCLIP_CACHE_MB", "a lot")
    build_archive([open_scene(str(plain_scene))], "memory://sized", SMALL)
    try:
        with pytest.raises(BadInput, match="DIFFCLIP_CACHE_MB"):
            Archive.open("memory://sized")
    finally:
        open_store("memory://sized").delete_all()
