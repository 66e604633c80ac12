"""Headers and attributes at random: a scene is read or refused in one line, and never ends in a traceback."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_scenes import pixels, write_raster, write_scene

from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.scene.file_scene import open_scene_file

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = [float("nan"), float("inf"), 0.0, -1.0, 1e-4, 1.0, 255.0]
TEXTS = ["nan", "inf", "0", "abc", "", "{}", "{1}", "{nan, nan}", "{1,2,3,4}", "{0, 0}", "-3.4e38", "nm", "GHz", "é"]
ENVI_KEYS = [
    "wavelength",
    "wavelength units",
    "fwhm",
    "bbl",
    "data ignore value",
    "reflectance scale factor",
    "map info",
]
ENVI_KEYS += ["data gain values", "data offset values", "coordinate system string", "bands", "interleave", "byte order"]
ENVI_KEYS += ["header offset", "samples"]
CF_NAMES = [
    "scale_factor",
    "add_offset",
    "missing_value",
    "valid_range",
    "valid_min",
    "valid_max",
    "_Unsigned",
    "nodata",
]
CF_NAMES += ["grid_mapping"]
COORDINATES = [np.arange(6.0), np.full(6, np.nan), np.zeros(6), np.arange(6.0)[::-1], np.arange(6.0) ** 2]


def read_or_refuse(folder: Path, file: str) -> None:
    """Builds the scene of one file; an archive that is made can be read."""
    try:
        source = open_scene_file(write_scene(folder, {"hsi": {"files": file}}))
        build_archive([source], folder / "archive", ArchiveSettings())
    except BadInput:
        return
    Archive.open(folder / "archive").read_scene("place")


@FEW
@given(lines=st.lists(st.tuples(st.sampled_from(ENVI_KEYS), st.sampled_from(TEXTS)), min_size=1, max_size=4))
def test_envi_headers(lines: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_raster(Path(folder) / "a.img", pixels(6, 5, 2, "int16"), driver="ENVI")
        with (Path(folder) / "a.hdr").open("a") as header:
            header.writelines(f"{key} = {text}\n" for key, text in lines)
        read_or_refuse(Path(folder), "a.hdr")


@FEW
@given(
    scale=st.sampled_from(NUMBERS),
    offset=st.sampled_from(NUMBERS),
    nodata=st.sampled_from(NUMBERS),
    tags=st.dictionaries(st.sampled_from(["wavelength", "wavelength_units", "fwhm", "bbl"]), st.sampled_from(TEXTS)),
)
def test_geotiff_tags(scale: float, offset: float, nodata: float, tags: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with rasterio.open(write_raster(Path(folder) / "a.tif", pixels(6, 5, 2), nodata=nodata), "r+") as raster:
            raster.scales, raster.offsets = [scale] * 2, [offset] * 2
            raster.update_tags(1, **tags)
            raster.update_tags(2, **tags)
        read_or_refuse(Path(folder), "a.tif")


@FEW
@given(
    attributes=st.dictionaries(
        st.sampled_from(CF_NAMES), st.sampled_from([*NUMBERS, "x", "true", [1.0, 2.0], [5.0, 1.0]]), max_size=4
    ),
    rows=st.sampled_from([None, *COORDINATES]),
    dtype=st.sampled_from(["int8", "int16", "float32"]),
)
def test_cf_attributes(attributes: dict[str, Any], rows: np.ndarray | None, dtype: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cube = xarray.DataArray(pixels(6, 5, 2, dtype), dims=("y", "x", "band"), name="r", attrs=attributes)
        if rows is not None:
            cube = cube.assign_coords(y=rows, x=np.arange(5.0))
        dataset = cube.to_dataset()
        try:
            dataset.to_netcdf(Path(folder) / "a.nc", engine="h5netcdf")
        except (TypeError, ValueError, AttributeError):
            return  # xarray itself does not write these
        read_or_refuse(Path(folder), "a.nc")
