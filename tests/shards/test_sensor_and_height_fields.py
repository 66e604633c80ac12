"""`sensor:` and `surface_height:` of scene.yaml, from the file to the archive's manifest."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive
from shards.archive.manifest import ModalityRecord


def _archived(folder: Path, modalities: dict[str, Any], shard_command: ShardCommand) -> tuple[ModalityRecord, ...]:
    outcome = shard_command(write_scene(folder, modalities), "--out", folder / "archive")
    assert outcome.status == 0, outcome.err
    return Archive.open(folder / "archive").scene("place").modalities


def _refusal(folder: Path, modalities: dict[str, Any], shard_command: ShardCommand) -> str:
    outcome = shard_command(write_scene(folder, modalities), "--out", folder / "archive")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert not (folder / "archive").exists()
    return outcome.err


def test_a_sensor_gives_wavelengths_and_widths(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "s2.tif", pixels(8, 6, 13))
    (record,) = _archived(tmp_path, {"s2": {"files": "s2.tif", "sensor": "sentinel2", "bands": "2-4,8"}}, shard_command)
    assert record.wavelengths_nm == (492.4, 559.8, 664.6, 832.8)
    assert record.fwhm_nm is not None
    assert record.sensor == "sentinel2"


def test_a_file_with_fewer_bands_is_one_of_the_sensors_layouts(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "l8.tif", pixels(8, 6, 7))
    (record,) = _archived(tmp_path, {"l8": {"files": "l8.tif", "sensor": "landsat8"}}, shard_command)
    assert record.wavelengths_nm is not None
    assert (record.wavelengths_nm[0], record.wavelengths_nm[-1]) == (443.0, 2201.0)


def test_names_of_bands_are_those_of_the_sensor(tmp_path: Path, shard_command: ShardCommand) -> None:
    for name in ("B04", "B8A"):
        write_raster(tmp_path / f"T33_{name}.tif", pixels(8, 6, 1, seed=len(name)))
    bands = {"B8A": "*_B8A.tif", "B04": "*_B04.tif"}
    (record,) = _archived(tmp_path, {"s2": {"bands": bands, "sensor": "sentinel2"}}, shard_command)
    assert record.wavelengths_nm == (864.7, 664.6)


def test_given_wavelengths_come_before_the_sensors(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "ms.tif", pixels(8, 6, 4))
    given = {"files": "ms.tif", "sensor": "quickbird", "wavelengths": [480, 550, 650, 820]}
    (record,) = _archived(tmp_path, {"ms": given}, shard_command)
    assert record.wavelengths_nm == (480, 550, 650, 820)


def test_a_misspelt_sensor_is_told_with_the_nearest(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "s2.tif", pixels(8, 6, 13))
    told = _refusal(tmp_path, {"s2": {"files": "s2.tif", "sensor": "sentinal2"}}, shard_command)
    assert "modalities.s2.sensor: 'sentinal2'" in told
    assert "did you mean sentinel2?" in told


def test_another_number_of_bands_than_the_sensors_is_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "s2.tif", pixels(8, 6, 5))
    told = _refusal(tmp_path, {"s2": {"files": "s2.tif", "sensor": "sentinel2"}}, shard_command)
    assert "s2.tif: modalities.s2.sensor: 5 bands, expected 13 or 12 or 10 or 4 of sentinel2" in told


def test_marked_heights_stand_in_the_manifest_and_unmarked_ones_leave_no_trace(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    write_raster(tmp_path / "dsm.tif", pixels(8, 6, 1))
    marked, plain = _archived(
        tmp_path,
        {"dsm": {"files": "dsm.tif", "surface_height": True}, "dem": {"files": "dsm.tif"}},
        shard_command,
    )
    assert (marked.surface_height, plain.surface_height) == (True, False)
    stored = json.loads((tmp_path / "archive" / "manifest.json").read_text())["scenes"][0]["modalities"]
    assert not {"sensor", "surface_height"} & {*stored[1]}


@pytest.mark.parametrize("bands", [2, 3])
def test_a_height_has_one_band(bands: int, tmp_path: Path, shard_command: ShardCommand) -> None:
    write_raster(tmp_path / "dsm.tif", pixels(8, 6, bands))
    told = _refusal(tmp_path, {"dsm": {"files": "dsm.tif", "surface_height": True}}, shard_command)
    assert f"modalities.dsm.surface_height: expected a single band, found {bands}" in told
