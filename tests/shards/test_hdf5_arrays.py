"""HDF5 files that are no product: plain arrays with the axes row, column, band."""

from pathlib import Path

import h5py
import numpy as np
from small_scenes import ShardCommand, pixels, write_scene

from shards.archive.archive import Archive


def test_an_array_is_read_with_what_its_attributes_say(tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = pixels(7, 5, 3, "int16")
    counts[2, 3] = -1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images/cube"] = counts
        file["images/cube"].attrs["scale_factor"], file["images/cube"].attrs["_FillValue"] = 0.01, -1
        file["labels"] = np.ones((7, 5), np.uint8)
    modality = {"files": "a.h5", "variable": "images/cube"}
    labels = {"files": "a.h5", "variable": "labels", "classes": {1: "water"}}
    outcome = shard_command(write_scene(tmp_path, {"hsi": modality}, labels), "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    scene = Archive.open(tmp_path / "archive")["place"].read()
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[2, 3]]
    valid = scene.valid["hsi"]
    np.testing.assert_allclose(scene.values["hsi"][valid], (counts * 0.01)[valid], rtol=1e-6)
    assert scene.labels is not None
    assert scene.labels[valid].tolist() == [1] * 34


def test_axes_that_look_like_band_row_and_column_are_told(tmp_path: Path, shard_command: ShardCommand) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"] = np.moveaxis(pixels(9, 8, 3), -1, 0)
    outcome = shard_command(write_scene(tmp_path, {"hsi": {"files": "a.h5"}}), "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    assert "read as 3 rows, 9 columns and 8 bands" in outcome.out + outcome.err


def test_a_file_of_several_arrays_asks_for_one(tmp_path: Path, shard_command: ShardCommand) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["other"] = pixels(7, 5, 3), pixels(7, 5, 3)
    outcome = shard_command(write_scene(tmp_path, {"hsi": {"files": "a.h5"}}), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "a.h5: expected `variable`; it holds: one, other" in outcome.err
