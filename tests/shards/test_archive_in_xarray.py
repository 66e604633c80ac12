"""An archive's scenes as xarray and rioxarray open them, without this project: places, bands, missing pixels, files."""

from pathlib import Path

import numpy as np
import pytest
import rasterio.warp
import rioxarray  # noqa: F401  adds .rio to xarray's objects
import xarray
from affine import Affine
from small_scenes import pixels, write_raster, write_scene

from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.scene.file_scene import open_scene_file

PLACES = {
    "north up": Affine(10, 0, 500, 0, -10, 900),
    "south up": Affine(10, 0, 500, 0, 10, 900),
    "rotated": Affine(8, -6, 500, -6, -8, 900),
}
VALUES = pixels(20, 30, 3, "int16")
HEIGHTS = pixels(20, 30, 1, "float32", seed=1)


def stored_scene(folder: Path, **profile: object) -> xarray.Dataset:
    """A scene of counts and heights, with one missing pixel each, as `xarray.open_zarr` gives it."""
    values, heights = VALUES.copy(), HEIGHTS.copy()
    values[2, 3], heights[4, 5] = -5, np.nan
    write_raster(folder / "msi.tif", values, nodata=-5, **profile)
    write_raster(folder / "dsm.tif", heights, **profile)
    modalities = {"msi": {"files": "msi.tif", "wavelengths": [560, 665, 842]}, "dsm": {"files": "dsm.tif"}}
    ids = np.tile(np.array([0, 1, 7], np.uint8), (20, 10))
    np.save(folder / "gt.npy", ids)
    labels = {"files": "gt.npy", "ignore": [0], "classes": {1: "bare soil", 7: "water"}}
    source = open_scene_file(write_scene(folder, modalities, labels))
    build_archive([source], folder / "archive", ArchiveSettings(tile_size=16, halo=2))
    return xarray.open_zarr(folder / "archive" / "scenes" / "place.zarr")


@pytest.mark.parametrize("place", PLACES)
def test_a_scene_lies_where_its_files_do(place: str, tmp_path: Path) -> None:
    with stored_scene(tmp_path, transform=PLACES[place]) as scene:
        for name in ("msi", "dsm", "labels"):
            assert scene[name].rio.crs.to_epsg() == 32633
            assert scene[name].rio.transform().almost_equals(PLACES[place])
        assert scene.rio.crs.to_epsg() == 32633
        assert scene["msi"].rio.shape == (20, 30)
        if place != "rotated":  # whose axes are no coordinates
            assert (float(scene.x[11]), float(scene.y[7])) == PLACES[place] @ (11.5, 7.5)


def test_a_scene_without_a_place_claims_none(tmp_path: Path) -> None:
    with stored_scene(tmp_path, crs=None, transform=None) as scene:
        assert scene.rio.crs is None
        assert not {"x", "y", "spatial_ref"} & {*scene.coords}


def test_pixels_are_the_files_own_and_missing_ones_are_nan(tmp_path: Path) -> None:
    with stored_scene(tmp_path) as scene:
        for name, given, missing in (("msi", VALUES, (2, 3)), ("dsm", HEIGHTS, (4, 5))):
            held = scene[name].to_numpy()
            assert np.isnan(held[missing]).all()
            held[missing] = given[missing]
            np.testing.assert_array_equal(held, given)
        classes = dict(zip(scene["labels"].flag_values, scene["labels"].flag_meanings.split(), strict=True))
        assert classes == {1: "bare_soil", 7: "water"}


def test_a_band_is_found_by_its_wavelength(tmp_path: Path) -> None:
    with stored_scene(tmp_path) as scene:
        by_nm = scene["msi"].swap_dims(msi_band="msi_wavelength")
        red = by_nm.sel(msi_wavelength=670, method="nearest")
        np.testing.assert_array_equal(red[0], VALUES[0, :, 1])


def test_a_modality_goes_back_to_a_geotiff_and_onto_another_grid(tmp_path: Path) -> None:
    with stored_scene(tmp_path) as scene:
        bands_first = scene["msi"].transpose("msi_band", "y", "x")
        bands_first.rio.to_raster(tmp_path / "again.tif")
        with rasterio.open(tmp_path / "msi.tif") as file, rasterio.open(tmp_path / "again.tif") as again:
            assert (again.crs, again.transform, again.nodata) == (file.crs, file.transform, file.nodata)
            np.testing.assert_array_equal(again.read(), file.read())
        lonlat = bands_first.rio.reproject("EPSG:4326")
        west, south, east, north = lonlat.rio.bounds()
        assert rasterio.warp.transform_bounds("EPSG:32633", "EPSG:4326", *bands_first.rio.bounds()) == pytest.approx(
            (west, south, east, north), abs=2e-4
        )
