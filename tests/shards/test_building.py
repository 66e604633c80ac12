"""Building: the same bytes for any number of workers, restarts after a kill, additions, full disks, bounded memory."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_scenes import ShardCommand, pixels, write_scene

from shards.archive.archive import Archive
from shards.archive.store import LocalStore
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import Progress, build_archive
from shards.build.parallel import ray_session, run_all
from shards.build.staging import open_staging
from shards.errors import BadInput, DamagedArchive, FailedRun
from shards.open_scene import open_scene
from shards.scene.array_scene import ArrayScene

SMALL = ArchiveSettings(tile_size=8, halo=2, samples_per_shard=4)
COMMAND = Path(__file__).resolve().parents[2] / "launch" / "shard.py"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    """Ray, started once for the tests that need it."""
    with ray_session(2):
        yield


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("number", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(number: int, plain_scene: Path, tmp_path: Path) -> None:
    source = open_scene(str(plain_scene))
    build_archive([source], tmp_path / "one", SMALL)
    build_archive([source], tmp_path / "many", SMALL, workers=number)
    assert content(tmp_path / "one") == content(tmp_path / "many")


@pytest.mark.usefixtures("workers")
def test_a_fault_in_a_worker_is_as_clear_as_one_here(plain_scene: Path, tmp_path: Path) -> None:
    source = open_scene(str(plain_scene))
    (plain_scene.parent / "lidar.npy").write_bytes(b"not an array any more")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=r"lidar\.npy: cannot be read"):
        build_archive([source], tmp_path / "archive", SMALL, workers=2)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("workers")
def test_many_small_scenes_are_built_by_many_workers_as_by_one(tmp_path: Path) -> None:
    """Some take their second or third missing value, so that they are built again among others that are not."""
    sources = []
    for number in range(6):
        values = pixels(9, 9, 1, "uint8", seed=number)
        if number % 3:
            values[0, 0] = 255
        if number % 3 == 2:
            values[0, 1] = 0
        sources.append(ArrayScene(f"scene{number}", {"hsi": values}))
    build_archive(sources, tmp_path / "one", SMALL)
    build_archive(sources[::-1], tmp_path / "many", SMALL, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "many")
    archive = Archive.open(tmp_path / "many")
    kinds = [(scene.modalities[0].dtype, scene.modalities[0].missing_value) for scene in archive.manifest.scenes]
    assert kinds == [("uint8", 255), ("uint8", 0), ("int16", -32768)] * 2
    for source in sources:
        read = archive.read_scene(source.name)
        np.testing.assert_array_equal(read.values["hsi"], source.values["hsi"])
        assert read.valid["hsi"].all()


@pytest.mark.usefixtures("workers")
def test_a_call_is_sent_its_own_job_alone(tmp_path: Path) -> None:
    class Told:
        """Writes a line to its file each time that it arrives in a process. Local, so that Ray sends its code along."""

        def __init__(self, file: Path) -> None:
            self.file = file

        def __setstate__(self, state: dict[str, Path]) -> None:
            self.__dict__.update(state)
            with self.file.open("a") as lines:
                lines.write("arrived\n")

    def file_of(told: Told, item: int) -> tuple[str, int]:
        return told.file.name, item

    first, second = Told(tmp_path / "first"), Told(tmp_path / "second")
    calls = [(first, 1), (first, 2), (first, 3), (second, 4)]
    assert sorted(run_all(file_of, calls, 2)) == [("first", 1), ("first", 2), ("first", 3), ("second", 4)]
    assert [len(told.file.read_text().splitlines()) for told in (first, second)] == [3, 1]


def test_a_file_that_a_worker_wrote_elsewhere_is_missed_before_publishing(
    plain_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalStore.put

    def put_on_another_machine(store: LocalStore, file: Path, path: str) -> None:
        if path.endswith("000001.tar"):
            file.unlink()
        else:
            put(store, file, path)

    monkeypatch.setattr(LocalStore, "put", put_on_another_machine)
    with pytest.raises(FailedRun, match=r"000001\.tar.*storage that all share"):
        build_archive([open_scene(str(plain_scene))], tmp_path / "archive", SMALL)
    assert not (tmp_path / "archive").exists()


def test_faults_reach_the_driver_from_a_worker() -> None:
    damage = DamagedArchive("somewhere", ("one: is missing", "two: 3 bytes, expected 4"))
    copy = pickle.loads(pickle.dumps(damage))  # noqa: S301  our own, as Ray does it
    assert (str(copy), copy.archive, copy.faults) == (str(damage), damage.archive, damage.faults)


@pytest.fixture
def long_scene(tmp_path: Path) -> Path:
    """A scene of 36 shards of 16x16 pixels."""
    folder = tmp_path / "long"
    folder.mkdir()
    np.save(folder / "hsi.npy", pixels(96, 96, 8))
    return write_scene(folder, {"hsi": {"files": "hsi.npy"}}, name="long")


def start_build(scene: Path, out: Path) -> "subprocess.Popen[bytes]":
    size = ["--tile-size", "8", "--halo", "2", "--samples-per-shard", "4"]
    return subprocess.Popen(
        [sys.executable, COMMAND, scene, "--out", out, *size],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(COMMAND.parents[1])},
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_was_ended_goes_on_to_the_same_archive(
    end: signal.Signals, long_scene: Path, tmp_path: Path
) -> None:
    build_archive([open_scene(str(long_scene))], tmp_path / "undisturbed", SMALL)
    rng = np.random.default_rng(end)
    for _ in range(3):
        process = start_build(long_scene, tmp_path / "archive")
        notes = tmp_path / ".archive.building" / "notes" / "long"
        wanted = rng.integers(1, 20) + (len(list(notes.iterdir())) if notes.exists() else 0)
        while process.poll() is None and not (notes.exists() and len(list(notes.iterdir())) >= wanted):
            time.sleep(0.002)
        process.send_signal(end)
        process.wait()
        if (tmp_path / "archive").exists():
            break
        assert notes.exists()
    kept = {path.name: path.stat().st_mtime_ns for path in notes.iterdir()} if notes.exists() else {}
    seen: list[Progress] = []
    if not (tmp_path / "archive").exists():
        assert kept
        build_archive([open_scene(str(long_scene))], tmp_path / "archive", SMALL, report=seen.append)
    assert content(tmp_path / "archive") == content(tmp_path / "undisturbed")
    assert not (tmp_path / ".archive.building").exists()


def interrupted_build(scene: Path, out: Path, shards: int) -> None:
    """Builds so many shards and is interrupted."""

    def stop(progress: Progress) -> None:
        if progress.shards_done == shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_archive([open_scene(str(scene))], out, SMALL, report=stop)


def test_a_restart_keeps_what_is_finished_and_whole(long_scene: Path, tmp_path: Path) -> None:
    build_archive([open_scene(str(long_scene))], tmp_path / "undisturbed", SMALL)
    interrupted_build(long_scene, tmp_path / "archive", 10)
    tars = sorted((tmp_path / ".archive.building" / "content" / "tiles").iterdir())
    assert len(tars) == 10
    tars[3].write_bytes(b"damaged since")
    identities = {tar.name: tar.stat().st_ino for tar in tars}
    build_archive([open_scene(str(long_scene))], tmp_path / "archive", SMALL)
    assert content(tmp_path / "archive") == content(tmp_path / "undisturbed")
    kept = [name for name, inode in identities.items() if (tmp_path / "archive/tiles" / name).stat().st_ino == inode]
    assert kept == [tar.name for place, tar in enumerate(tars) if place != 3]


def test_a_restart_with_other_input_or_settings_keeps_nothing_of_it(long_scene: Path, tmp_path: Path) -> None:
    interrupted_build(long_scene, tmp_path / "archive", 20)
    np.save(long_scene.parent / "hsi.npy", pixels(40, 96, 8, seed=5))
    other = ArchiveSettings(tile_size=16, halo=1, samples_per_shard=2)
    build_archive([open_scene(str(long_scene))], tmp_path / "archive", other)
    build_archive([open_scene(str(long_scene))], tmp_path / "undisturbed", other)
    assert content(tmp_path / "archive") == content(tmp_path / "undisturbed")


def test_two_builds_of_one_archive_at_once_are_refused(long_scene: Path, tmp_path: Path) -> None:
    with (
        open_staging(tmp_path / "archive", ["long"], adding=False),
        pytest.raises(BadInput, match="another build"),
    ):
        build_archive([open_scene(str(long_scene))], tmp_path / "archive", SMALL)


def test_scenes_are_added_without_touching_what_is_there(
    plain_scene: Path, long_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    archive = tmp_path / "archive"
    size = ("--tile-size", 8, "--halo", 2, "--samples-per-shard", 4)
    assert shard_command(plain_scene, "--out", archive, *size).status == 0
    before = {path: path.stat().st_ino for path in archive.rglob("*") if path.is_file() and path.suffix != ".json"}
    first = Archive.open(archive).fingerprint
    assert shard_command(plain_scene, "--out", archive, "--add").status == 2
    assert shard_command(long_scene, "--out", archive, *size, "--add").status == 0
    assert {path: path.stat().st_ino for path in before} == before
    assert Archive.open(archive, verify="hash").fingerprint != first
    build_archive([open_scene(str(long_scene)), open_scene(str(plain_scene))], tmp_path / "together", SMALL)
    assert content(archive) == content(tmp_path / "together")
    outcome = shard_command(long_scene, "--out", tmp_path / "nowhere", "--add")
    assert outcome.status == 2
    assert "no archive" in outcome.err


def test_nothing_is_added_to_a_damaged_archive(plain_scene: Path, long_scene: Path, tmp_path: Path) -> None:
    build_archive([open_scene(str(plain_scene))], tmp_path / "archive", SMALL)
    next((tmp_path / "archive" / "tiles").iterdir()).unlink()
    before = content(tmp_path / "archive")
    with pytest.raises(DamagedArchive, match="is missing"):
        build_archive([open_scene(str(long_scene))], tmp_path / "archive", SMALL, add=True)
    assert content(tmp_path / "archive") == before


@pytest.mark.parametrize("writes", [0, 1, 7, 40])
def test_a_full_disk_ends_the_build_in_one_line_with_nothing_left(
    writes: int, long_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_command: ShardCommand
) -> None:
    left = [writes]
    put = LocalStore.put

    def put_while_there_is_room(store: LocalStore, file: Path, path: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        put(store, file, path)

    monkeypatch.setattr(LocalStore, "put", put_while_there_is_room)
    before = sorted(tmp_path.rglob("*"))
    outcome = shard_command(long_scene, "--out", tmp_path / "archive", "--tile-size", 8, "--samples-per-shard", 4)
    assert outcome.status == 1
    (line,) = [line for line in outcome.err.splitlines() if "failed:" in line]
    assert "archive" in line
    assert "No space left on device" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_is_really_full(long_scene: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(FailedRun, match="No space left on device"):
            build_archive([open_scene(str(long_scene))], disk / "archive", SMALL)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_memory_allowed_decides_the_shards(long_scene: Path, tmp_path: Path, shard_command: ShardCommand) -> None:
    source = open_scene(str(long_scene))
    wide = build_archive([source], tmp_path / "wide", ArchiveSettings(tile_size=32, halo=4, samples_per_shard=9))
    narrow = build_archive(
        [source], tmp_path / "narrow", ArchiveSettings(tile_size=32, halo=4, samples_per_shard=9, memory_mb=1)
    )
    assert wide.scenes[0].samples_per_shard == 9
    assert narrow.scenes[0].samples_per_shard < 9
    assert sum(file.samples for file in narrow.files) == sum(file.samples for file in wide.files) == 9
    outcome = shard_command(long_scene, "--out", tmp_path / "none", "--tile-size", 512, "--memory-mb", 1)
    assert outcome.status == 2
    assert "memory_mb" in outcome.err
    shutil.rmtree(tmp_path / "wide")


def test_bit_rounding_is_a_choice_that_the_manifest_records(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = np.random.default_rng(0).normal(1, 0.1, (32, 32, 6)).astype(np.float32)
    values[3, 4] = np.nan
    np.save(tmp_path / "hsi.npy", values)
    np.save(tmp_path / "counts.npy", pixels(32, 32, 1, "int16"))
    scene = write_scene(tmp_path, {"hsi": {"files": "hsi.npy"}, "counts": {"files": "counts.npy"}})
    assert shard_command(scene, "--out", tmp_path / "all").status == 0
    assert shard_command(scene, "--out", tmp_path / "some", "--keep-bits", 7).status == 0
    assert shard_command(scene, "--out", tmp_path / "none", "--keep-bits", 0).status == 2
    whole, rounded = Archive.open(tmp_path / "all"), Archive.open(tmp_path / "some")
    assert whole.scene("place").kept_bits is None
    assert rounded.scene("place").kept_bits == 7
    np.testing.assert_array_equal(whole.read_scene("place").values["hsi"], values)
    read = rounded.read_scene("place")
    np.testing.assert_allclose(read.values["hsi"], values, rtol=2**-8)
    assert not np.array_equal(read.values["hsi"], values, equal_nan=True)
    assert np.argwhere(~read.valid["hsi"]).tolist() == [[3, 4]]
    np.testing.assert_array_equal(read.values["counts"], np.load(tmp_path / "counts.npy"))
    tile = rounded.read_tile(rounded.scene("place").tiles[0])
    np.testing.assert_array_equal(tile.values["hsi"][7:-7, 7:-7], read.values["hsi"])

    def chunk_bytes(archive: Archive) -> int:
        return sum(file.bytes for file in archive.manifest.files if "/hsi/c/" in file.path)

    assert chunk_bytes(rounded) < 0.7 * chunk_bytes(whole)


def test_building_brings_in_no_torch(tmp_path: Path) -> None:
    """torch takes seconds and hundreds of megabytes in each process that builds."""
    code = (
        "import sys; from shards.archive.tiling import ArchiveSettings; from shards.open_scene import open_scene;"
        "from shards.build.build_archive import build_archive;"
        "build_archive([open_scene('synthetic')], sys.argv[1], ArchiveSettings());"
        "print('torch' in sys.modules);"
        "import webdataset; print(webdataset.WebDataset.__name__)"  # the whole package is still there for others
    )
    command = [sys.executable, "-c", code, str(tmp_path / "archive")]
    done = subprocess.run(command, cwd=COMMAND.parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "WebDataset"]
