"""Readers: what files of each kind say of their bands, places and missing pixels, and resampling between grids."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  adds .rio to xarray's objects
import xarray
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import calculate_default_transform, reproject
from scipy.sparse import coo_array
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene
from shards.scene.file_scene import open_scene_file
from shards.scene.public_sets import PUBLIC_SETS

WHOLE = ArchiveSettings()


def test_envi_headers_give_wavelengths_widths_bad_bands_and_nodata(tmp_path: Path) -> None:
    values = pixels(6, 5, 3, "int16")
    values[2, 3] = -99
    write_raster(tmp_path / "cube.img", values, None, driver="ENVI", interleave="bil")
    with (tmp_path / "cube.hdr").open("a") as header:
        header.write("wavelength units = Micrometers\nwavelength = {0.45, 0.55, 0.65}\nfwhm = {0.01, 0.02, 0.03}\n")
        header.write("bbl = {1, 0, 1}\ndata ignore value = -99\n")
    scene = open_scene_file(write_scene(tmp_path, {"hsi": {"files": "cube.hdr", "bands": "3,2"}}))
    (modality,) = scene.modalities
    assert modality.wavelengths_nm == pytest.approx((650, 550))
    assert modality.fwhm_nm == pytest.approx((30, 20))
    assert modality.bad_bands == (2,)
    assert modality.nodata == -99
    read, valid = scene.read("hsi", slice(1, 4), slice(2, 5))
    np.testing.assert_array_equal(read[valid], values[1:4, 2:5, [2, 1]][valid])
    assert np.argwhere(~valid).tolist() == [[1, 1]]


def test_geotiff_tags_reach_the_archive_and_its_zarr(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(6, 5, 2))
    with rasterio.open(path, "r+") as raster:
        for band, centre in ((1, 0.4), (2, 2.1)):
            raster.update_tags(band, wavelength=centre, wavelength_units="Micrometers", fwhm=0.01, bbl=band - 1)
    source = open_scene_file(write_scene(tmp_path, {"hsi": {"files": "a.tif", "bands": "1-2"}}))
    record = build_archive([source], tmp_path / "archive", WHOLE).scenes[0].modalities[0]
    assert record.wavelengths_nm == pytest.approx((400, 2100))
    assert record.fwhm_nm == pytest.approx((10, 10))
    assert record.bad_bands == (1,)  # asked for by its number, so that it stays
    with xarray.open_zarr(tmp_path / "archive" / "scenes" / "place.zarr") as scene:
        assert scene["hsi"].dims == ("y", "x", "hsi_band")
        np.testing.assert_allclose(scene["hsi_wavelength"], (400, 2100))
        assert scene["hsi"].attrs["bad_bands"] == [1]


def test_xarray_and_rioxarray_place_the_zarr_scene(tmp_path: Path) -> None:
    values = pixels(6, 5, 2, "int16")
    values[1, 1] = -5
    write_raster(tmp_path / "a.tif", values, nodata=-5)
    source = open_scene_file(write_scene(tmp_path, {"hsi": {"files": "a.tif"}}))
    build_archive([source], tmp_path / "archive", WHOLE)
    with xarray.open_zarr(tmp_path / "archive" / "scenes" / "place.zarr") as scene:
        assert scene.rio.crs.to_epsg() == 32633
        assert tuple(scene["hsi"].rio.transform())[:6] == (10, 0, 500, 0, -10, 900)
        assert np.isnan(scene["hsi"].values[1, 1]).all()  # decoded by CF rules
        assert np.isfinite(scene["hsi"].values).sum() == (6 * 5 - 1) * 2


def cube(values: np.ndarray) -> xarray.Dataset:
    """(row, col, band) values as a dataset with its bands first, in EPSG:32633, pixels of 10 m."""
    height, width, bands = values.shape
    coordinates = {
        "wavelength": ("wavelength", np.linspace(0.4, 0.8, bands), {"units": "um"}),
        "y": 900 - 10 * (np.arange(height) + 0.5),
        "x": 500 + 10 * (np.arange(width) + 0.5),
    }
    array = xarray.DataArray(np.moveaxis(values, -1, 0), dims=("wavelength", "y", "x"), coords=coordinates)
    array.attrs["_FillValue"] = values.dtype.type(-1)
    return xarray.Dataset({"reflectance": array}).rio.write_crs("EPSG:32633")


@pytest.mark.parametrize("kind", ["nc", "zarr2", "zarr3"])
def test_netcdf_and_zarr_are_read_with_their_axes_place_and_wavelengths(kind: str, tmp_path: Path) -> None:
    values = pixels(7, 6, 3, "int16")
    values[3, 2, 1] = -1
    if kind == "nc":
        cube(values).to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    else:
        cube(values).to_zarr(tmp_path / "cube.zarr", zarr_format=int(kind[-1]), consolidated=False)
    file = "cube.nc" if kind == "nc" else "cube.zarr"
    scene = open_scene_file(write_scene(tmp_path, {"hsi": {"files": file, "bands": "2-3"}}))
    assert scene.transform == pytest.approx((10, 0, 500, 0, -10, 900))
    assert scene.crs_wkt is not None
    assert "32633" in scene.crs_wkt
    assert scene.modalities[0].wavelengths_nm == pytest.approx((600, 800))
    read, valid = scene.read("hsi", slice(2, 7), slice(1, 5))
    np.testing.assert_array_equal(read[valid], values[2:7, 1:5, 1:][valid])
    assert np.argwhere(~valid).tolist() == [[1, 1]]


def test_a_scene_of_an_archive_is_itself_a_scene(
    plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    assert shard_command(plain_scene, "--out", tmp_path / "first").status == 0
    zarr_scene = str(tmp_path / "first" / "scenes" / "place.zarr")
    modalities = {name: {"files": zarr_scene, "variable": name} for name in ("hsi", "lidar")}
    labels = {"files": zarr_scene, "variable": "labels", "classes": {1: "grass", 3: "roof"}}
    again = write_scene(tmp_path / "again", modalities, labels)
    assert shard_command(again, "--out", tmp_path / "second").status == 0
    first, second = (Archive.open(tmp_path / out).read_scene("place") for out in ("first", "second"))
    for name in ("hsi", "lidar"):
        np.testing.assert_array_equal(first.values[name], second.values[name])
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variable": "other"}, ("cube.nc", "'other'", "reflectance")),
        ({"files": "broken.nc"}, ("broken.nc", "cannot be read")),
        ({"files": "axes.nc"}, ("axes.nc", "axes", "expected y, x")),
    ],
)
def test_bad_cubes_are_refused(
    changes: dict[str, Any], words: tuple[str, ...], tmp_path: Path, shard_command: ShardCommand
) -> None:
    cube(pixels(7, 6, 3, "int16")).to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    (tmp_path / "broken.nc").write_bytes(b"CDF\x01 and no more")
    xarray.Dataset({"a": (("time", "place"), pixels(4, 4, 1)[..., 0])}).to_netcdf(tmp_path / "axes.nc")
    outcome = shard_command(
        write_scene(tmp_path, {"hsi": {"files": "cube.nc", **changes}}), "--out", tmp_path / "archive"
    )
    assert outcome.status == 2
    assert all(word in outcome.err for word in words)


def fine_and_coarse(folder: Path, crs: str = "EPSG:32633") -> None:
    """A modality of 10 m pixels, 40x36, and a smooth one of 30 m that covers a part of it."""
    write_raster(folder / "fine.tif", pixels(40, 36, 2, "int16"))
    rows, cols = np.mgrid[:14, :10]
    smooth = (np.sin(rows / 3) * 50 + cols * 7 + 100).astype(np.float32)[..., None]
    smooth[6, 6] = -1
    corner = (497.0, 930.0) if crs == "EPSG:32633" else (0.0, 0.0)
    transform = from_origin(*corner, 30, 30)
    if crs != "EPSG:32633":
        transform, *_ = calculate_default_transform("EPSG:32633", crs, 10, 14, 497, 510, 797, 930)
    write_raster(folder / "coarse.tif", smooth, crs=crs, transform=transform, nodata=-1)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:32632"])
@pytest.mark.parametrize("method", ["bilinear", "nearest", "cubic"])
def test_another_resolution_or_crs_is_resampled_when_asked(crs: str, method: str, tmp_path: Path) -> None:
    fine_and_coarse(tmp_path, crs)
    coarse = {"files": "coarse.tif", "resample": method}
    scene = open_scene_file(write_scene(tmp_path, {"hsi": {"files": "fine.tif"}, "dem": coarse}))
    whole, valid = scene.read("dem", slice(0, 40), slice(0, 36))
    assert 0.5 < valid.mean() < 1
    reference = np.full((40, 36), -1, np.float32)
    with rasterio.open(tmp_path / "coarse.tif") as raster:
        place = {"dst_crs": "EPSG:32633", "dst_transform": from_origin(500, 900, 10, 10), "tolerance": 0}
        reproject(rasterio.band(raster, 1), reference, resampling=Resampling[method], dst_nodata=-1, **place)
    np.testing.assert_array_equal(valid, reference != -1)
    np.testing.assert_allclose(whole[..., 0][valid], reference[valid], rtol=1e-4)
    for rows, cols in ((slice(0, 7), slice(3, 20)), (slice(13, 29), slice(0, 36)), (slice(39, 40), slice(35, 36))):
        block, block_valid = scene.read("dem", rows, cols)
        np.testing.assert_array_equal(block_valid, valid[rows, cols])
        np.testing.assert_allclose(block, whole[rows, cols], rtol=1e-6)


def test_a_fine_layer_is_averaged_onto_a_coarse_grid_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(tmp_path / "coarse.tif", pixels(10, 9, 2), transform=from_origin(500, 900, 30, 30))
    fine = pixels(30, 27, 1, seed=3)
    write_raster(tmp_path / "fine.tif", fine)
    modalities = {"hsi": {"files": "coarse.tif"}, "lidar": {"files": "fine.tif", "resample": "average"}}
    scene = open_scene_file(write_scene(tmp_path, modalities))
    expected = fine.reshape(10, 3, 9, 3).mean((1, 3))
    for strip_values in (1 << 20, 100):
        monkeypatch.setattr("shards.scene.readers.resampled.STRIP_VALUES", strip_values)
        read, valid = scene.read("lidar", slice(0, 10), slice(0, 9))
        assert valid.all()
        np.testing.assert_allclose(read[..., 0], expected, rtol=1e-5)


def test_labels_are_resampled_to_the_nearest(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "fine.tif", pixels(6, 6, 2))
    ids = np.array([[1, 2], [3, 0]], np.uint8)[..., None]
    write_raster(tmp_path / "gt.tif", ids, transform=from_origin(500, 900, 30, 30))
    labels = {"files": "gt.tif", "resample": "nearest", "classes": {1: "a", 2: "b", 3: "c"}}
    scene_file = write_scene(tmp_path, {"hsi": {"files": "fine.tif"}}, labels)
    assert shard_command(scene_file, "--out", tmp_path / "archive").status == 0
    np.testing.assert_array_equal(
        Archive.open(tmp_path / "archive").read_scene("place").labels, np.kron(ids[..., 0], np.ones((3, 3)))
    )


def test_another_grid_is_refused_unless_resampling_is_asked_and_possible(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    fine_and_coarse(tmp_path)
    np.save(tmp_path / "bare.npy", pixels(14, 10, 1))
    for dem, words in (
        ({"files": "coarse.tif"}, ("coarse.tif", "modalities.dem", "14x10", "40x36")),
        ({"files": "bare.npy", "resample": "bilinear"}, ("bare.npy", "resample", "no CRS")),
        ({"files": "coarse.tif", "resample": "magic"}, ("modalities.dem.resample", "bilinear")),
    ):
        scene_file = write_scene(tmp_path, {"hsi": {"files": "fine.tif"}, "dem": dem})
        outcome = shard_command(scene_file, "--out", tmp_path / "archive")
        assert outcome.status == 2
        assert all(word in outcome.err for word in words), outcome.err


def test_overlapping_files_of_a_mosaic_take_the_first_that_is_valid(tmp_path: Path) -> None:
    one, two = pixels(8, 8, 2, "int16"), pixels(8, 8, 2, "int16", seed=1)
    one[4:, 4:] = -1
    write_raster(tmp_path / "a.tif", one, nodata=-1)
    write_raster(tmp_path / "b.tif", two, (540.0, 860.0), nodata=-1)
    scene = open_scene_file(write_scene(tmp_path, {"hsi": {"files": "?.tif"}}))
    read, valid = scene.read("hsi", slice(0, 12), slice(0, 12))
    np.testing.assert_array_equal(read[:8, :4], one[:, :4])
    np.testing.assert_array_equal(read[4:, 4:], two)
    assert not valid[:4, 8:].any()


@pytest.mark.parametrize("nodata", [None, 255])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64"])
def test_every_value_of_a_type_survives(dtype: str, nodata: int | None, tmp_path: Path) -> None:
    """Where no value is free to mark missing pixels, the archive takes a wider type."""
    kind = np.dtype(dtype)
    values = pixels(9, 9, 1, dtype)
    if kind.kind in "iu":
        values[:2, 0, 0] = np.iinfo(kind).min, np.iinfo(kind).max
    if nodata is not None:
        values[values == 255] = 254
    write_raster(tmp_path / "a.tif", values, nodata=nodata)
    source = open_scene_file(write_scene(tmp_path, {"hsi": {"files": "a.tif"}}))
    build_archive([source], tmp_path / "archive", ArchiveSettings(tile_size=4, halo=2))
    archive = Archive.open(tmp_path / "archive")
    scene = archive.read_scene("place")
    np.testing.assert_array_equal(scene.values["hsi"], values)
    assert scene.valid["hsi"].all()
    tile = archive.read_tile(scene.record.tiles[0])
    assert tile.valid["hsi"].sum() == 6 * 6  # the halo beyond the scene's corner is missing
    if nodata is not None or dtype == "float64":
        assert scene.record.modality("hsi").dtype == dtype


def fake_package(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for rs-fusion-datasets: its functions and what they give, with small arrays."""
    rng = np.random.default_rng(0)
    hsi, second = rng.random((4, 6, 5)).astype(np.float32), rng.integers(0, 99, (2, 6, 5)).astype(np.float64)
    train, test = np.zeros((6, 5), np.uint8), np.zeros((6, 5), np.uint8)
    train[0, :2], test[3:, 2] = (1, 2), 2
    full = np.where(train, train, test).astype(np.float64)
    info = {"label_name": {1: "Healthy grass", 2: np.str_("Road")}, "wavelength": np.array([400.0, 500, 600, 700])}
    module = types.ModuleType("rs_fusion_datasets")
    sparse = {"train": coo_array(train), "test": coo_array(test), "all": coo_array(full)}
    for known in PUBLIC_SETS.values():
        given = (hsi, second, *(sparse[part] for part in known.maps), info)
        setattr(module, known.fetcher, lambda given=given: given)
    monkeypatch.setitem(sys.modules, "rs_fusion_datasets", module)
    return {"hsi": hsi, "second": second, "train": train, "test": test, "full": full}


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_public_sets_come_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = fake_package(monkeypatch)
    build_archive([open_scene(name)], tmp_path / "archive", WHOLE)
    scene = Archive.open(tmp_path / "archive").read_scene(name)
    known = PUBLIC_SETS[name]
    np.testing.assert_array_equal(scene.values["hsi"], np.moveaxis(given["hsi"], 0, -1))
    np.testing.assert_array_equal(scene.values[known.second], np.moveaxis(given["second"], 0, -1))
    assert scene.values[known.second].dtype == np.float32
    np.testing.assert_array_equal(scene.labels, given["full"])
    assert scene.record.classes == {1: "healthy grass", 2: "road"}
    assert (scene.record.modality("hsi").wavelengths_nm is not None) == known.wavelengths
    assert (scene.split is not None) == ("train" in known.maps)
    if scene.split is not None:
        np.testing.assert_array_equal(scene.split[0], given["train"])
        np.testing.assert_array_equal(scene.split[1], given["test"])


def test_public_sets_have_the_functions_that_are_called() -> None:
    package = pytest.importorskip("rs_fusion_datasets", reason="the extra `public` is not installed")
    assert all(callable(getattr(package, known.fetcher)) for known in PUBLIC_SETS.values())


def test_a_public_set_that_cannot_be_had_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_command: ShardCommand
) -> None:
    monkeypatch.setitem(sys.modules, "rs_fusion_datasets", None)
    outcome = shard_command("trento", "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "diffclip-dist[public]" in outcome.err
    fake_package(monkeypatch)

    def offline() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(sys.modules["rs_fusion_datasets"], "fetch_trento", offline)
    outcome = shard_command("trento", "--out", tmp_path / "archive")
    assert outcome.status == 1
    assert "no route to host" in outcome.err
    assert "Traceback" not in outcome.err
