"""launch/shard.py from the outside: what it makes of good scenes and what it says to bad ones."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import yaml
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive


def change(scene: Path, **changes: Any) -> None:
    """Changes fields of a scene.yaml; a dotted name reaches inside, None takes the field away."""
    content = yaml.safe_load(scene.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        inner = content
        for parent in parents:
            inner = inner[parent]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    scene.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_scene_comes_back_as_it_was(plain_scene: Path, tmp_path: Path, shard_command: ShardCommand) -> None:
    outcome = shard_command(plain_scene, "--out", tmp_path / "archive", "--tile-size", 8, "--halo", 2)
    assert outcome.status == 0, outcome.err
    archive = Archive.open(tmp_path / "archive", verify="hash")
    scene = archive.read_scene("place")
    np.testing.assert_array_equal(scene.values["hsi"], np.load(plain_scene.parent / "hsi.npy"))
    np.testing.assert_array_equal(scene.values["lidar"][..., 0], np.load(plain_scene.parent / "lidar.npy"))
    np.testing.assert_array_equal(scene.labels, np.load(plain_scene.parent / "gt.npy"))
    assert scene.values["hsi"].dtype == np.int16
    assert all(valid.all() for valid in scene.valid.values())
    assert scene.record.classes == {1: "grass", 3: "roof"}
    assert scene.record.descriptions == {1: "short green lawn"}
    assert not scene.record.generated
    assert shard_command("--verify", tmp_path / "archive").status == 0


def test_the_manifest_says_what_the_contract_promises(
    plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    assert shard_command(plain_scene.parent, "--out", tmp_path / "archive").status == 0
    manifest = json.loads((tmp_path / "archive" / "manifest.json").read_text())
    hsi = np.load(plain_scene.parent / "hsi.npy").astype(np.float64)
    (scene,) = manifest["scenes"]
    record = scene["modalities"][0]
    assert (record["bands"], record["dtype"], record["valid_pixels"]) == (5, "int16", 600)
    np.testing.assert_allclose(record["mean"], hsi.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(record["std"], hsi.std((0, 1)), rtol=1e-12)
    paths = {file["path"] for file in manifest["files"]}
    on_disk = {path.relative_to(tmp_path / "archive").as_posix() for path in (tmp_path / "archive").rglob("*.*")}
    assert "tiles/place-000000.tar" in paths
    assert {path for path in on_disk if path.endswith((".tar", "zarr.json"))} <= paths


def test_the_same_input_gives_the_same_bytes(plain_scene: Path, tmp_path: Path, shard_command: ShardCommand) -> None:
    for out in ("one", "two"):
        assert shard_command(plain_scene, "--out", tmp_path / out, "--tile-size", 8).status == 0
    one, two = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in ("one", "two")
    )
    assert one == two


def test_a_mosaic_lies_on_its_bounding_grid_with_the_rest_missing(tmp_path: Path, shard_command: ShardCommand) -> None:
    one, two = pixels(10, 12, 3, "int16"), pixels(10, 12, 3, "int16", seed=1)
    one[4, 5] = -999
    write_raster(tmp_path / "images" / "a.tif", one, (500.0, 900.0), nodata=-999)
    write_raster(tmp_path / "images" / "b.tif", two, (620.0, 800.0), nodata=-999)
    scene_file = write_scene(tmp_path, {"hsi": {"files": "images/*.tif", "bands": "3,1"}})
    outcome = shard_command(scene_file, "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    scene = Archive.open(tmp_path / "archive").read_scene("place")
    assert (scene.record.height, scene.record.width) == (20, 24)
    assert scene.record.transform == (10, 0, 500, 0, -10, 900)
    expected = np.zeros((20, 24), bool)
    expected[:10, :12], expected[10:, 12:], expected[4, 5] = True, True, False
    np.testing.assert_array_equal(scene.valid["hsi"], expected)
    np.testing.assert_array_equal(scene.values["hsi"][10:, 12:], two[..., [2, 0]])
    assert (scene.values["hsi"][~expected] == -999).all()
    assert scene.labels is None


def test_matlab_files_of_both_versions_and_envi_give_the_same_scene(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    values, centres = pixels(9, 7, 4), np.array([0.5, 0.6, 0.7, 0.8])
    scipy.io.savemat(tmp_path / "v5.mat", {"cube": values, "um": centres})
    with h5py.File(tmp_path / "v73.mat", "w") as file:
        file["cube"], file["um"] = values.T, centres[:, None]
    write_raster(tmp_path / "envi.img", values, None, driver="ENVI")
    matlab = {"variable": "cube", "wavelengths": {"variable": "um", "units": "um"}}
    modalities: dict[str, Any] = {}
    for version in ("v5", "v73"):
        file_name = f"{version}.mat"
        modalities[version] = {
            **matlab,
            "files": file_name,
            "wavelengths": {**matlab["wavelengths"], "files": file_name},
        }
    modalities["envi"] = {"files": "envi.hdr", "wavelengths": [500, 600, 700, 800]}
    outcome = shard_command(write_scene(tmp_path, modalities), "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    scene = Archive.open(tmp_path / "archive").read_scene("place")
    for record in scene.record.modalities:
        np.testing.assert_array_equal(scene.values[record.name], values)
        np.testing.assert_allclose(record.wavelengths_nm, (500, 600, 700, 800))


def test_an_official_split_is_kept_and_stands_for_the_labels(tmp_path: Path, shard_command: ShardCommand) -> None:
    np.save(tmp_path / "hsi.npy", pixels(6, 6, 2))
    train, test = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
    train[0, :3], test[3:, 3] = 1, 2
    scipy.io.savemat(tmp_path / "split.mat", {"train": train, "test": test})
    split = {part: {"files": "split.mat", "variable": part} for part in ("train", "test")}
    scene_file = write_scene(tmp_path, {"hsi": {"files": "hsi.npy"}}, {"classes": {1: "a", 2: "b"}, "split": split})
    assert shard_command(scene_file, "--out", tmp_path / "archive").status == 0
    scene = Archive.open(tmp_path / "archive").read_scene("place")
    assert scene.split is not None
    np.testing.assert_array_equal(scene.split[0], train)
    np.testing.assert_array_equal(scene.split[1], test)
    np.testing.assert_array_equal(scene.labels, train + test)


BAD_FIELDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing file": ({"modalities__hsi__files": "no.npy"}, ("no.npy", "modalities.hsi", "no such file")),
    "no match": ({"modalities__hsi__files": "*.tif"}, ("*.tif", "modalities.hsi", "no such file")),
    "unknown class id": ({"labels__classes": {1: "grass"}}, ("gt.npy", "unknown class id 3", "[1]")),
    "empty class list": ({"labels__classes": {}}, ("scene.yaml", "labels.classes")),
    "no class list": ({"labels__classes": None}, ("scene.yaml", "labels.classes")),
    "class zero ignored": (
        {"labels__classes": {0: "none", 1: "grass", 3: "roof"}, "labels__ignore": [0]},
        ("scene.yaml", "labels", "class 0"),
    ),
    "class ignored": ({"labels__ignore": [0, 3]}, ("scene.yaml", "labels", "class 3")),
    "bands out of range": (
        {"modalities__hsi__bands": "1-9"},
        ("hsi.npy", "modalities.hsi.bands", "band 9", "it has 5"),
    ),
    "bands upside down": ({"modalities__hsi__bands": "4-2"}, ("scene.yaml", "modalities.hsi.bands", "4-2")),
    "bands twice": ({"modalities__hsi__bands": "1-3,2"}, ("scene.yaml", "modalities.hsi.bands", "twice")),
    "unknown field": ({"modalities__hsi__band": "1"}, ("scene.yaml", "modalities.hsi.band", "mean `bands`?")),
    "unknown field of labels": ({"labels__class": {1: "x"}}, ("scene.yaml", "labels.class:", "mean `classes`?")),
    "unknown field of the scene": ({"modality": {}}, ("scene.yaml", "modality:", "mean `modalities`?")),
    "no files": ({"modalities__hsi": {"nodata": 0}}, ("scene.yaml", "modalities.hsi", "files: expected")),
    "scale of zero": ({"modalities__hsi__scale": 0}, ("scene.yaml", "modalities.hsi.scale", "0 would")),
    "no CRS": ({"crs": "EPSG:0"}, ("scene.yaml", "crs", "EPSG:0", "EPSG:32633")),
    "a CRS for files without place": ({"modalities__hsi__crs": "EPSG:32633"}, ("hsi.npy", "crs", "no transform")),
    "no name": ({"name": None}, ("scene.yaml", "name")),
    "a name that leaves the folder": ({"name": "../up"}, ("scene.yaml", "name", "../up")),
    "a reserved name": ({"modalities__labels": {"files": "hsi.npy"}}, ("scene.yaml", "labels")),
    "no modality": ({"modalities": {}}, ("scene.yaml", "modalities")),
    "too few wavelengths": (
        {"modalities__hsi__wavelengths": [400, 500]},
        ("modalities.hsi.wavelengths", "2 values", "5"),
    ),
    "everything ignored": (
        {"labels__ignore": [0, 1, 3], "labels__classes": {2: "x"}, "labels__descriptions": None},
        ("scene.yaml", "labels", "no labelled pixel"),
    ),
    "variable of npy": ({"modalities__hsi__variable": "x"}, ("hsi.npy", "variable")),
    "description of no class": ({"labels__descriptions": {2: "x"}}, ("scene.yaml", "labels", "class id 2")),
}


@pytest.mark.parametrize("fault", BAD_FIELDS)
def test_a_bad_scene_file_is_refused_in_one_line(
    fault: str, plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    changes, words = BAD_FIELDS[fault]
    change(plain_scene, **changes)
    before = sorted(tmp_path.rglob("*"))
    outcome = shard_command(plain_scene, "--out", tmp_path / "archive")
    assert_refused(outcome.status, outcome.err, words)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_label_map_of_nothing_but_zeros_is_refused(
    plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    np.save(plain_scene.parent / "gt.npy", np.zeros((20, 30), np.uint8))
    outcome = shard_command(plain_scene, "--out", tmp_path / "archive")
    assert_refused(outcome.status, outcome.err, ("scene.yaml", "labels", "no labelled pixel"))
    assert not (tmp_path / "archive").exists()


def assert_refused(status: int, err: str, words: tuple[str, ...]) -> None:
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2
    assert len(errors) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pixels(20, 31, 5), ("hsi.npy", "expected")),
        (np.full((20, 30, 5), np.nan, np.float32), ("place", "hsi", "no valid pixel")),
        (np.full((20, 30, 5), 7, np.int16), ("place", "hsi", "constant")),
        (pixels(20, 30, 5).astype(np.complex64), ("hsi.npy", "complex64", "real numbers")),
        (np.array([{"a": 1}], dtype=object), ("hsi.npy", "cannot be read")),
        (np.zeros((20, 30, 5, 2)), ("hsi.npy", "(20, 30, 5, 2)")),
        (np.zeros((0, 30, 5)), ("hsi.npy", "(0, 30, 5)")),
    ],
    ids=["another grid", "all NaN", "constant", "complex", "pickle", "four axes", "no row"],
)
def test_bad_arrays_are_refused_by_name(
    array: np.ndarray, words: tuple[str, ...], plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    np.save(plain_scene.parent / "hsi.npy", array)
    before = sorted(tmp_path.rglob("*"))
    outcome = shard_command(plain_scene, "--out", tmp_path / "archive")
    if array.shape[:2] == (20, 31):  # the first modality is the measure, so the other one is named
        words = ("lidar.npy", "20x30", "20x31")
    assert_refused(outcome.status, outcome.err, words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("origin", "more", "words"),
    [
        ((620.0, 900.0), {"crs": "EPSG:32632"}, ("b.tif", "another CRS")),
        ((623.0, 900.0), {}, ("b.tif", "off the grid")),
        ((620.0, 900.0), {"count": 2}, ("b.tif", "2 bands", "expected 3")),
        ((620.0, 900.0), {"dtype": "int32"}, ("b.tif", "int32", "int16")),
        (None, {}, ("b.tif", "no transform")),
    ],
)
def test_a_mosaic_that_does_not_agree_is_refused(
    origin: tuple[float, float] | None,
    more: dict[str, Any],
    words: tuple[str, ...],
    tmp_path: Path,
    shard_command: ShardCommand,
) -> None:
    write_raster(tmp_path / "a.tif", pixels(10, 12, 3, "int16"))
    values = pixels(10, 12, more.get("count", 3), more.get("dtype", "int16"))
    write_raster(tmp_path / "b.tif", values, origin, **more)
    outcome = shard_command(write_scene(tmp_path, {"hsi": {"files": "*.tif"}}), "--out", tmp_path / "archive")
    assert_refused(outcome.status, outcome.err, words)
    assert not (tmp_path / "archive").exists()


def test_two_scenes_of_one_name_and_a_place_already_taken_are_refused(
    plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    outcome = shard_command(plain_scene, plain_scene, "--out", tmp_path / "archive")
    assert_refused(outcome.status, outcome.err, ("place", "two scenes"))
    assert not (tmp_path / "archive").exists()
    (tmp_path / "archive").mkdir()
    outcome = shard_command(plain_scene, "--out", tmp_path / "archive")
    assert_refused(outcome.status, outcome.err, ("archive", "exists"))
    assert not list((tmp_path / "archive").iterdir())


def test_twin_keys_in_yaml_are_refused(plain_scene: Path, tmp_path: Path, shard_command: ShardCommand) -> None:
    plain_scene.write_text("name: a\nmodalities:\n  hsi: {files: hsi.npy}\n  hsi: {files: lidar.npy}\n")
    outcome = shard_command(plain_scene, "--out", tmp_path / "archive")
    assert_refused(outcome.status, outcome.err, ("scene.yaml", "'hsi'", "twice"))


def test_the_real_mosaic_gives_the_figures_of_its_description(
    shared_data: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    outcome = shard_command(shared_data / "enmap_potsdam" / "scene.yaml", "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    scene = Archive.open(tmp_path / "archive", verify="hash").read_scene("enmap-potsdam")
    assert (scene.record.height, scene.record.width) == (192, 160)
    assert scene.record.transform is not None
    assert scene.record.transform[0] == 30
    assert scene.record.crs_wkt is not None
    assert "32633" in scene.record.crs_wkt
    assert [(m.name, m.bands, m.valid_pixels) for m in scene.record.modalities] == [
        ("vnir", 91, 18 * 32 * 32),
        ("swir", 127, 18 * 32 * 32),
    ]
    wavelengths = scene.record.modality("vnir").wavelengths_nm
    assert wavelengths is not None
    assert (round(wavelengths[0]), round(wavelengths[-1])) == (418, 993)
    assert scene.labels is not None
    assert np.bincount(scene.labels.ravel())[1:].tolist() == [505, 953, 1694, 2070, 91, 359]


def test_the_other_real_scenes_share_one_archive(
    shared_data: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    unlabelled = sorted((shared_data / "unlabelled").glob("*.yaml"))
    outcome = shard_command(shared_data / "s2_dem", *unlabelled, "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    archive = Archive.open(tmp_path / "archive", verify="hash")
    assert [scene.name for scene in archive.manifest.scenes] == ["aviris", "muufl", "s2-dem"]
    s2 = archive.read_scene("s2-dem")
    assert s2.labels is not None
    assert [int((s2.labels == c).sum()) for c in (1, 2, 3, 4, 8)] == [11, 7601, 1777, 358, 198]
    height = s2.values["dem"]
    assert (height.min() // 1, height.max() // 1) == (664, 801)
    assert s2.record.crs_wkt is None
    assert s2.record.transform is None
    aviris = archive.scene("aviris").modality("hsi")
    constant = np.ptp(archive.read_scene("aviris").values["hsi"], axis=(0, 1)) == 0
    assert aviris.constant_bands == tuple(np.flatnonzero(constant) + 1) != ()
    assert np.array_equal(np.array(aviris.std) == 1, constant)
    assert "band 1, 2, 97" in outcome.err
