"""Which band is which: files of a mosaic in several orders, and wavelengths wherever files keep them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive

CENTRES = (450.0, 560.0, 665.0)


def halves(folder: Path) -> tuple[Path, Path]:
    """Two files of three bands, side by side."""
    one = write_raster(folder / "a.tif", pixels(6, 5, 3), (500.0, 900.0))
    return one, write_raster(folder / "b.tif", pixels(6, 5, 3, seed=1), (550.0, 900.0))


def tag(path: Path, centres: tuple[float, ...]) -> None:
    with rasterio.open(path, "r+") as raster:
        for band, centre in enumerate(centres, start=1):
            raster.update_tags(band, wavelength=str(centre), wavelength_units="nm")


def built(folder: Path, modality: dict[str, Any], command: ShardCommand) -> Archive:
    outcome = command(write_scene(folder, {"hsi": modality}), "--out", folder / "archive")
    assert outcome.status == 0, outcome.err
    return Archive.open(str(folder / "archive"))


def refusal(folder: Path, modality: dict[str, Any], command: ShardCommand) -> str:
    outcome = command(write_scene(folder, {"hsi": modality}), "--out", folder / "archive")
    assert outcome.status == 2
    assert not (folder / "archive").exists()
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    return line


def test_a_mosaic_of_files_with_bands_in_several_orders_is_refused_by_their_wavelengths(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    one, other = halves(tmp_path)
    tag(one, CENTRES)
    tag(other, CENTRES[::-1])
    line = refusal(tmp_path, {"files": "?.tif"}, shard_command)
    assert all(word in line for word in ("b.tif", "band 1", "665 nm", "450 nm", "a.tif", "gdal_translate")), line


def test_a_mosaic_of_files_with_bands_in_several_orders_is_refused_by_their_descriptions(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    one, other = halves(tmp_path)
    for path, names in ((one, ("blue", "green", "red")), (other, ("red", "green", "blue"))):
        with rasterio.open(path, "r+") as raster:
            raster.descriptions = names
    line = refusal(tmp_path, {"files": "?.tif"}, shard_command)
    assert all(word in line for word in ("b.tif", "band 1", "'red'", "'blue'", "a.tif")), line


def test_files_of_one_sensor_whose_centres_drift_a_little_are_one_mosaic(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    one, other = halves(tmp_path)
    tag(one, CENTRES)
    tag(other, tuple(centre + 1.5 for centre in CENTRES))
    archive = built(tmp_path, {"files": "?.tif"}, shard_command)
    values = archive["place"].read().values["hsi"]
    assert np.array_equal(values, np.concatenate([pixels(6, 5, 3), pixels(6, 5, 3, seed=1)], axis=1))


@pytest.mark.parametrize("kept", ["imagery", "descriptions"])
def test_wavelengths_are_found_where_gdal_keeps_them(tmp_path: Path, shard_command: ShardCommand, kept: str) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(6, 5, 3))
    with rasterio.open(path, "r+") as raster:
        for band, centre in enumerate(CENTRES, start=1):
            if kept == "imagery":
                raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(centre / 1000), FWHM_UM="0.01")
            else:
                raster.set_band_description(band, f"band {band} ({centre} Nanometers)")
    (modality,) = built(tmp_path, {"files": "a.tif"}, shard_command).manifest.scenes[0].modalities
    assert modality.wavelengths_nm == pytest.approx(CENTRES)
    assert modality.fwhm_nm == (pytest.approx((10.0, 10.0, 10.0)) if kept == "imagery" else None)


@pytest.mark.parametrize("names", [("450", "560", "665"), ("B1 (450 m)", "B2 (560 m)", "B3 (665 m)")])
def test_numbers_without_a_unit_of_light_are_no_wavelengths(
    tmp_path: Path, shard_command: ShardCommand, names: tuple[str, ...]
) -> None:
    path = write_raster(tmp_path / "a.tif", pixels(6, 5, 3))
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = names
    (modality,) = built(tmp_path, {"files": "a.tif"}, shard_command).manifest.scenes[0].modalities
    assert modality.wavelengths_nm is None


def test_wavelengths_in_micrometres_are_not_taken_for_nanometres(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "a.tif", pixels(6, 5, 3))
    line = refusal(tmp_path, {"files": "a.tif", "wavelengths": [0.45, 0.56, 0.665]}, shard_command)
    assert all(word in line for word in ("a.tif", "modalities.hsi", "wavelengths", "micrometres", "in nm")), line


def test_a_band_that_one_file_of_a_mosaic_marks_as_bad_is_left_out_of_all(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    for path in halves(tmp_path):
        with rasterio.open(path, "r+") as raster:
            for band in (1, 2, 3):
                raster.update_tags(band, bbl="0" if path.name == "b.tif" and band == 2 else "1")
    archive = built(tmp_path, {"files": "?.tif"}, shard_command)
    whole = np.concatenate([pixels(6, 5, 3), pixels(6, 5, 3, seed=1)], axis=1)
    assert np.array_equal(archive["place"].read().values["hsi"], whole[..., [0, 2]])


def test_a_layer_on_another_grid_is_refused_with_the_field_that_brings_it_there(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    write_raster(tmp_path / "a.tif", pixels(6, 5, 3))
    write_raster(tmp_path / "dem.tif", pixels(4, 4, 1), (510.0, 890.0))
    outcome = shard_command(
        write_scene(tmp_path, {"hsi": {"files": "a.tif"}, "dem": {"files": "dem.tif"}}), "--out", tmp_path / "archive"
    )
    assert outcome.status == 2
    assert "dem.tif: modalities.dem: 4x4 pixels, expected the grid of hsi, 6x5" in outcome.err
    assert "write `resample: nearest`" in outcome.err


def test_an_npz_file_is_refused_with_what_to_save_instead(tmp_path: Path, shard_command: ShardCommand) -> None:
    np.savez(tmp_path / "a.npz", cube=pixels(6, 5, 3))
    assert "numpy.save" in refusal(tmp_path, {"files": "a.npz", "variable": "cube"}, shard_command)


def test_a_class_name_that_yaml_reads_as_something_else_is_refused_with_quotes_as_the_remedy(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    write_raster(tmp_path / "a.tif", pixels(6, 5, 3))
    path = tmp_path / "scene.yaml"
    path.write_text("name: s\nmodalities: {hsi: {files: a.tif}}\nlabels: {files: gt.tif, classes: {1: no, 2: tree}}\n")
    outcome = shard_command(path, "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "labels.classes.1: Input should be a valid string, found False" in outcome.err
    assert "quotes" in outcome.err
