"""Values are stored as physical ones, by what files or scene.yaml say; files that say nothing keep their bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive, Scene


def read(folder: Path, modality: dict[str, Any], shard_command: ShardCommand) -> Scene:
    """Builds a scene of one modality and reads it back."""
    outcome = shard_command(write_scene(folder, {"hsi": modality}), "--out", folder / "archive")
    assert outcome.status == 0, outcome.err
    return Archive.open(folder / "archive").read_scene("place")


def tag(path: Path, scales: list[float], offsets: list[float]) -> None:
    """Writes GDAL's scale and offset into a raster."""
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = scales, offsets


def test_gdal_tags_are_applied_band_by_band_and_recorded(tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = pixels(6, 5, 2, "uint16")
    counts[2, 3] = 0
    tag(write_raster(tmp_path / "a.tif", counts, nodata=0), [1e-4, 2e-4], [-0.1, 0.5])
    scene = read(tmp_path, {"files": "a.tif"}, shard_command)
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[2, 3]]
    expected = counts * [1e-4, 2e-4] + [-0.1, 0.5]
    np.testing.assert_allclose(scene.values["hsi"][scene.valid["hsi"]], expected[counts[..., 0] > 0], rtol=1e-6)
    (applied,) = scene.record.modality("hsi").scalings
    assert (applied.files, applied.scale, applied.offset) == (1, (1e-4, 2e-4), (-0.1, 0.5))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_files_without_tags_keep_their_type_and_the_manifest_its_form(
    dtype: str, tmp_path: Path, shard_command: ShardCommand
) -> None:
    values = pixels(6, 5, 2, dtype)
    write_raster(tmp_path / "a.tif", values)
    scene = read(tmp_path, {"files": "a.tif"}, shard_command)
    assert scene.values["hsi"].dtype == dtype
    np.testing.assert_array_equal(scene.values["hsi"], values)
    assert "scalings" not in (tmp_path / "archive" / "manifest.json").read_text()


def test_differing_tags_within_a_mosaic_are_reconciled_file_by_file(
    tmp_path: Path, shard_command: ShardCommand
) -> None:
    reflectance = pixels(6, 12, 2, "uint16")
    write_raster(tmp_path / "before.tif", reflectance[:, :6])
    write_raster(tmp_path / "since.tif", reflectance[:, 6:] + 1000, (560.0, 900.0))
    tag(tmp_path / "before.tif", [1e-4] * 2, [0.0] * 2)
    tag(tmp_path / "since.tif", [1e-4] * 2, [-0.1] * 2)
    scene = read(tmp_path, {"files": "*.tif"}, shard_command)
    np.testing.assert_allclose(scene.values["hsi"], reflectance * 1e-4, atol=1e-7)
    assert [(one.files, one.offset[0]) for one in scene.record.modality("hsi").scalings] == [(1, 0.0), (1, -0.1)]


def test_an_offset_alone_is_taken_off_beside_files_that_need_none(tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = pixels(6, 12, 1, "uint16")
    write_raster(tmp_path / "a.tif", counts[:, :6])
    tag(write_raster(tmp_path / "b.tif", counts[:, 6:] + 1000, (560.0, 900.0)), [1.0], [-1000.0])
    np.testing.assert_array_equal(read(tmp_path, {"files": "?.tif"}, shard_command).values["hsi"], counts)


def test_a_mosaic_of_tagged_and_untagged_counts_needs_a_word(tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = pixels(6, 12, 1, "uint16")
    tag(write_raster(tmp_path / "a.tif", counts[:, :6]), [1e-4], [0.0])
    write_raster(tmp_path / "b.tif", counts[:, 6:] + 1000, (560.0, 900.0))
    outcome = shard_command(write_scene(tmp_path, {"hsi": {"files": "?.tif"}}), "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert all(word in outcome.err for word in ("b.tif", "carries no scale", "`scale`"))
    scene = read(tmp_path, {"files": "?.tif", "scale": 1e-4, "offset": -0.1}, shard_command)
    np.testing.assert_allclose(scene.values["hsi"], counts * 1e-4, atol=1e-7)


@pytest.mark.parametrize("file", ["a.npy", "a.tif"])
def test_scale_and_offset_of_the_scene_file_count_where_the_file_has_none(
    file: str, tmp_path: Path, shard_command: ShardCommand
) -> None:
    counts = pixels(6, 5, 2, "int16")
    counts[1, 1] = -99
    np.save(tmp_path / "a.npy", counts)
    write_raster(tmp_path / "a.tif", counts)
    scene = read(tmp_path, {"files": file, "scale": 0.5, "offset": 3, "nodata": -99}, shard_command)
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[1, 1]]
    np.testing.assert_array_equal(scene.values["hsi"][2:], counts[2:] * 0.5 + 3)


def test_a_scale_that_contradicts_the_file_is_refused(tmp_path: Path, shard_command: ShardCommand) -> None:
    tag(write_raster(tmp_path / "a.tif", pixels(6, 5, 2, "int16")), [1e-4] * 2, [0.0] * 2)
    outcome = shard_command(write_scene(tmp_path, {"hsi": {"files": "a.tif", "scale": 10}}), "--out", tmp_path / "no")
    assert outcome.status == 2
    assert all(word in outcome.err for word in ("a.tif", "scale", "0.0001", "10"))


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_cf_attributes_are_applied(kind: str, tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = pixels(6, 5, 3, "int16")
    counts[0, 1, 2], counts[3, 3] = -99, 30000
    cube = xarray.DataArray(counts, dims=("y", "x", "band"), name="r")
    cube.attrs = {"scale_factor": 1e-4, "add_offset": -0.1, "missing_value": np.int16(-99)}
    cube.attrs["valid_range"] = np.array([0, 10000], "i2")
    if kind == "nc":
        cube.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    else:
        cube.attrs["valid_range"] = [0, 10000]
        cube.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    scene = read(tmp_path, {"files": f"a.{kind}"}, shard_command)
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[0, 1], [3, 3]]
    np.testing.assert_allclose(scene.values["hsi"][4:], counts[4:] * 1e-4 - 0.1, rtol=1e-5)


def test_unsigned_values_of_netcdf_3_are_read_as_meant(tmp_path: Path, shard_command: ShardCommand) -> None:
    values = pixels(6, 5, 1, "uint8") + 100
    cube = xarray.DataArray(values.view("i1")[..., 0], dims=("y", "x"), name="r", attrs={"_Unsigned": "true"})
    cube.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read(tmp_path, {"files": "a.nc"}, shard_command).values["hsi"], values)


@pytest.mark.parametrize(
    ("line", "scale"), [("reflectance scale factor = 10000", 1e-4), ("data gain values = {0.5, 0.5}", 0.5)]
)
def test_envi_headers_say_their_scale(line: str, scale: float, tmp_path: Path, shard_command: ShardCommand) -> None:
    counts = pixels(6, 5, 2, "int16")
    write_raster(tmp_path / "a.img", counts, None, driver="ENVI")
    with (tmp_path / "a.hdr").open("a") as header:
        header.write(line + "\n")
    np.testing.assert_allclose(
        read(tmp_path, {"files": "a.hdr"}, shard_command).values["hsi"], counts * scale, rtol=1e-6
    )


@pytest.mark.parametrize(("level", "added"), [("2A", "BOA_ADD_OFFSET"), ("1C", "RADIO_ADD_OFFSET"), ("2A", None)])
def test_sentinel2_bands_take_scale_and_offset_from_their_product(
    level: str, added: str | None, tmp_path: Path, shard_command: ShardCommand
) -> None:
    product = tmp_path / f"S2A_MSIL{level}.SAFE"
    counts = pixels(6, 5, 2, "uint16") + 1000
    counts[0, 0] = 0
    for band, name in enumerate(("B02", "B8A")):
        write_raster(product / "GRANULE" / "L" / "IMG_DATA" / "R10m" / f"T33_{name}_10m.tif", counts[..., [band]])
    offsets = "".join(f'<{added} band_id="{band}">{-1000 - band}</{added}>' for band in range(13)) if added else ""
    tags = "BOA_QUANTIFICATION_VALUE" if level == "2A" else "QUANTIFICATION_VALUE"
    (product / f"MTD_MSIL{level}.xml").write_text(f'<a><{tags} unit="none">10000</{tags}>{offsets}</a>')
    files = f"{product.name}/GRANULE/*/IMG_DATA/R10m/*.tif"
    scene = read(tmp_path, {"files": files, "stack": True}, shard_command)
    expected = (counts + (np.array([-1001, -1008]) if added else 0)) / 10000
    assert np.argwhere(~scene.valid["hsi"]).tolist() == [[0, 0]]
    np.testing.assert_allclose(scene.values["hsi"][1:], expected[1:], atol=1e-6)
