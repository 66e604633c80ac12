"""Bands that lie in a file each: stacked in order, with names, and never taken for a mosaic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive, Scene


def read(folder: Path, modality: dict[str, Any], shard_command: ShardCommand) -> Scene:
    """Builds a scene of one modality and reads it back."""
    outcome = shard_command(write_scene(folder, {"s2": modality}), "--out", folder / "archive")
    assert outcome.status == 0, outcome.err
    return Archive.open(folder / "archive").read_scene("place")


def write_bands(folder: Path, names: list[str]) -> np.ndarray:
    """Writes a file a band; gives their values (row, col, band)."""
    values = pixels(8, 6, len(names), "uint16")
    for band, name in enumerate(names):
        write_raster(folder / f"T33_{name}_10m.tif", values[..., [band]])
    return values


def test_band_files_are_stacked_in_natural_order_with_their_names(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = write_bands(tmp_path, ["B2", "B8A", "B10", "B9"])
    scene = read(tmp_path, {"files": "*_10m.tif", "stack": True}, shard_command)
    np.testing.assert_array_equal(scene.values["s2"], values[..., [0, 1, 3, 2]])
    record = scene.record.modality("s2")
    assert record.band_names == ("B2", "B8A", "B9", "B10")
    assert record.dtype == "uint16"


def test_named_bands_keep_the_order_in_which_they_are_given(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = write_bands(tmp_path, ["B02", "B03", "B04"])
    bands = {"red": "*_B04_*.tif", "blue": "*_B02_*.tif"}
    scene = read(tmp_path, {"bands": bands, "wavelengths": [665, 490]}, shard_command)
    np.testing.assert_array_equal(scene.values["s2"], values[..., [2, 0]])
    assert scene.record.modality("s2").band_names == ("red", "blue")
    assert scene.record.modality("s2").wavelengths_nm == (665, 490)


def test_files_without_band_numbers_are_named_by_what_sets_them_apart(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(5, 5, 2, "uint8")
    write_raster(tmp_path / "flight_red_v1.tif", values[..., [0]])
    write_raster(tmp_path / "flight_green_v1.tif", values[..., [1]])
    scene = read(tmp_path, {"files": "*.tif", "stack": True}, shard_command)
    assert scene.record.modality("s2").band_names == ("green", "red")
    np.testing.assert_array_equal(scene.values["s2"], values[..., ::-1])


@pytest.mark.parametrize(("size", "method"), [(20, None), (60, None), (20, "bilinear")])
def test_coarser_bands_are_resampled_onto_the_finest(
    size: int, method: str | None, tmp_path: Path, shard_command: ShardCommand
) -> None:
    fine, coarse = pixels(12, 12, 1, "uint16"), pixels(120 // size, 120 // size, 1, "uint16", seed=1)
    write_raster(tmp_path / "B02.tif", fine)
    write_raster(tmp_path / "B11.tif", coarse, transform=from_origin(500, 900, size, size))
    modality = {"files": "B*.tif", "stack": True, **({"resample": method} if method else {})}
    scene = read(tmp_path, modality, shard_command)
    np.testing.assert_array_equal(scene.values["s2"][..., 0], fine[..., 0])
    if method is None:
        repeated = np.kron(coarse[..., 0], np.ones((size // 10, size // 10)))
        np.testing.assert_array_equal(scene.values["s2"][..., 1], repeated)
    else:
        middle = scene.values["s2"][1:3, 1:3, 1].mean()
        assert middle == pytest.approx(coarse[:2, :2, 0].mean(), rel=1e-5)


def test_a_coarse_band_that_comes_first_does_not_coarsen_the_others(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    fine, coarse = pixels(12, 12, 1, "uint16"), pixels(2, 2, 1, "uint16", seed=1)
    write_raster(tmp_path / "B02.tif", fine)
    write_raster(tmp_path / "B01.tif", coarse, transform=from_origin(500, 900, 60, 60))
    scene = read(tmp_path, {"files": "B*.tif", "stack": True}, shard_command)
    assert scene.record.modality("s2").band_names == ("B01", "B02")
    np.testing.assert_array_equal(scene.values["s2"][..., 1], fine[..., 0])
    np.testing.assert_array_equal(scene.values["s2"][..., 0], np.kron(coarse[..., 0], np.ones((6, 6))))


def test_a_band_of_several_tiles_is_a_mosaic_in_the_stack(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(4, 8, 2, "uint16")
    for band, name in enumerate(("B02", "B03")):
        write_raster(tmp_path / f"west_{name}.tif", values[:, :4, [band]])
        write_raster(tmp_path / f"east_{name}.tif", values[:, 4:, [band]], (540.0, 900.0))
    scene = read(tmp_path, {"files": "*.tif", "stack": True}, shard_command)
    np.testing.assert_array_equal(scene.values["s2"], values)


def test_a_hole_in_one_band_is_never_filled_from_another(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(8, 6, 2, "uint16")
    values[:3, :, 0] = 0
    for band in range(2):
        write_raster(tmp_path / f"B0{band + 2}.tif", values[..., [band]], nodata=0)
    scene = read(tmp_path, {"files": "B0*.tif", "stack": True}, shard_command)
    np.testing.assert_array_equal(scene.valid["s2"], values[..., 0] > 0)
    np.testing.assert_array_equal(scene.values["s2"][3:], values[3:])


def test_files_that_cover_one_another_are_refused_with_both_readings(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = write_bands(tmp_path, ["B02", "B03"])
    scene_file = write_scene(tmp_path, {"s2": {"files": "*.tif"}})
    outcome = shard_command(scene_file, "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "stack: true" in outcome.err
    assert "mosaic" in outcome.err
    assert "stack: false" in outcome.err
    assert not (tmp_path / "archive").exists()
    scene = read(tmp_path, {"files": "*.tif", "stack": False}, shard_command)
    np.testing.assert_array_equal(scene.values["s2"], values[..., [0]])


def test_band_files_without_a_place_are_stacked_when_their_sizes_agree(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(5, 6, 2, "uint8")
    for band in range(2):
        write_raster(tmp_path / f"b{band + 1}.tif", values[..., [band]], None)
    np.testing.assert_array_equal(
        read(tmp_path, {"files": "b*.tif", "stack": True}, shard_command).values["s2"], values
    )
    write_raster(tmp_path / "b3.tif", pixels(4, 6, 1, "uint8"), None)
    outcome = shard_command(write_scene(tmp_path, {"s2": {"files": "b*.tif", "stack": True}}), "--out", tmp_path / "no")
    assert outcome.status == 2
    assert "b3.tif" in outcome.err
