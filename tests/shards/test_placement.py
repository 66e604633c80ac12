"""Where pixels lie: files that no grid can hold, files without a CRS, and names that look like globs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive


def assert_refused(folder: Path, modality: dict[str, Any], words: tuple[str, ...], command: ShardCommand) -> None:
    """The scene is refused in one line that has these words."""
    outcome = command(write_scene(folder, {"hsi": modality}), "--out", folder / "archive")
    assert outcome.status == 2
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert all(word in line for word in words), line
    assert not (folder / "archive").exists()


def test_files_placed_by_control_points_alone_are_refused_with_the_remedy(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    corners = [(row, col) for row in (0, 6) for col in (0, 5)]
    points = [GroundControlPoint(row=row, col=col, x=13 + col / 99, y=52 - row / 99, z=0) for row, col in corners]
    with rasterio.open(write_raster(tmp_path / "a.tif", pixels(6, 5, 2), None), "r+") as raster:
        raster.gcps = (points, rasterio.CRS.from_epsg(4326))
    words = ("a.tif", "ground control points", "gdalwarp -t_srs EPSG:4326 a.tif a-warped.tif")
    assert_refused(tmp_path, {"files": "a.tif"}, words, shard_command)


def test_files_placed_by_rational_polynomials_alone_are_refused_with_the_remedy(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    one, line = [1.0] + [0.0] * 19, [0.0, 0.0, 1.0] + [0.0] * 17
    with rasterio.open(write_raster(tmp_path / "a.tif", pixels(6, 5, 2), None), "r+") as raster:
        raster.rpcs = RPC(0, 1, 52, 1, one, line, 3, 3, 13, 1, one, line, 2, 3)
    words = ("a.tif", "rational polynomials", "gdalwarp -rpc")
    assert_refused(tmp_path, {"files": "a.tif"}, words, shard_command)


def swath(folder: Path) -> np.ndarray:
    """A cube placed by two-dimensional latitude and longitude; gives its values."""
    values = pixels(6, 5, 2)
    rows, cols = np.mgrid[:6, :5]
    places = {"latitude": (("rows", "columns"), 52 - rows / 99), "longitude": (("rows", "columns"), 13 + cols / 99)}
    xarray.Dataset({"rad": (("rows", "columns", "bands"), values), **places}).to_netcdf(folder / "swath.nc")
    return values


def test_a_swath_is_read_without_a_place_and_says_so(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = swath(tmp_path)
    labels = np.ones((6, 5), np.uint8)
    np.save(tmp_path / "gt.npy", labels)
    modality = {"files": "swath.nc", "variable": "rad"}
    scene_file = write_scene(tmp_path, {"hsi": modality}, {"files": "gt.npy", "classes": {1: "a"}})
    outcome = shard_command(scene_file, "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    assert "two-dimensional latitude and longitude" in outcome.err
    assert "gdalwarp -geoloc" in outcome.err
    scene = Archive.open(tmp_path / "archive").read_scene("place")
    np.testing.assert_array_equal(scene.values["hsi"], values)
    assert (scene.record.crs_wkt, scene.record.transform) == (None, None)


def test_a_swath_beside_files_on_a_grid_is_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    swath(tmp_path)
    write_raster(tmp_path / "dem.tif", pixels(6, 5, 1))
    for order in (("swath", "dem"), ("dem", "swath")):
        known = {"swath": {"files": "swath.nc", "variable": "rad"}, "dem": {"files": "dem.tif"}}
        scene_file = write_scene(tmp_path, {name: known[name] for name in order})
        outcome = shard_command(scene_file, "--out", tmp_path / "archive")
        assert outcome.status == 2
        assert all(word in outcome.err for word in ("swath.nc", "two-dimensional", "gdalwarp -geoloc"))


def cube_without_crs(path: Path, values: np.ndarray) -> None:
    """A NetCDF cube whose coordinates are the centres of the pixels that `write_raster` gives, without a CRS."""
    height, width, _ = values.shape
    coordinates = {"y": 900 - 10 * (np.arange(height) + 0.5), "x": 500 + 10 * (np.arange(width) + 0.5)}
    xarray.Dataset({"refl": (("y", "x", "band"), values)}, coords=coordinates).to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize("where", ["modality", "scene"])
def test_a_file_without_crs_takes_the_one_given(where: str, tmp_path: Path, shard_command: ShardCommand) -> None:
    values, ids = pixels(6, 5, 2), pixels(6, 5, 1, "uint8") % 2 + 1
    cube_without_crs(tmp_path / "a.nc", values)
    write_raster(tmp_path / "gt.tif", ids)
    labels = {"files": "gt.tif", "classes": {1: "a", 2: "b"}}
    bare = shard_command(write_scene(tmp_path, {"hsi": {"files": "a.nc"}}, labels), "--out", tmp_path / "archive")
    assert bare.status == 2
    assert all(word in bare.err for word in ("a.nc", "carries no CRS", "`crs: EPSG:32633`"))
    modality = {"files": "a.nc", **({"crs": "EPSG:32633"} if where == "modality" else {})}
    scene_file = write_scene(tmp_path, {"hsi": modality}, labels)
    if where == "scene":
        scene_file.write_text(scene_file.read_text() + "crs: EPSG:32633\n")
    outcome = shard_command(scene_file, "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    scene = Archive.open(tmp_path / "archive").read_scene("place")
    assert rasterio.CRS.from_wkt(scene.record.crs_wkt).to_epsg() == 32633
    assert scene.record.transform == pytest.approx((10, 0, 500, 0, -10, 900))
    np.testing.assert_array_equal(scene.values["hsi"], values)
    np.testing.assert_array_equal(scene.labels, ids[..., 0])


@pytest.mark.parametrize("where", ["modality", "scene"])
def test_a_crs_that_contradicts_the_file_is_refused(where: str, tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "a.tif", pixels(6, 5, 2))
    if where == "scene":
        scene_file = write_scene(tmp_path, {"hsi": {"files": "a.tif"}})
        scene_file.write_text(scene_file.read_text() + "crs: EPSG:4326\n")
        outcome = shard_command(scene_file, "--out", tmp_path / "archive")
        assert outcome.status == 2
        assert all(word in outcome.err for word in ("scene.yaml", "crs", "another one"))
    else:
        modality = {"files": "a.tif", "crs": "EPSG:4326"}
        assert_refused(tmp_path, modality, ("a.tif", "modalities.hsi.crs", "another one"), shard_command)


def test_pixels_that_are_points_lie_where_the_same_areas_lie(tmp_path: Path, shard_command: ShardCommand) -> None:
    area, point = pixels(6, 5, 2), pixels(6, 5, 1, seed=1)
    write_raster(tmp_path / "area.tif", area)
    write_raster(tmp_path / "point.tif", point)
    with rasterio.open(tmp_path / "point.tif", "r+") as raster:
        raster.update_tags(AREA_OR_POINT="Point")
    cube_without_crs(tmp_path / "cube.nc", area)
    write_raster(tmp_path / "envi.img", area, driver="ENVI")
    modalities = {name: {"files": f"{name}.tif"} for name in ("area", "point")}
    modalities |= {"cube": {"files": "cube.nc", "crs": "EPSG:32633"}, "envi": {"files": "envi.hdr"}}
    outcome = shard_command(write_scene(tmp_path, modalities), "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    record = Archive.open(tmp_path / "archive").scene("place")
    assert record.transform == pytest.approx((10, 0, 500, 0, -10, 900))


def test_half_a_pixel_off_is_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "a.tif", pixels(6, 5, 2))
    write_raster(tmp_path / "b.tif", pixels(6, 5, 2), transform=Affine(10, 0, 505, 0, -10, 895))
    modalities = {name: {"files": f"{name}.tif"} for name in ("a", "b")}
    outcome = shard_command(write_scene(tmp_path, modalities), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "b.tif: modalities.b: another grid" in outcome.err


def test_uneven_coordinates_are_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    rows, cols = np.array([0.0, 1, 2, 3, 5, 8]), np.arange(5.0)
    cube = xarray.DataArray(pixels(6, 5, 1)[..., 0], dims=("y", "x"), coords={"y": rows, "x": cols}, name="r")
    cube.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert_refused(tmp_path, {"files": "a.nc"}, ("a.nc", "'y'", "not evenly spaced"), shard_command)


@pytest.mark.parametrize(
    ("folder", "files", "pattern"),
    [
        ("Potsdam [v2]", "images/a.tif", "images/*.tif"),
        ("what?", "a [1].tif", "a [1].tif"),
        ("plain", "set [v2]/a.tif", "set [v2]/*.tif"),
        ("plain", "x/set [v2]/a.tif", "*/set [v2]/a.tif"),
        ("st*r", "a*.tif", "a*.tif"),
        ("{a,b}", "a.tif", "[a-c].tif"),
    ],
)
def test_names_that_look_like_globs_are_read(
    folder: str, files: str, pattern: str, tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(6, 5, 2, "uint8")
    write_raster(tmp_path / folder / files, values)
    scene_file = write_scene(tmp_path / folder, {"hsi": {"files": pattern}})
    outcome = shard_command(scene_file.parent, "--out", tmp_path / "archive")
    assert outcome.status == 0, outcome.err
    np.testing.assert_array_equal(Archive.open(tmp_path / "archive").read_scene("place").values["hsi"], values)


def test_a_name_that_exists_as_written_wins_over_the_glob(tmp_path: Path, shard_command: ShardCommand) -> None:
    one, two = pixels(6, 5, 1, "uint8"), pixels(6, 5, 1, "uint8", seed=1)
    write_raster(tmp_path / "[ab].tif", one)
    write_raster(tmp_path / "a.tif", two)
    scene_file = write_scene(tmp_path, {"hsi": {"files": "[ab].tif"}})
    assert shard_command(scene_file, "--out", tmp_path / "archive").status == 0
    np.testing.assert_array_equal(Archive.open(tmp_path / "archive").read_scene("place").values["hsi"], one)
