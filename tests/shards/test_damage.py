"""Damage to an archive, by accident or on purpose: refused by name, nothing executed, nothing trusted."""

import gzip
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_bytes import changed_bytes
from corruptions import NASTY, leaves
from small_scenes import ShardCommand

from shards.archive.archive import Archive
from shards.archive.manifest import Manifest, TileRecord, new_manifest, write_manifest
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.build.build_shard import file_record
from shards.errors import BadInput, DamagedArchive
from shards.open_scene import open_scene

TAR = "tiles/place-000000.tar"
CHUNK = "scenes/place.zarr/hsi/c/0/0/0"


@pytest.fixture
def archive(plain_scene: Path, tmp_path: Path) -> Path:
    settings = ArchiveSettings(tile_size=8, halo=2, samples_per_shard=4)
    build_archive([open_scene(str(plain_scene))], tmp_path / "archive", settings)
    return tmp_path / "archive"


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def rewrite(archive: Path, change: Callable[[str], str]) -> None:
    """Changes the manifest's text."""
    path = archive / "manifest.json"
    text = path.read_text()
    assert change(text) != text
    path.write_bytes(change(text).encode())


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, bool]] = {
    # what happens, which file must be named, whether sizes alone show it
    "flipped in a tar": (lambda a: flip(a / TAR, 5000), TAR, False),
    "flipped in a chunk": (lambda a: flip(a / CHUNK, 100), CHUNK, False),
    "flipped in the manifest": (lambda a: flip(a / "manifest.json", 3000), "manifest.json", True),
    "truncated tar": (lambda a: (a / TAR).write_bytes((a / TAR).read_bytes()[:-600]), TAR, True),
    "truncated manifest": (
        lambda a: (a / "manifest.json").write_bytes((a / "manifest.json").read_bytes()[:-50]),
        "manifest.json",
        True,
    ),
    "manifest without its last byte": (lambda a: cut(a / "manifest.json", 1), "manifest.json", False),
    "a blank more in the manifest": (lambda a: rewrite(a, lambda text: text + " "), "manifest.json", False),
    "other line ends in the manifest": (
        lambda a: rewrite(a, lambda text: text.replace("\n", "\r\n")),
        "manifest.json",
        False,
    ),
    "another form of a number in the manifest": (
        lambda a: rewrite(a, lambda text: text.replace('"halo": 2', '"halo": 2.0')),
        "manifest.json",
        False,
    ),
    "two fields exchanged in the manifest": (
        lambda a: rewrite(
            a, lambda text: text.replace('"height": 20,\n   "width": 30,', '"width": 30,\n   "height": 20,')
        ),
        "manifest.json",
        False,
    ),
    "missing tar": (lambda a: (a / TAR).unlink(), TAR, True),
    "missing chunk": (lambda a: (a / CHUNK).unlink(), CHUNK, True),
    "extra file": (lambda a: (a / "tiles" / "place-000099.tar").write_bytes(b""), "tiles/place-000099.tar", True),
    "duplicate file": (lambda a: shutil.copy(a / TAR, a / "tiles" / "copy.tar"), "tiles/copy.tar", True),
    "hidden extra file": (lambda a: (a / "scenes" / ".x").write_bytes(b"1"), "scenes/.x", True),
    "link out of the archive": (lambda a: relink(a / TAR, a.parent / "elsewhere.tar"), TAR, True),
}


def relink(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(damage: str, archive: Path, shard_command: ShardCommand) -> None:
    harm, named, sizes_show_it = DAMAGES[damage]
    harm(archive)
    outcome = shard_command("--verify", archive)
    assert outcome.status == 1
    assert [line for line in outcome.err.splitlines() if named in line]
    assert "Traceback" not in outcome.err
    if sizes_show_it:
        with pytest.raises(DamagedArchive, match=named.replace(".", r"\.")):
            Archive.open(archive)
    with pytest.raises(DamagedArchive, match=named.replace(".", r"\.")):
        Archive.open(archive, verify="hash")


def test_every_damaged_file_is_named_at_once(archive: Path, shard_command: ShardCommand) -> None:
    flip(archive / TAR, 5000)
    (archive / CHUNK).unlink()
    (archive / "notes.txt").write_text("mine")
    outcome = shard_command("--verify", archive)
    assert outcome.status == 1
    assert all(path in outcome.err for path in (TAR, CHUNK, "notes.txt"))


def test_any_changed_byte_of_any_file_is_named(archive: Path) -> None:
    """Bytes are flipped, cut, put in and exchanged at random places of files of every kind."""
    rng = np.random.default_rng(3)
    paths = sorted(path for path in archive.rglob("*") if path.is_file())
    kinds = {path.name if path.suffix == ".json" else path.suffix or "chunk": path for path in paths}
    assert kinds.keys() == {"manifest.json", "zarr.json", ".tar", "chunk"}
    for path in kinds.values():
        whole = path.read_bytes()
        for turn in range(100):
            content, place = bytearray(whole), int(rng.integers(len(whole)))
            match turn % 5:
                case 0:
                    content[place] ^= 1 << int(rng.integers(8))
                case 1:
                    del content[place:]
                case 2:
                    del content[place : place + int(rng.integers(1, 40))]
                case 3:
                    content[place:place] = rng.bytes(int(rng.integers(1, 9)))
                case _:
                    content.insert(place, content[place])  # a digit or a blank twice
            if content == whole:
                continue
            path.write_bytes(content)
            with pytest.raises(DamagedArchive, match=path.relative_to(archive).as_posix().replace(".", r"\.")):
                Archive.open(archive, verify="hash")
        path.write_bytes(whole)
    Archive.open(archive, verify="hash")


def test_an_absent_archive_is_bad_input(tmp_path: Path, shard_command: ShardCommand) -> None:
    outcome = shard_command("--verify", tmp_path / "none")
    assert outcome.status == 2
    assert "manifest.json" in outcome.err


def test_a_manifest_of_a_newer_version_is_refused(archive: Path, shard_command: ShardCommand) -> None:
    plain = json.loads((archive / "manifest.json").read_text())
    (archive / "manifest.json").write_text(json.dumps(plain | {"format_version": 3}))
    outcome = shard_command("--verify", archive)
    assert outcome.status == 1
    assert "version 3 is newer" in outcome.err


def forge(archive: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the manifest and gives it the fingerprint that fits, as an attacker would."""
    from shards.archive.manifest import _fingerprint

    plain = json.loads((archive / "manifest.json").read_text())
    change(plain)
    plain["fingerprint"] = _fingerprint(plain)
    (archive / "manifest.json").write_text(json.dumps(plain))


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "absolute path": (lambda m: m["files"][0].update(path="/etc/passwd"), "/etc/passwd"),
    "path upwards": (lambda m: m["files"][0].update(path="tiles/../../secret"), r"\.\./secret"),
    "tile path upwards": (lambda m: m["scenes"][0]["tiles"][0].update(path="../x.tar"), r"\.\./x\.tar"),
    "scene named upwards": (lambda m: m["scenes"][0].update(name="../../x"), r"\.\./\.\./x"),
    "twin file": (lambda m: m["files"].append(m["files"][0]), "listed twice"),
    "twin scene": (lambda m: m["scenes"].append(m["scenes"][0]), "two scenes"),
    "twin tile": (lambda m: m["scenes"][0]["tiles"].append(m["scenes"][0]["tiles"][0]), "listed twice"),
    "tile beyond its tar": (lambda m: m["scenes"][0]["tiles"][0].update(bytes=10**10), "beyond the end"),
    "tile off the scene": (lambda m: m["scenes"][0]["tiles"][0].update(row=10**6), "does not lie in the scene"),
    "negative offset": (lambda m: m["scenes"][0]["tiles"][0].update(offset=-512), "offset"),
    "unknown field": (lambda m: m.update(code="import os"), "code"),
    "unknown dtype": (lambda m: m["scenes"][0]["modalities"][0].update(dtype="object"), "dtype"),
    "too few means": (lambda m: m["scenes"][0]["modalities"][0].update(mean=[1.0]), "band"),
    "no scene": (lambda m: m.update(scenes=[]), "scenes"),
    "no version": (lambda m: m.pop("format_version"), "version"),
    "bands in the thousands of millions": (lambda m: m["scenes"][0]["modalities"][0].update(bands=10**12), "band"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_manifest_is_refused(forgery: str, archive: Path, shard_command: ShardCommand) -> None:
    change, words = FORGERIES[forgery]
    forge(archive, change)
    with pytest.raises(DamagedArchive, match=words):
        Archive.open(archive)
    assert shard_command("--verify", archive).status == 1


class Boom:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def members_of(tar: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(tar) as file:
        return [(member, file.extractfile(member).read()) for member in file]  # type: ignore[union-attr]


def forge_tar(archive: Path, change: Callable[[int, tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]) -> None:
    """Rewrites the first tar member by member, and a manifest that fits it in every size and hash."""
    members = [change(place, *member) for place, member in enumerate(members_of(archive / TAR))]
    manifest = Archive.open(archive).manifest
    (scene,) = manifest.scenes
    per_tile = 1 + len(scene.modalities)
    written, offsets = io.BytesIO(), []
    for place, (member, content) in enumerate(members):
        if place % per_tile == 0:
            offsets.append(written.tell())
        written.write(member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
    offsets.append(written.tell())
    (archive / TAR).write_bytes(written.getvalue() + bytes(1024))
    tiles = [tile for tile in scene.tiles if tile.path == TAR]
    moved = {
        tile.key: replace(tile, offset=start, bytes=stop - start)
        for tile, start, stop in zip(tiles, offsets[:-1], offsets[1:], strict=True)
    }
    new_tiles = tuple(moved.get(tile.key, tile) for tile in scene.tiles)
    files = tuple(
        file_record(archive, TAR, record.samples) if record.path == TAR else record for record in manifest.files
    )
    save(archive, new_manifest((replace(scene, tiles=new_tiles),), files))


def save(archive: Path, manifest: Manifest) -> None:
    (archive / "manifest.json").write_bytes(write_manifest(manifest))


def forged_member(kind: str, mark: Path) -> Callable[[int, tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]:
    def change(place: int, member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        if place != 1:
            return member, content
        if kind == "absolute":
            member.name = "/etc/cron.d/x"
        elif kind == "upwards":
            member.name = "../../x.npy"
        elif kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        elif kind == "pickle":
            content = pickle.dumps(Boom(mark))
        elif kind == "pickle in npy":
            file = io.BytesIO()  # what a stranger may send: were it ever read as a pickle, it would leave its mark
            np.save(file, np.array([Boom(mark)], dtype=object), allow_pickle=True)
            content = file.getvalue()
        elif kind == "ten gigabytes in npy":
            file = io.BytesIO()
            header = {"descr": "<f4", "fortran_order": False, "shape": (50000, 50000, 1)}
            np.lib.format.write_array_header_1_0(file, header)
            content = file.getvalue() + content[-100:]
        elif kind == "other shape":
            file = io.BytesIO()
            np.save(file, np.zeros((12, 13, 5), np.int16))
            content = file.getvalue()
        member.size = 10 * 2**30 if kind == "ten gigabytes in tar" else len(content)
        return member, content

    return change


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absolute", "/etc/cron.d/x"),
        ("upwards", r"\.\./\.\./x\.npy"),
        ("link", "expected the file"),
        ("pickle", "not a .npy file"),
        ("pickle in npy", "not a .npy file"),
        ("ten gigabytes in npy", "not a .npy file"),
        ("ten gigabytes in tar", "claims 10737418240 bytes"),
        ("other shape", "not a .npy file"),
    ],
)
def test_a_forged_tar_is_refused_even_where_its_hash_fits(
    kind: str, words: str, archive: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    mark = tmp_path / "executed"
    forge_tar(archive, forged_member(kind, mark))
    opened = Archive.open(archive)  # sizes fit, and nothing has been read yet
    first = opened.manifest.scenes[0].tiles[0]
    with pytest.raises(DamagedArchive, match=words) as refused:
        opened.read_tile(first)
    assert TAR in str(refused.value)
    # read in sequence, as webdataset does, the tar is no better
    with pytest.raises(
        DamagedArchive, match=r"place-000000\.tar: tile place_0000000_0000000|cannot be read in sequence"
    ):
        Archive.open(archive, verify="hash")
    assert shard_command("--verify", archive).status == 1
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["compressed", "one tile more", "something after the end", "offsets exchanged"])
def test_a_tar_that_webdataset_would_read_differently_is_refused(kind: str, archive: Path) -> None:
    manifest = Archive.open(archive).manifest
    (scene,) = manifest.scenes
    content = (archive / TAR).read_bytes()
    first, second = (tile for tile in scene.tiles[:2])
    tiles = scene.tiles
    if kind == "compressed":
        content = gzip.compress(content) + bytes(len(content))
    elif kind == "one tile more":
        header = tarfile.TarInfo("place_0000000_0000099.json").tobuf(tarfile.USTAR_FORMAT)
        content = content[:-1024] + header + bytes(1024)
    elif kind == "something after the end":
        content = content[:-1] + b"!"
    else:
        assert first.bytes == second.bytes
        exchanged = (replace(first, offset=second.offset), replace(second, offset=first.offset))
        tiles = (*exchanged, *scene.tiles[2:])
    (archive / TAR).write_bytes(content)
    files = tuple(file_record(archive, record.path, record.samples) for record in manifest.files)
    save(archive, new_manifest((replace(scene, tiles=tiles),), files))
    with pytest.raises(DamagedArchive, match=r"place-000000\.tar"):
        Archive.open(archive, verify="hash")


def test_an_unchanged_tar_passes_the_same_way(archive: Path, tmp_path: Path) -> None:
    """The forger itself breaks nothing, so that the tests above fail for the right reason."""
    forge_tar(archive, forged_member("nothing", tmp_path / "mark"))
    Archive.open(archive, verify="hash")


def test_a_zarr_scene_that_claims_another_shape_is_refused(archive: Path) -> None:
    manifest = Archive.open(archive).manifest
    path = "scenes/place.zarr/hsi/zarr.json"
    for name in (path, "scenes/place.zarr/zarr.json"):
        text = (archive / name).read_text()
        plain = json.loads(text)
        metadata = plain if name == path else plain["consolidated_metadata"]["metadata"]["hsi"]
        metadata["shape"] = [100000, 100000, 5]
        (archive / name).write_text(json.dumps(plain))
    files = tuple(file_record(archive, record.path, record.samples) for record in manifest.files)
    save(archive, new_manifest(manifest.scenes, files))
    with pytest.raises(DamagedArchive, match=r"place\.zarr.*expected int16 in shape \(20, 30, 5\)"):
        Archive.open(archive, verify="hash").read_scene("place")


def test_a_chunk_that_rots_after_opening_is_caught_by_its_checksum(archive: Path) -> None:
    opened = Archive.open(archive, verify="hash")
    flip(archive / CHUNK, 200)
    with pytest.raises(DamagedArchive, match=r"place\.zarr"):
        opened.read_scene("place")


def test_unknown_scenes_and_modalities_are_bad_input(archive: Path) -> None:
    opened = Archive.open(archive)
    with pytest.raises(BadInput, match="no scene 'elsewhere'; it holds: place"):
        opened.scene("elsewhere")
    with pytest.raises(BadInput, match="no modality 'sar'; it has: hsi, lidar"):
        opened.read_scene("place", ("sar",))


def opened_or_fault(folder: Path) -> Archive | str:
    try:
        return Archive.open(folder)
    except DamagedArchive as damage:
        return str(damage)


def values_or_fault(archive: Archive, tile: TileRecord) -> np.ndarray | str:
    try:
        return archive.read_tile(tile).values["hsi"]
    except DamagedArchive as damage:
        return str(damage)


def read_everything(folder: Path) -> None:
    """All that a reader of an archive may do; ends well, or with the two errors that users are told of."""
    try:
        opened = Archive.open(folder)
        for scene in opened.manifest.scenes:
            for tile in scene.tiles:
                opened.read_tile(tile)
            opened.read_scene(scene.name)
    except (BadInput, DamagedArchive):
        pass


def test_fuzzed_manifests_end_in_a_clear_error(archive: Path) -> None:
    """Random bytes and random fields, the latter with a fingerprint that fits: never any other exception."""
    rng = np.random.default_rng(0)
    whole = (archive / "manifest.json").read_bytes()
    original = Archive.open(archive).manifest
    for _ in range(150):
        (archive / "manifest.json").write_bytes(changed_bytes(whole, rng))
        opened = opened_or_fault(archive)
        if isinstance(opened, Archive):  # only blanks changed
            assert write_manifest(opened.manifest) == write_manifest(original)
        else:
            assert "manifest.json" in opened
    for _ in range(150):
        (archive / "manifest.json").write_bytes(whole)

        def change(plain: dict[str, Any]) -> None:
            places = leaves(plain)
            container, key = places[rng.integers(len(places))]
            if rng.integers(4) == 0:
                del container[key]
            else:
                container[key] = NASTY[rng.integers(len(NASTY))]

        forge(archive, change)
        read_everything(archive)


def test_fuzzed_zarr_metadata_and_chunks_end_in_a_clear_error(archive: Path) -> None:
    rng = np.random.default_rng(2)
    opened = Archive.open(archive)
    for name in ("scenes/place.zarr/zarr.json", "scenes/place.zarr/hsi/zarr.json", CHUNK):
        whole = (archive / name).read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(rng.integers(1, 4)):
                content[int(rng.integers(len(content)))] = int(rng.integers(256))
            (archive / name).write_bytes(content)
            try:
                assert opened.read_scene("place").values["hsi"].shape == (20, 30, 5)
            except DamagedArchive:
                continue
        (archive / name).write_bytes(whole)


def test_fuzzed_tars_end_in_a_clear_error(archive: Path) -> None:
    """Whatever a tar of the right size holds, a tile is read in its shape or refused; its hash always tells."""
    rng = np.random.default_rng(1)
    whole = (archive / TAR).read_bytes()
    opened = Archive.open(archive)
    (scene,) = opened.manifest.scenes
    headers = [tile.offset for tile in scene.tiles if tile.path == TAR]
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            # half of the changes fall upon headers, which are few among many pixels
            place = int(rng.choice(headers) + rng.integers(1200) if rng.integers(2) else rng.integers(len(content)))
            content[place] = int(rng.integers(256))
        (archive / TAR).write_bytes(content)
        for tile in scene.tiles:
            values = values_or_fault(opened, tile)
            if isinstance(values, str):
                assert TAR in values
            else:
                assert values.shape == (tile.height + 4, tile.width + 4, 5)
        if bytes(content) != whole:
            with pytest.raises(DamagedArchive, match="place-000000"):
                Archive.open(archive, verify="hash")
