"""Cubes nested in files: MATLAB structs, groups of NetCDF and HDF5, axes of many names."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import xarray
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


def band_file(path: Path, names: list[str], values: np.ndarray, dims: tuple[str, ...] = ("y", "x")) -> None:
    """A NetCDF file with a variable a band, quality flags, and the wavelength of each band in its attributes."""
    lead = (1,) * (len(dims) - 2)
    arrays = {
        name: (
            dims,
            values[..., place].reshape(*lead, *values.shape[:2]),
            {"wavelength": 0.4 + place / 10, "wavelength_unit": "um"},
        )
        for place, name in enumerate(names)
    }
    flags = (("y", "x"), np.zeros(values.shape[:2], np.uint8), {"flag_values": np.array([0, 1], np.uint8)})
    xarray.Dataset({**arrays, "quality": flags} if dims == ("y", "x") else arrays).to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize("dims", [("y", "x"), ("time", "y", "x")])
def test_a_variable_a_band_is_stacked_in_the_order_of_the_numbers(dims: tuple[str, ...], tmp_path: Path) -> None:
    values = pixels(8, 6, 3, "int16")
    band_file(tmp_path / "s.nc", ["B2", "B10", "B1"], values, dims)
    scene = open_scene(str(write_scene(tmp_path, {"ms": {"files": "s.nc"}})))
    (modality,) = scene.modalities
    assert modality.band_names == ("B1", "B2", "B10")
    assert modality.wavelengths_nm == pytest.approx((600, 400, 500))
    np.testing.assert_array_equal(scene.read("ms", ROWS, COLS)[0], values[ROWS, COLS][..., [2, 0, 1]])


@pytest.mark.parametrize("variable", [["red", "blue"], "red, blue"])
def test_variables_named_are_the_bands_in_their_order(variable: object, tmp_path: Path) -> None:
    values = pixels(8, 6, 3)
    band_file(tmp_path / "s.nc", ["blue", "green", "red"], values)
    scene = open_scene(str(write_scene(tmp_path, {"ms": {"files": "s.nc", "variable": variable}})))
    assert scene.modalities[0].band_names == ("red", "blue")
    np.testing.assert_array_equal(scene.read("ms", ROWS, COLS)[0], values[ROWS, COLS][..., [2, 0]])


def test_variables_of_several_types_must_be_named(tmp_path: Path, shard_command: ShardCommand) -> None:
    arrays = {"red": (("y", "x"), pixels(8, 6, 1)[..., 0]), "ids": (("y", "x"), pixels(8, 6, 1, "uint8")[..., 0])}
    xarray.Dataset(arrays).to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    outcome = shard_command(write_scene(tmp_path, {"ms": {"files": "s.nc"}}), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "expected `variable`; it holds: " in outcome.err


DIMS = [
    ("time", "band", "y", "x"),
    ("band", "time", "lat", "lon"),
    ("rows", "columns", "bands", "time"),
    ("number_of_lines", "band", "pixels_per_line"),
    ("downtrack", "crosstrack", "bands"),
]


@pytest.mark.parametrize("dims", DIMS)
def test_axes_of_many_names_and_a_single_time_are_read(dims: tuple[str, ...], tmp_path: Path) -> None:
    values = pixels(8, 6, 3)

    order = {"y": 0, "lat": 0, "rows": 0, "number_of_lines": 0, "downtrack": 0}
    order |= {"x": 1, "lon": 1, "columns": 1, "pixels_per_line": 1, "crosstrack": 1, "band": 2, "bands": 2}
    stored = np.transpose(values, [order[name] for name in dims if name != "time"])
    if "time" in dims:
        stored = np.expand_dims(stored, dims.index("time"))
    (axis,) = (name for name in dims if name.startswith("band"))
    centres = ((axis,), np.array([0.4, 0.5, 0.6]), {"units": "um"})
    xarray.Dataset({"rad": (dims, stored), "wavelengths": centres}).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    scene = open_scene(str(write_scene(tmp_path, {"hsi": {"files": "c.nc", "variable": "rad"}})))
    np.testing.assert_array_equal(scene.read("hsi", ROWS, COLS)[0], values[ROWS, COLS])
    assert scene.modalities[0].wavelengths_nm == pytest.approx((400, 500, 600))


def test_two_times_are_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    dims = ("time", "band", "y", "x")
    xarray.Dataset({"rad": (dims, np.zeros((2, 3, 4, 5)))}).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    cube = {"files": "c.nc", "variable": "rad"}
    outcome = shard_command(write_scene(tmp_path, {"hsi": cube}), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "rad" in outcome.err


def test_a_variable_in_a_group_is_named_by_its_path(tmp_path: Path) -> None:
    values = pixels(8, 6, 3)
    cube = xarray.Dataset({"rad": (("y", "x", "band"), values)})
    cube.to_netcdf(tmp_path / "c.nc", engine="h5netcdf", group="science/grid")
    hsi = {"files": "c.nc", "variable": "science/grid/rad"}
    scene = open_scene(str(write_scene(tmp_path, {"hsi": hsi})))
    np.testing.assert_array_equal(scene.read("hsi", ROWS, COLS)[0], values[ROWS, COLS])


def test_shared_case_of_a_swath(shared_case: Callable[[str], Path]) -> None:
    folder = shared_case("30-latlon-2d")
    scene = open_scene(str(folder))
    with xarray.open_dataset(folder / "swath.nc") as stored:
        np.testing.assert_array_equal(scene.read("hsi", slice(0, 40), slice(0, 48))[0], stored["rad"])
    assert scene.transform is None
