"""Products as agencies deliver them, generated small by their specifications: bands, scale, place, quality."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_products import (
    HEIGHT,
    LANDSAT,
    WIDTH,
    write_dlr,
    write_emit,
    write_landsat,
    write_neon,
    write_prisma,
    write_sentinel2,
)
from small_scenes import ShardCommand, write_scene

from shards.archive.archive import Archive
from shards.open_scene import open_scene
from shards.scene.source import SceneSource

AXES = ("easting", "northing")


def read_whole(scene: SceneSource, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """All values and where they are valid, read in one piece and, to see that it is the same, in blocks."""
    values, valid = scene.read(modality, slice(0, scene.height), slice(0, scene.width))
    for rows, cols in ((slice(0, 3), slice(2, 9)), (slice(5, scene.height), slice(0, 4))):
        block, block_valid = scene.read(modality, rows, cols)
        np.testing.assert_array_equal(block_valid, valid[rows, cols])
        np.testing.assert_array_equal(block[block_valid], values[rows, cols][block_valid])
    return values, valid


def repeated(values: np.ndarray, times: int) -> np.ndarray:
    return np.kron(values, np.ones((times, times), values.dtype))


@pytest.mark.parametrize(("offset", "level"), [(-1000, "2A"), (None, "2A"), (-1000, "1C")])
def test_a_sentinel2_folder_is_a_scene(offset: int | None, level: str, tmp_path: Path) -> None:
    counts = write_sentinel2(tmp_path, offset, level)
    (safe,) = tmp_path.iterdir()
    scene = open_scene(str(safe))
    (msi,) = scene.modalities
    assert scene.name == safe.stem
    assert msi.band_names == ("B01", "B02", "B8A", "B12")
    assert msi.wavelengths_nm == (442.7, 492.1, 864.7, 2202.4)
    assert scene.transform == (10, 0, 600000, 0, -10, 5800000)
    values, valid = read_whole(scene, "msi")
    assert valid.all()
    times = {"B01": 6, "B02": 1, "B8A": 2, "B12": 2}
    stored = np.stack([repeated(counts[name], times[name]) for name in times], axis=-1)
    np.testing.assert_allclose(values, (stored.astype(np.float64) + (offset or 0)) / 10000, rtol=1e-6)


def test_sentinel2_pixels_without_data_or_saturated_are_missing_and_clouds_stay(tmp_path: Path) -> None:
    codes = np.full((HEIGHT // 2, WIDTH // 2), 4, np.uint8)
    codes[0, 1], codes[2, 3], codes[4, 5] = 0, 1, 9  # no data, saturated, cloud
    write_sentinel2(tmp_path, -1000, codes=codes)
    (safe,) = tmp_path.iterdir()
    _, valid = read_whole(open_scene(str(safe)), "msi")
    np.testing.assert_array_equal(~valid, repeated(np.isin(codes, (0, 1)), 2))


def test_a_product_stands_for_files_beside_labels(tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = write_sentinel2(tmp_path, -1000)
    (safe,) = tmp_path.iterdir()
    (tmp_path / "points.csv").write_text("row,col,cover\n1,2,wood\n7,9,lake\n")
    s2 = {"files": safe.name, "bands": "2"}
    scene_file = write_scene(tmp_path, {"s2": s2}, {"vectors": "points.csv"})
    assert shard_command(scene_file, "--out", tmp_path / "archive").status == 0
    stored = Archive.open(tmp_path / "archive").read_scene("place")
    np.testing.assert_allclose(stored.values["s2"][..., 0], (counts["B02"].astype(float) - 1000) / 10000, rtol=1e-6)
    assert stored.record.modality("s2").wavelengths_nm == (492.1,)
    assert np.argwhere(stored.labels).tolist() == [[1, 2], [7, 9]]


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
def test_a_landsat_folder_is_a_scene(form: str, tmp_path: Path) -> None:
    counts = write_landsat(tmp_path, form)
    scene = open_scene(str(tmp_path / LANDSAT))
    (optical,) = scene.modalities
    assert optical.band_names == ("B1", "B4", "B7")
    assert optical.wavelengths_nm == (443, 655, 2201)
    values, valid = read_whole(scene, "optical")
    stored = np.stack(list(counts.values()), axis=-1)
    np.testing.assert_allclose(values[valid], (stored * 2.75e-5 - 0.2)[valid], rtol=1e-5, atol=1e-7)
    assert np.argwhere(~valid).tolist() == [[0, 0], [3, 4], [6, 7]]  # fill of a band, fill, saturated; a cloud stays


def test_landsat_level_1_and_older_sensors_have_scales_and_bands_of_their_own(tmp_path: Path) -> None:
    counts = write_landsat(tmp_path, "txt", sensor="TM", level="L1TP")
    scene = open_scene(str(tmp_path / LANDSAT.replace("L2SP", "L1TP")))
    assert scene.modalities[0].wavelengths_nm == (485, 830, 2215)
    values, valid = read_whole(scene, "optical")
    np.testing.assert_allclose(values[valid], (np.stack(list(counts.values()), axis=-1) * 2e-5 - 0.1)[valid], rtol=1e-5)


@pytest.mark.parametrize("sensor", ["enmap", "desis"])
def test_an_enmap_or_desis_folder_is_a_scene(sensor: str, tmp_path: Path) -> None:
    counts = write_dlr(tmp_path, sensor)
    (folder,) = tmp_path.iterdir()
    scene = open_scene(str(folder))
    (hsi,) = scene.modalities
    assert hsi.wavelengths_nm == (418.2, 423.9, 1100.5, 2445.1)
    assert hsi.fwhm_nm == (6.9, 6.8, 10.1, 8.2)
    values, valid = read_whole(scene, "hsi")
    np.testing.assert_allclose(values[valid], (counts * 1e-4 + (0 if sensor == "enmap" else 0.5))[valid], rtol=1e-6)
    assert np.argwhere(~valid).tolist() == ([[2, 3], [5, 6]] if sensor == "enmap" else [[2, 3]])


def test_a_prisma_file_is_a_scene_of_two_spectrometers(tmp_path: Path) -> None:
    place = {"Epsg_Code": 32633, "Product_ULcorner_easting": 600015.0, "Product_ULcorner_northing": 5799985.0}
    place |= {
        "Product_LRcorner_easting": 600015.0 + 30 * (WIDTH - 1),
        "Product_LRcorner_northing": 5799985.0 - 30 * (HEIGHT - 1),
    }
    scales = {"L2ScaleVnirMin": 0.01, "L2ScaleVnirMax": 1.2, "L2ScaleSwirMin": 0.0, "L2ScaleSwirMax": 0.9}
    cubes = write_prisma(tmp_path / "PRS_L2D_STD_20201107.he5", **place, **scales)
    for path in (tmp_path / "PRS_L2D_STD_20201107.he5", tmp_path):
        scene = open_scene(str(path))
        assert [modality.name for modality in scene.modalities] == ["vnir", "swir"]
        assert scene.modalities[0].wavelengths_nm == pytest.approx((972.6, 700.1, 402.4))
        assert scene.modalities[0].fwhm_nm == (12, 11, 10)
        assert scene.transform == (30, 0, 600000, 0, -30, 5800000)
        for name, lowest, highest in (("vnir", 0.01, 1.2), ("swir", 0.0, 0.9)):
            values, valid = read_whole(scene, name)
            assert np.argwhere(~valid).tolist() == [[4, 5]]
            expected = lowest + cubes[name][..., 1:] * ((highest - lowest) / 65535)
            np.testing.assert_allclose(values[valid], expected[valid], rtol=1e-6)


def test_a_prisma_cube_is_chosen_by_its_path_or_name(tmp_path: Path, shard_command: ShardCommand) -> None:
    cubes = write_prisma(tmp_path / "PRS_L1.he5", level="L1", ScaleFactor_Vnir=100.0, Offset_Vnir=0.5)
    for variable in ("HDFEOS/SWATHS/PRS_L1_HCO/Data Fields/VNIR_Cube", "VNIR_Cube", "vnir"):
        cube = {"files": "PRS_L1.he5", "variable": variable}
        values, valid = read_whole(open_scene(str(write_scene(tmp_path, {"hsi": cube}))), "hsi")
        np.testing.assert_allclose(values[valid], (cubes["vnir"][..., 1:] / 100 - 0.5)[valid], rtol=1e-5, atol=1e-7)
    outcome = shard_command(write_scene(tmp_path, {"hsi": {"files": "PRS_L1.he5"}}), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "expected `variable`; it holds: vnir, swir" in outcome.err


def test_a_band_that_was_not_delivered_may_be_asked_for(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_prisma(tmp_path / "PRS_L2D.he5")
    vnir = {"files": "PRS_L2D.he5", "variable": "vnir", "bands": "1,2"}
    outcome = shard_command(write_scene(tmp_path, {"vnir": vnir}), "--out", tmp_path / "archive")
    assert outcome.status == 0
    assert Archive.open(tmp_path / "archive").scene("place").modalities[0].bad_bands == (1,)


def test_a_neon_file_is_a_scene_of_reflectance(tmp_path: Path) -> None:
    counts = write_neon(tmp_path / "NEON_D01_HARV_DP3_725000_4707000_reflectance.h5")
    for path in (tmp_path / "NEON_D01_HARV_DP3_725000_4707000_reflectance.h5", tmp_path):
        scene = open_scene(str(path))
        (modality,) = scene.modalities
        assert modality.name == "reflectance"
        assert modality.wavelengths_nm == (383.6, 700.1, 2512.2)  # without the one in water vapour
        assert modality.fwhm_nm == (5.5, 5.6, 5.8)
        assert scene.transform == (1, 0, 725000, 0, -1, 4707000)
        assert "18N" in str(scene.crs_wkt)
        values, valid = read_whole(scene, "reflectance")
        assert np.argwhere(~valid).tolist() == [[3, 4]]
        np.testing.assert_allclose(values[valid], (counts[..., [0, 1, 3]] / 10000)[valid], rtol=1e-6)


def test_a_neon_file_that_places_no_pixels_is_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_neon(tmp_path / "a.h5", **{"EPSG Code": "none"})
    outcome = shard_command(tmp_path / "a.h5", "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "a.h5" in outcome.err
    assert "EPSG Code 'none'" in outcome.err


def test_an_emit_file_is_a_scene_on_the_grid_of_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, rows, cols = write_emit(tmp_path / "EMIT_L2A_RFL_001.nc")
    monkeypatch.setattr("shards.scene.products.emit.BANDS_AT_ONCE", 3)
    monkeypatch.setattr("shards.scene.products.emit.COLUMNS_AT_ONCE", 7)
    scene = open_scene(str(tmp_path / "EMIT_L2A_RFL_001.nc"))
    (modality,) = scene.modalities
    assert modality.wavelengths_nm == (381, 500, 760, 2493)  # the bad band is left out
    assert modality.fwhm_nm == pytest.approx((8.4,) * 4)
    assert scene.transform == (5e-4, 0, 13, 0, -5e-4, 52.4)
    assert scene.crs_wkt is not None
    assert "WGS 84" in scene.crs_wkt
    values, valid = read_whole(scene, "reflectance")
    np.testing.assert_array_equal(valid, (rows >= 0) & (cube[rows, cols, 0] > -9999))
    np.testing.assert_array_equal(values[valid], cube[rows, cols][valid][:, [0, 1, 2, 4]])


def test_an_emit_file_without_a_table_is_read_in_the_sensors_geometry(tmp_path: Path) -> None:
    cube, _, _ = write_emit(tmp_path / "EMIT_L2A_RFL_001.nc", table=False)
    hsi = {"files": "EMIT_L2A_RFL_001.nc", "variable": "reflectance", "bands": "4,1"}
    scene = open_scene(str(write_scene(tmp_path, {"hsi": hsi})))
    assert scene.transform is None
    assert scene.modalities[0].bad_bands == (1,)  # asked for by name, it stays
    values, valid = read_whole(scene, "hsi")
    assert np.argwhere(~valid).tolist() == [[3, 4]]
    np.testing.assert_array_equal(values[valid], cube[valid][:, [3, 0]])


def test_broken_products_are_refused_in_one_line(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_sentinel2(tmp_path / "s2", -1000)
    (safe,) = (tmp_path / "s2").iterdir()
    for path in safe.rglob("*.jp2"):
        path.unlink()
    write_landsat(tmp_path / "l9", "txt")
    (tmp_path / "l9" / LANDSAT / f"{LANDSAT}_SR_B4.TIF").unlink()
    write_dlr(tmp_path / "enmap", "enmap")
    (enmap,) = (tmp_path / "enmap").iterdir()
    next(enmap.glob("*METADATA.XML")).write_text("<level_X><bandCharacterisation/></level_X>")
    write_dlr(tmp_path / "desis", "desis")
    (desis,) = (tmp_path / "desis").iterdir()
    next(desis.glob("*METADATA.xml")).write_text("<level_X><band")
    (tmp_path / "short.he5").write_bytes(b"no file of HDF5")
    write_prisma(tmp_path / "lists.he5", List_Cw_Vnir=np.array([1.0, 2.0]))
    write_prisma(tmp_path / "centres.he5", List_Cw_Vnir=np.array([np.nan, 972.6, 700.1, 402.4]))
    write_prisma(
        tmp_path / "code.he5", Epsg_Code=np.nan,
        **dict.fromkeys([f"Product_{corner}_{axis}" for corner in ("ULcorner", "LRcorner") for axis in AXES], 5.0),
    )  # fmt: skip
    write_emit(tmp_path / "turned.nc")
    with h5py.File(tmp_path / "turned.nc", "r+") as file:
        file.attrs["geotransform"] = np.zeros(3)
    write_emit(tmp_path / "flat.nc")
    with h5py.File(tmp_path / "flat.nc", "r+") as file:
        file.attrs["geotransform"] = np.array([13.0, 0, 0, 52.4, 0, -5e-4])
    write_landsat(tmp_path / "l8", "txt")
    (mtl,) = (tmp_path / "l8" / LANDSAT).glob("*_MTL.txt")
    mtl.write_text(mtl.read_text().replace('"2.75e-05"', '"many"'))
    with h5py.File(tmp_path / "none.he5", "w") as file:
        file["other"] = np.zeros((3, 3, 3))
    (tmp_path / "empty").mkdir()
    for path, words in (
        (safe, ("MTD_MSIL2A.xml", "no band such as")),
        (tmp_path / "l9" / LANDSAT, ("SR_B4.TIF", "no such file", "MTL.txt")),
        (enmap, ("METADATA.XML", "bandCharacterisation")),
        (desis, ("METADATA.xml", "XML")),
        (tmp_path / "short.he5", ("short.he5", "cannot be read as HDF5")),
        (tmp_path / "lists.he5", ("lists.he5", "List_Cw_Vnir", "2 values, expected 4")),
        (tmp_path / "none.he5", ("none.he5", "VNIR_Cube")),
        (tmp_path / "centres.he5", ("centres.he5", "List_Cw_Vnir", "expected finite numbers")),
        (tmp_path / "code.he5", ("code.he5", "Epsg_Code: nan")),
        (tmp_path / "turned.nc", ("turned.nc", "geotransform: 3 values, expected 6")),
        (tmp_path / "flat.nc", ("flat.nc", "places no pixels")),
        (tmp_path / "l8" / LANDSAT, ("_MTL.txt", "REFLECTANCE_MULT_BAND_1 'many'", "expected numbers")),
        (tmp_path / "empty", ("holds no scene.yaml", "Sentinel-2 SAFE")),
    ):
        outcome = shard_command(path, "--out", tmp_path / "archive")
        assert outcome.status == 2, outcome
        assert all(word in outcome.err for word in words), outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
        assert not (tmp_path / "archive").exists()


def test_shared_cases_of_products(shared_case: Callable[[str], Path]) -> None:
    folder = shared_case("15-emit")
    with h5py.File(folder / "EMIT_L2A_RFL.nc", "r") as file:
        cube = np.asarray(file["reflectance"])
    scene = open_scene(str(folder))
    values, valid = read_whole(scene, "hsi")
    expected = np.full((42, 50, 7), -9999, np.float32)
    expected[1:-1, 1:-1] = cube[..., :7]
    np.testing.assert_array_equal(valid, expected[..., 0] != -9999)
    np.testing.assert_array_equal(values[valid], expected[valid])
    folder = shared_case("16-prisma")
    with h5py.File(folder / "PRS_L2D.he5", "r") as file:
        stored = np.asarray(file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"])
        centres = np.asarray(file.attrs["List_Cw_Vnir"])
    scene = open_scene(str(folder))
    np.testing.assert_array_equal(read_whole(scene, "vnir")[0], stored.transpose(0, 2, 1))
    assert scene.modalities[0].wavelengths_nm == pytest.approx(centres)
