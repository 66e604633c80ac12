"""Label maps in which 0 is a class, and what is unlabelled in any label map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive, Scene

LAND_AND_WATER = {0: "land", 1: "water"}


def read(folder: Path, labels: dict[str, Any], shard_command: ShardCommand) -> Scene:
    """Builds a scene with these labels and reads it back."""
    np.save(folder / "hsi.npy", pixels(6, 5, 2))
    outcome = shard_command(write_scene(folder, {"hsi": {"files": "hsi.npy"}}, labels), "--out", folder / "archive")
    assert outcome.status == 0, outcome.err
    return Archive.open(folder / "archive", verify="hash").read_scene("place")


def flood_map() -> np.ndarray:
    """As Sen1Floods11 has them: 0 land, 1 water, -1 unlabelled."""
    ids = np.zeros((6, 5), np.int16)
    ids[2:4], ids[5, :2] = 1, -1
    return ids


@pytest.mark.parametrize("said_by", ["ignore", "nodata"])
def test_zero_is_a_class_where_it_is_named(said_by: str, tmp_path: Path, shard_command: ShardCommand) -> None:
    ids = flood_map()
    labels: dict[str, Any] = {"files": "gt.tif", "classes": LAND_AND_WATER, "descriptions": {0: "dry ground"}}
    if said_by == "ignore":
        labels["ignore"] = [-1]
    write_raster(tmp_path / "gt.tif", ids[..., None], None, nodata=-1 if said_by == "nodata" else None)
    scene = read(tmp_path, labels, shard_command)
    shift = scene.record.class_id_shift
    assert {number - shift: name for number, name in scene.record.classes.items()} == LAND_AND_WATER
    assert {number - shift: text for number, text in scene.record.descriptions.items()} == {0: "dry ground"}
    np.testing.assert_array_equal(scene.labels == 0, ids == -1)
    np.testing.assert_array_equal(scene.labels[ids >= 0].astype(int) - shift, ids[ids >= 0])
    with xarray.open_zarr(tmp_path / "archive" / "scenes" / "place.zarr") as zarr_scene:
        decoded = zarr_scene["labels"].values
    np.testing.assert_array_equal(np.isnan(decoded), ids == -1)  # decoded by CF rules, to the user's own ids
    np.testing.assert_array_equal(decoded[ids >= 0], ids[ids >= 0])


def test_where_nothing_is_said_every_pixel_of_class_zero_counts(tmp_path: Path, shard_command: ShardCommand) -> None:
    ids = np.abs(flood_map())
    np.save(tmp_path / "gt.npy", ids)
    scene = read(tmp_path, {"files": "gt.npy", "classes": LAND_AND_WATER}, shard_command)
    assert (scene.labels > 0).all()


def test_an_official_split_may_have_a_class_zero(tmp_path: Path, shard_command: ShardCommand) -> None:
    train, test = np.full((6, 5), -1, np.int8), np.full((6, 5), -1, np.int8)
    train[0, :2], test[3:, 3] = 0, 1
    for name, part in (("train", train), ("test", test)):
        np.save(tmp_path / f"{name}.npy", part)
    split = {name: f"{name}.npy" for name in ("train", "test")}
    scene = read(tmp_path, {"classes": LAND_AND_WATER, "ignore": [-1], "split": split}, shard_command)
    assert scene.split is not None
    np.testing.assert_array_equal(scene.split[0], train + 1)
    np.testing.assert_array_equal(scene.labels, np.maximum(train, test) + 1)


def test_without_a_class_zero_ids_are_stored_as_they_are(tmp_path: Path, shard_command: ShardCommand) -> None:
    ids = np.abs(flood_map()) * 7
    np.save(tmp_path / "gt.npy", ids)
    scene = read(tmp_path, {"files": "gt.npy", "classes": {7: "water"}, "ignore": [255]}, shard_command)
    np.testing.assert_array_equal(scene.labels, ids)
    assert "class_id_shift" not in (tmp_path / "archive" / "manifest.json").read_text()


def test_a_scene_with_a_class_zero_is_read_again_from_its_archive(tmp_path: Path, shard_command: ShardCommand) -> None:
    np.save(tmp_path / "gt.npy", flood_map())
    first = read(tmp_path, {"files": "gt.npy", "classes": LAND_AND_WATER, "ignore": [-1]}, shard_command)
    (tmp_path / "again").mkdir()
    again = {"files": str(tmp_path / "archive" / "scenes" / "place.zarr"), "variable": "labels"}
    second = read(tmp_path / "again", {**again, "classes": LAND_AND_WATER}, shard_command)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_a_class_that_the_file_calls_nodata_is_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "gt.tif", np.abs(flood_map())[..., None], None, nodata=0)
    np.save(tmp_path / "hsi.npy", pixels(6, 5, 2))
    labels = {"files": "gt.tif", "classes": LAND_AND_WATER}
    scene_file = write_scene(tmp_path, {"hsi": {"files": "hsi.npy"}}, labels)
    outcome = shard_command(scene_file, "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert all(word in outcome.err for word in ("gt.tif", "class 0", "nodata", "-unsetnodata"))
