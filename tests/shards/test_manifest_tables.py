"""An archive of many files keeps its tiles and files in tables beside the manifest, and is otherwise as any other."""

import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.data.training_data import TrainingData
from shards.archive import manifest_tables
from shards.archive.archive import Archive
from shards.archive.manifest import TileRecord, write_manifest
from shards.archive.manifest_tables import archive_manifest
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import DamagedArchive
from shards.open_scene import open_scene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

SETTINGS = ArchiveSettings(tile_size=8, halo=2, samples_per_shard=4)
ORDER = OrderConfig(seed=0, global_batch=16, shuffle_streams=2, shuffle_buffer=2)


def generated(name: str) -> GeneratedScene:
    return GeneratedScene(GeneratedSceneSpec(name, 32, 40, 4, 400.0, 900.0))


@pytest.fixture(autouse=True)
def few_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_tables, "MOST_LISTED", 3)


@pytest.fixture
def archive(plain_scene: Path, tmp_path: Path) -> Path:
    build_archive([open_scene(str(plain_scene))], tmp_path / "archive", SETTINGS)
    return tmp_path / "archive"


def table(archive: Path, column: str) -> Path:
    (path,) = archive.glob(f"tables/{column}-*.npy")
    return path


def test_its_records_are_those_of_a_manifest_that_lists_them(archive: Path, plain_scene: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest_tables, "MOST_LISTED", 50_000)
        build_archive([open_scene(str(plain_scene))], tmp_path / "listed", SETTINGS)
    listed, tabled = (Archive.open(tmp_path / name, verify="hash") for name in ("listed", "archive"))
    assert (listed.manifest.format_version, tabled.manifest.format_version) == (1, 2)
    assert tuple(tabled.manifest.files) == listed.manifest.files
    assert tuple(tabled.manifest.files[-2:]) == listed.manifest.files[-2:]
    (one,), (other,) = listed.manifest.scenes, tabled.manifest.scenes
    assert tuple(other.tiles) == tuple(one.tiles) == other.tiles[:]
    assert replace(other, tiles=()) == replace(one, tiles=())
    for tile in other.tiles:
        assert np.array_equal(tabled.read_tile(tile).values["hsi"], listed.read_tile(tile).values["hsi"])
    plain = json.loads((archive / "manifest.json").read_text())
    assert plain["scenes"][0]["tiles"] == plain["files"] == []
    assert plain["tables"]["files"] == len(listed.manifest.files)


def test_opening_reads_no_table(archive: Path) -> None:
    for path in archive.glob("tables/*"):
        path.unlink()
    assert len(Archive.open_unverified(archive).manifest.scenes[0].tiles) > 3
    with pytest.raises(DamagedArchive, match=r"tables/tiles\.key-.*: is missing"):
        Archive.open(archive, verify="size")


@contextmanager
def touched(archive: Path) -> Iterator[list[str]]:
    """What this process opens or lists below an archive meanwhile, a path each time."""
    found: list[str] = []
    recording = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if recording and event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(str(archive)):
            found.append(str(Path(arguments[0]).relative_to(archive)))

    sys.addaudithook(hear)  # Python takes none away again
    try:
        yield found
    finally:
        recording = False


@pytest.mark.parametrize("tile_size", [8, 4])
def test_opening_touches_the_manifest_alone_however_many_tiles_there_are(
    tile_size: int, plain_scene: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, tile_size=tile_size, samples_per_shard=1)
    build_archive([open_scene(str(plain_scene))], tmp_path / "archive", settings)
    with touched(tmp_path / "archive") as at_opening:
        archive = Archive.open(tmp_path / "archive")
        assert len(archive.manifest.scenes[0].tiles) == archive.manifest.tables.tiles["place"]  # type: ignore[union-attr]
    assert at_opening == ["manifest.json"]
    with touched(tmp_path / "archive") as at_reading:
        tile = archive.manifest.scenes[0].tiles[1]
        archive.read_tile(tile)
    assert sorted({path for path in at_reading if not path.startswith("tables/tiles.")}) == [tile.path]
    assert len(at_reading) == 11  # ten columns and the tar; no file of files, and nothing is listed


def test_a_file_that_is_not_there_is_named_when_it_is_read(archive: Path) -> None:
    opened = Archive.open(archive)
    tile = opened.manifest.scenes[0].tiles[0]
    (archive / tile.path).unlink()
    with pytest.raises(DamagedArchive, match=f"{tile.path}: tile {tile.key}"):
        Archive.open(archive).read_tile(tile)
    with pytest.raises(DamagedArchive, match=f"{tile.path}: is missing"):
        Archive.open(archive, verify="size")


def test_training_is_sent_no_table_and_takes_the_same_samples(tmp_path: Path) -> None:
    build_archive([generated(name) for name in ("b", "a")], tmp_path / "archive", SETTINGS)
    data = TrainingData.of(Archive.open(tmp_path / "archive"), 5, ORDER)
    sent = pickle.loads(pickle.dumps(data))  # noqa: S301  our own, as Ray and the loader send it
    (group,), (again,) = data.groups, sent.groups
    assert b"tiles/a-000000.tar" in pickle.dumps(replace(group.tiles, stored=None))
    assert b"tiles/a-000000.tar" not in pickle.dumps(data)
    assert tuple(again.tiles) == tuple(group.tiles)
    assert [tile.scene for tile in again.tiles] == sorted(tile.scene for tile in again.tiles)
    assert {tile.scene for tile in again.tiles} == {"a", "b"}
    (samples,), (expected,) = (one.order.samples(range(1), range(16)) for one in (sent, data))
    assert np.array_equal(samples.tile_B, expected.tile_B)


@pytest.mark.parametrize("location", ["LOCAL", "memory://tabled"])
def test_adding_a_scene_writes_new_tables_and_takes_the_old_away(location: str, tmp_path: Path) -> None:
    place = location.replace("LOCAL", str(tmp_path / "archive"))
    build_archive([generated("b")], place, SETTINGS)
    before = Archive.open(place)
    build_archive([generated("a")], place, SETTINGS, add=True)
    after = Archive.open(place, verify="hash")
    assert [scene.name for scene in after.manifest.scenes] == ["a", "b"]
    assert {tile.scene for tile in after.scene("b").tiles} == {"b"}
    tables = {path for path in after.store.sizes() if path.startswith("tables/")}
    assert after.manifest.tables is not None
    assert before.manifest.tables is not None
    assert tables == {record.path for record in after.manifest.tables.columns.values()}
    assert len(after.scene("b").tiles) == len(before.scene("b").tiles)


@pytest.mark.parametrize("column", ["tiles.key", "tiles.offset", "files.path", "files.sha256"])
def test_a_changed_table_is_named_where_sizes_are_checked(column: str, archive: Path) -> None:
    path = table(archive, column)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArchive, match=rf"tables/{column}-.*: its content was changed"):
        Archive.open(archive, verify="size")


def forge(archive: Path, change: dict[str, object], file: dict[str, object] | None = None) -> None:
    """Writes a manifest and tables that fit each other, with a change to the first tile and the first file."""
    manifest = Archive.open(archive).manifest
    (scene,) = manifest.scenes
    first, *rest = scene.tiles
    tiles = [replace(first, **change), *rest]  # type: ignore[arg-type]
    of_files = list(manifest.files)
    of_files[0] = replace(of_files[0], **(file or {}))  # type: ignore[arg-type]
    forged, tables = archive_manifest([replace(scene, tiles=tiles)], of_files)
    for path in archive.glob("tables/*"):
        path.unlink()
    for path, content in tables.items():
        (archive / path).write_bytes(content)
    (archive / "manifest.json").write_bytes(write_manifest(forged))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "../../etc/passwd"}, "beyond the end of its file"),
        ({"offset": 1 << 40}, "beyond the end of its file"),
        ({"offset": -512}, "beyond the end of its file"),
        ({"bytes": 1 << 62}, "beyond the end of its file"),
        ({"bytes": 0}, "does not lie in the scene"),
        ({"row": 4000}, "does not lie in the scene"),
        ({"height": 9}, "does not lie in the scene"),
        ({"valid_pixels": 65}, "more valid pixels than pixels"),
        ({"scene": "other"}, "under another scene"),
        ({"key": "place_0000000_0000008"}, "listed twice"),
    ],
)
def test_forged_tables_are_refused_even_where_their_hashes_fit(
    change: dict[str, object], words: str, archive: Path
) -> None:
    forge(archive, change)
    with pytest.raises(DamagedArchive, match=words):
        Archive.open(archive, verify="size")


@pytest.mark.parametrize("path", ["../../outside", "/etc/passwd", "a//b", "a\\b"])
def test_no_path_of_a_table_leads_out_of_the_archive(path: str, archive: Path) -> None:
    forge(archive, {"path": path}, {"path": path})
    opened = Archive.open_unverified(archive)
    with pytest.raises(DamagedArchive, match="not a plain relative path"):
        opened.read_tile(opened.manifest.scenes[0].tiles[0])
    with pytest.raises(DamagedArchive):
        Archive.open(archive, verify="size")


def test_a_table_of_another_kind_is_refused_when_it_is_looked_at(archive: Path) -> None:
    path = table(archive, "tiles.row")
    np.save(path, np.array([{}] * 3, dtype=object), allow_pickle=True)  # would be a pickle, were it read as one
    tiles = Archive.open_unverified(archive).manifest.scenes[0].tiles
    with pytest.raises(DamagedArchive, match=r"tables/tiles\.row-.*expected \d+ numbers"):
        tiles[0]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DamagedArchive, match=r"tables/tiles\.row"):
        Archive.open_unverified(archive).manifest.scenes[0].tiles[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 1}, "with tables"),
        ({"tables": None}, "without tables"),
        ({"files": [{"path": "a", "bytes": 1, "sha256": "0" * 64, "samples": 0}]}, "beside its tables"),
        ({"tables": {"tiles": {"other": 3}, "files": 3, "columns": {}}}, "not of its scenes"),
    ],
)
def test_a_manifest_whose_text_and_tables_disagree_is_refused(
    change: dict[str, object], words: str, archive: Path
) -> None:
    from shards.archive.manifest import _fingerprint

    plain = json.loads((archive / "manifest.json").read_text()) | change
    plain["fingerprint"] = _fingerprint(plain)
    (archive / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(DamagedArchive, match=words):
        Archive.open(archive)


def test_tiles_are_records(archive: Path) -> None:
    tiles = Archive.open(archive).manifest.scenes[0].tiles
    assert isinstance(tiles[-1], TileRecord)
    assert tiles[-1] == list(tiles)[-1]
    with pytest.raises(IndexError):
        tiles[len(tiles)]


def test_tiles_of_scenes_that_lie_apart_in_the_table_come_together(tmp_path: Path) -> None:
    build_archive([generated(name) for name in "abc"], tmp_path / "archive", SETTINGS)
    a, b, c = Archive.open(tmp_path / "archive").manifest.scenes
    for scenes in ([a, c], [c, a], [a, b], [b]):
        assert list(manifest_tables.tile_table(scenes)) == [tile for scene in scenes for tile in scene.tiles]


def test_a_manifest_with_a_constant_that_json_lacks_is_refused(archive: Path) -> None:
    text = (archive / "manifest.json").read_text()
    (archive / "manifest.json").write_text(text.replace('"halo": 2', '"halo": NaN'))
    with pytest.raises(DamagedArchive, match=r"manifest\.json: is not JSON: NaN is not JSON"):
        Archive.open(archive)
