"""What marks a pixel or a whole band as missing, in every way that files say it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from small_scenes import Outcome, ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive, Scene


def read(folder: Path, modality: dict[str, Any], shard_command: ShardCommand) -> tuple[Scene, Outcome]:
    """Builds a scene of one modality and reads it back."""
    outcome = shard_command(write_scene(folder, {"hsi": modality}), "--out", folder / "archive")
    assert outcome.status == 0, outcome.err
    return Archive.open(folder / "archive").read_scene("place"), outcome


@pytest.mark.parametrize("given", [{}, {"nodata": -9}], ids=["from the file", "given"])
def test_nan_as_nodata_of_several_bands(given: dict[str, Any], tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 5, 3)
    values[1, 1], values[2, 2, 1], values[4, 4] = np.nan, np.nan, -9
    write_raster(tmp_path / "a.tif", values, nodata=np.nan)
    scene, _ = read(tmp_path, {"files": "a.tif", **given}, shard_command)
    missing = [[1, 1], [2, 2], *([[4, 4]] if given else [])]
    assert np.argwhere(~scene.valid["hsi"]).tolist() == missing


@pytest.mark.parametrize("value", ["nan", ".inf", "1e99", "0.5"])
def test_a_nodata_value_that_integers_cannot_hold_marks_nothing(
    value: str, tmp_path: Path, shard_command: ShardCommand
) -> None:
    write_raster(tmp_path / "a.tif", pixels(6, 5, 3, "int16"))
    scene, _ = read(tmp_path, {"files": "a.tif", "nodata": float(value.strip("."))}, shard_command)
    assert scene.valid["hsi"].all()


@pytest.mark.parametrize(
    ("dtype", "stored", "written"),
    [
        ("float32", -3.4028234663852886e38, -3.40282306074e38),
        ("float32", -3.4028234663852886e38, -3.40282e38),
        ("float32", -3.4028234663852886e38, -1.7976931348623157e308),
        ("float64", float(np.float32(-9999.9)), -9999.9),
        ("float64", -3.40282306074e38, -3.4028234663852886e38),
        ("float32", 1e20, 1.00000002004e20),
    ],
)
def test_a_nodata_value_with_other_last_digits_is_one(
    dtype: str, stored: float, written: float, tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(6, 5, 2, dtype)
    values[3, 2] = stored
    np.save(tmp_path / "a.npy", values)
    scene, _ = read(tmp_path, {"files": "a.npy", "nodata": written}, shard_command)
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[3, 2]]


def test_neighbours_of_a_nodata_value_stay_valid(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 5, 1)
    values[0, :4, 0] = 0, 1e-30, -9999, -9998.9
    np.save(tmp_path / "a.npy", values)
    for nodata, column in ((0, 0), (-9999, 2)):
        scene, _ = read(tmp_path / str(column), {"files": str(tmp_path / "a.npy"), "nodata": nodata}, shard_command)
        assert np.argwhere(~scene.valid["hsi"]).tolist() == [[0, column]]


def test_bands_with_nodata_values_of_their_own(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 5, 2, "int16")
    values[1, 1, 0], values[2, 2, 1], values[3, 3, 0] = -1, -2, -2
    for band, nodata in enumerate((-1, -2)):
        write_raster(tmp_path / f"{band}.tif", values[..., [band]], nodata=nodata)
    vrt = "".join(
        f'<VRTRasterBand dataType="Int16" band="{band + 1}"><NoDataValue>{-band - 1}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{band}.tif</SourceFilename></SimpleSource></VRTRasterBand>'
        for band in range(2)
    )
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="5" rasterYSize="6">{vrt}</VRTDataset>')
    scene, _ = read(tmp_path, {"files": "a.vrt"}, shard_command)
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[1, 1], [2, 2]]
    np.testing.assert_array_equal(scene.values["hsi"][3:], values[3:])


@pytest.mark.parametrize("internal", [True, False], ids=["in the file", ".msk beside it"])
def test_masks_of_the_whole_file(internal: bool, tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 5, 3, "uint16")
    write_raster(tmp_path / "a.tif", values)
    mask = np.full((6, 5), 255, np.uint8)
    mask[:2], mask[4, 4] = 0, 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() != internal
    scene, _ = read(tmp_path, {"files": "a.tif"}, shard_command)
    np.testing.assert_array_equal(scene.valid["hsi"], mask > 0)
    np.testing.assert_array_equal(scene.values["hsi"][mask > 0], values[mask > 0])


def write_alpha(path: Path, values: np.ndarray, alpha: int) -> None:
    """Writes a raster, one band of it (from 1) marked as alpha."""
    write_raster(path, values)
    kinds = [ColorInterp.undefined] * values.shape[2]
    kinds[alpha - 1] = ColorInterp.alpha
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = kinds


@pytest.mark.parametrize("opaque", [1, 255, 65535])
@pytest.mark.parametrize("alpha", [1, 5])
def test_an_alpha_band_is_the_mask_of_the_others(
    opaque: int, alpha: int, tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(6, 10, 5, "uint16")
    values[..., alpha - 1] = opaque
    values[:, :3] = 0
    write_alpha(tmp_path / "a.tif", values, alpha)
    scene, outcome = read(tmp_path, {"files": "a.tif", "wavelengths": [450, 550, 650, 850]}, shard_command)
    others = [band for band in range(5) if band != alpha - 1]
    assert f"band {alpha} is an alpha band" in outcome.err
    assert not scene.valid["hsi"][:, :3].any()
    assert scene.valid["hsi"][:, 3:].all()
    np.testing.assert_array_equal(scene.values["hsi"][:, 3:], values[:, 3:, others])


def test_four_bands_of_bytes_keep_their_fourth(tmp_path: Path, shard_command: ShardCommand) -> None:
    """GDAL marks the near infrared of such files as alpha unless it is told otherwise."""
    values = pixels(20, 20, 4, "uint8")
    path = write_raster(tmp_path / "a.tif", values)
    with rasterio.open(path) as raster:
        assert raster.colorinterp[3] == ColorInterp.alpha
    scene, outcome = read(tmp_path, {"files": "a.tif"}, shard_command)
    np.testing.assert_array_equal(scene.values["hsi"], values)
    assert scene.valid["hsi"].all()
    assert "band 4 is marked as alpha but holds data" in outcome.err


def test_an_alpha_band_that_is_asked_for_is_data(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 10, 3, "uint16")
    values[..., 2] = np.where(np.arange(10) < 3, 0, 255)
    write_alpha(tmp_path / "a.tif", values, 3)
    scene, _ = read(tmp_path, {"files": "a.tif", "bands": "1-3"}, shard_command)
    np.testing.assert_array_equal(scene.values["hsi"], values)
    assert scene.valid["hsi"].all()


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_bands_without_a_valid_pixel_are_left_out_by_name(
    kind: str, tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(40, 6, 8, "int16")
    values[..., [2, 4, 5]] = -32768
    values[:19, :, 7], values[21:, :, 7] = -32768, -32768  # valid in few rows alone
    np.save(tmp_path / "a.npy", values)
    write_raster(tmp_path / "a.tif", values, nodata=-32768)
    modality = {"files": f"a.{kind}", "nodata": -32768, "wavelengths": list(range(400, 480, 10))}
    scene, outcome = read(tmp_path, modality, shard_command)
    np.testing.assert_array_equal(scene.values["hsi"][19:21], values[19:21][..., [0, 1, 3, 6, 7]])
    assert scene.record.modality("hsi").wavelengths_nm == (400, 410, 430, 460, 470)
    assert "hsi: bands 3, 5-6 without any valid pixel: left out" in outcome.err


def test_bands_are_looked_through_block_by_block(
    tmp_path: Path, shard_command: ShardCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.scene.readers.usable_bands.BLOCK_VALUES", 100)
    values = pixels(40, 6, 3)
    values[1:, :, 0], values[:, :, 1] = np.nan, np.nan
    write_raster(tmp_path / "a.tif", values)
    scene, _ = read(tmp_path, {"files": "a.tif"}, shard_command)
    assert scene.valid["hsi"].sum() == 6
    np.testing.assert_array_equal(scene.values["hsi"][0], values[0][:, [0, 2]])


def test_bad_bands_of_envi_are_left_out_unless_asked_for(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 5, 4, "int16")
    write_raster(tmp_path / "a.img", values, None, driver="ENVI")
    with (tmp_path / "a.hdr").open("a") as header:
        header.write("bbl = {1, 0, 0, 1}\nwavelength units = nm\nwavelength = {400, 500, 600, 700}\n")
    scene, outcome = read(tmp_path / "all", {"files": str(tmp_path / "a.hdr")}, shard_command)
    np.testing.assert_array_equal(scene.values["hsi"], values[..., [0, 3]])
    assert scene.record.modality("hsi").wavelengths_nm == (400, 700)
    assert "bands 2-3 marked as bad" in outcome.err
    scene, _ = read(tmp_path / "asked", {"files": str(tmp_path / "a.hdr"), "bands": "1-3"}, shard_command)
    np.testing.assert_array_equal(scene.values["hsi"], values[..., :3])
    assert scene.record.modality("hsi").bad_bands == (2, 3)
