"""Cubes nested in files: MATLAB structs, groups of NetCDF and HDF5, axes of many names."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from small_scenes import ShardCommand, pixels, write_scene

from shards.open_scene import open_scene

ROWS, COLS = slice(2, 7), slice(1, 5)


def write_struct(path: Path, version: str, values: np.ndarray, ids: np.ndarray, centres: np.ndarray) -> None:
    """A struct `scene` with the cube, a text, and two structs with labels and wavelengths."""
    if version == "5":
        fields = {"Data": values, "name": "place", "truth": {"ids": ids}, "info": {"wavelength": centres}}
        scipy.io.savemat(path, {"scene": fields, "note": "text", "steps": np.arange(3.0)})
        return
    with h5py.File(path, "w", userblock_size=512) as file:  # as MATLAB writes it: axes in reverse, a struct a group
        file["scene/Data"], file["scene/truth/ids"] = values.T, ids.T
        file["scene/info/wavelength"] = centres[None].T
        file["scene/name"] = np.array([[112], [97]], np.uint16)
        file["scene/name"].attrs["MATLAB_class"] = np.bytes_("char")
        file["#refs#/a"] = np.zeros((2, 2))


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_fields_of_matlab_structs_are_named_with_dots(version: str, tmp_path: Path) -> None:
    values, ids = pixels(8, 6, 3, "int16"), np.zeros((8, 6), np.int16)
    ids[3, 4], ids[4, 1] = 1, 2
    write_struct(tmp_path / "s.mat", version, values, ids, np.array([0.4, 0.5, 0.6]))
    wavelengths = {"files": "s.mat", "variable": "scene.info.wavelength", "units": "um"}
    cube = {"files": "s.mat", "variable": "scene.Data", "wavelengths": wavelengths}
    labels = {"files": "s.mat", "variable": "scene.truth.ids", "classes": {1: "a", 2: "b"}}
    scene = open_scene(str(write_scene(tmp_path, {"hsi": cube}, labels)))
    np.testing.assert_array_equal(scene.read("hsi", ROWS, COLS)[0], values[ROWS, COLS])
    np.testing.assert_array_equal(scene.read_labels(ROWS, COLS), ids[ROWS, COLS])
    assert scene.modalities[0].wavelengths_nm == pytest.approx((400, 500, 600))


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("variable", ["scene", "scene.data", "scene.name", "other", None])
def test_a_wrong_field_of_a_struct_is_refused_with_those_it_holds(
    version: str, variable: str | None, tmp_path: Path, shard_command: ShardCommand
) -> None:
    write_struct(tmp_path / "s.mat", version, pixels(8, 6, 3), np.ones((8, 6)), np.arange(3.0))
    cube = {"files": "s.mat"} | ({} if variable is None else {"variable": variable})
    outcome = shard_command(write_scene(tmp_path, {"hsi": cube}), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "scene.Data, scene." in outcome.err
    assert "#refs#" not in outcome.err


def test_shared_case_of_a_struct(shared_case: Callable[[str], Path]) -> None:
    folder = shared_case("14-mat-struct")
    stored = scipy.io.loadmat(folder / "muufl.mat", simplify_cells=True)["hsi"]
    scene = open_scene(str(folder))
    rows, cols = slice(0, scene.height), slice(0, scene.width)
    np.testing.assert_array_equal(scene.read("hsi", rows, cols)[0], stored["Data"])
    np.testing.assert_array_equal(scene.read_labels(rows, cols), stored["sceneLabels"]["labels"])
