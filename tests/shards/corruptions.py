"""Small inputs of every kind with tags, headers, attributes and metadata corrupted at random."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import h5netcdf
import h5py
import numpy as np
import pyogrio.raw
import rasterio
import scipy.io
import xarray
from hypothesis import strategies as st
from small_products import LANDSAT, write_dlr, write_emit, write_landsat, write_prisma, write_sentinel2
from small_scenes import pixels, write_raster, write_scene

Draw = Callable[[st.SearchStrategy[Any]], Any]
# a corrupter writes a scene into an empty folder, and gives what `shard.py` is told
Corrupter = Callable[[Path, Draw], Path]

NUMBERS: Final = (float("nan"), float("inf"), 0.0, -1.0, 1e-4, 1.0, 255.0)
TEXTS: Final = (
    *("nan", "inf", "0", "1", "-1", "3", "1e400", "99999999999", "abc", "", "{}", "{1}", "{nan, nan}", "{1,2,3,4}"),
    *("{0, 0}", "-3.4e38", "nm", "GHz", "é", "\x00", "[1, 2]", "null", "true", "1-2", "*", ".", "EPSG:1", "EPSG:4326"),
)
ENVI_KEYS: Final = (
    *("wavelength", "wavelength units", "fwhm", "bbl", "data ignore value", "reflectance scale factor", "map info"),
    *("data gain values", "data offset values", "coordinate system string", "bands", "interleave", "byte order"),
    *("header offset", "samples", "lines", "data type"),
)
CF_NAMES: Final = (
    *("scale_factor", "add_offset", "missing_value", "valid_range", "valid_min", "valid_max", "_Unsigned", "nodata"),
    *("_FillValue", "grid_mapping", "coordinates", "units", "wavelength", "standard_name"),
)
COORDINATES: Final = (np.arange(6.0), np.full(6, np.nan), np.zeros(6), np.arange(6.0)[::-1], np.arange(6.0) ** 2)
ATTRIBUTES: Final = (
    *(*NUMBERS, "x", "", "true", "nan", "EPSG:4326", b"\xff\xfe", True, 2**40, -5),
    *(np.zeros(0), np.array([1.0, 2.0]), np.array([5.0, 1.0]), np.arange(3, dtype=np.int8), np.array(["a", "b"], "S1")),
    *(np.full((2, 2), np.nan), np.array(7, np.uint16), np.array([np.nan, 0.0, 1e300])),
)
# in place of any value of a JSON file
NASTY: Final[tuple[Any, ...]] = (
    *(None, -1, 0, 2**63, 10**30, 1e308, "", "../..", "/", "a\x00b", [], {}, True, [[[[]]]], "NaN", -0.5),
)


def leaves(plain: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as its container and key."""
    found: list[tuple[Any, Any]] = []
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, inner in items:
        found.append((plain, key))
        found.extend(leaves(inner))
    return found


def corrupted_text(text: str, draw: Draw) -> str:
    """Replaces, removes or doubles some words of a text, or cuts it."""
    for _ in range(draw(st.integers(1, 3))):
        words = re.split(r"(\W)", text)
        place = draw(st.integers(0, len(words) - 1))
        match draw(st.sampled_from(["replace", "remove", "double", "cut"])):
            case "replace":
                words[place] = draw(st.sampled_from(TEXTS))
            case "remove":
                del words[place : place + draw(st.integers(1, 9))]
            case "double":
                words[place:place] = words[place : place + draw(st.integers(1, 9))]
            case _:
                del words[place:]
        text = "".join(words)
    return text


def corrupt_text_file(path: Path, draw: Draw) -> None:
    path.write_text(corrupted_text(path.read_text(encoding="utf-8"), draw), encoding="utf-8")


def corrupt_bytes(path: Path, draw: Draw, first: int = 0, last: int | None = None) -> None:
    """Changes some bytes in a part of a file, or cuts it."""
    content = bytearray(path.read_bytes())
    end = min(len(content), last or len(content))
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(first, end - 1))] = draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    if draw(st.integers(0, 9)) == 9:
        del content[draw(st.integers(first, len(content) - 1)) :]
    path.write_bytes(content)


def corrupt_hdf5(path: Path, draw: Draw) -> None:
    """Changes, adds or removes attributes and small arrays."""
    with h5py.File(path, "r+") as file:
        objects: list[str] = ["/"]
        file.visit(objects.append)
        for _ in range(draw(st.integers(1, 4))):
            owner = file[draw(st.sampled_from(objects))]
            value = draw(st.sampled_from(ATTRIBUTES))
            if isinstance(owner, h5py.Dataset) and owner.size < 50 and draw(st.booleans()):
                name, parent = owner.name, owner.parent
                del parent[name]
                objects.remove(name.lstrip("/"))
                if draw(st.booleans()):
                    parent[name] = np.bytes_(value) if isinstance(value, bytes) else value
                continue
            name = draw(st.sampled_from([*owner.attrs, *CF_NAMES]))
            if name in owner.attrs and draw(st.booleans()):
                del owner.attrs[name]
            else:
                owner.attrs[name] = np.bytes_(value) if isinstance(value, bytes) else value


def geotiff_tags(folder: Path, draw: Draw) -> Path:
    """Tags as programs write them, with odd values."""
    nodata = draw(st.sampled_from([None, *NUMBERS]))
    path = write_raster(folder / "a.tif", pixels(6, 5, 2), **({} if nodata is None else {"nodata": nodata}))
    names = st.sampled_from(["wavelength", "wavelength_units", "fwhm", "bbl", "scale_factor", "add_offset"])
    with rasterio.open(path, "r+") as raster:
        raster.scales = [draw(st.sampled_from(NUMBERS)) for _ in range(2)]
        raster.offsets = [draw(st.sampled_from(NUMBERS)) for _ in range(2)]
        for band in (0, 1, 2):
            texts = st.sampled_from([text for text in TEXTS if "\x00" not in text])
            raster.update_tags(band, **draw(st.dictionaries(names, texts, max_size=3)))
    return write_scene(folder, {"hsi": {"files": "a.tif"}})


def geotiff_header(folder: Path, draw: Draw) -> Path:
    """Entries of the file's directory with another tag, type, count or value."""
    path = write_raster(folder / "a.tif", pixels(6, 5, 2, "int16"), nodata=3)
    content = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    numbers = st.sampled_from([0, 1, 2, 3, 7, 255, 65535, 2**31, 2**32 - 1])
    for _ in range(draw(st.integers(1, 3))):
        entry = directory + 2 + 12 * draw(st.integers(0, entries - 1))
        part, form = draw(st.sampled_from([(0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<H")]))
        struct.pack_into(form, content, entry + part, draw(numbers) % 256 ** struct.calcsize(form))
    path.write_bytes(content)
    return write_scene(folder, {"hsi": {"files": "a.tif"}})


def geotiff_bytes(folder: Path, draw: Draw) -> Path:
    """Bytes of the header, the directory and what it points to."""
    path = write_raster(folder / "a.tif", pixels(6, 5, 2), nodata=3)
    corrupt_bytes(path, draw, last=700)
    return write_scene(folder, {"hsi": {"files": "a.tif"}})


def envi_header(folder: Path, draw: Draw) -> Path:
    """Fields with odd values, and a header whose words are changed."""
    write_raster(folder / "a.img", pixels(6, 5, 2, "int16"), driver="ENVI")
    header = folder / "a.hdr"
    lines = draw(st.lists(st.tuples(st.sampled_from(ENVI_KEYS), st.sampled_from(TEXTS)), max_size=4))
    header.write_text(header.read_text() + "".join(f"{key} = {text}\n" for key, text in lines))
    if draw(st.booleans()) or not lines:
        corrupt_text_file(header, draw)
    return write_scene(folder, {"hsi": {"files": "a.hdr"}})


def cf_attributes(folder: Path, draw: Draw) -> Path:
    """Attributes and coordinates of a NetCDF file."""
    values = pixels(6, 5, 2, draw(st.sampled_from(["int8", "int16", "float32"])))
    cube = xarray.DataArray(values, dims=("y", "x", "band"), name="r", attrs={"scale_factor": 0.5, "units": "1"})
    rows = draw(st.sampled_from([None, *COORDINATES]))
    if rows is not None:
        cube = cube.assign_coords(y=rows, x=np.arange(5.0), band=("band", [450.0, 850.0], {"units": "nm"}))
    cube.to_dataset().to_netcdf(folder / "a.nc", engine="h5netcdf")
    corrupt_hdf5(folder / "a.nc", draw)
    return write_scene(folder, {"hsi": {"files": "a.nc"}})


def netcdf_bytes(folder: Path, draw: Draw) -> Path:
    """Bytes of a NetCDF file's header."""
    with h5netcdf.File(folder / "a.nc", "w") as file:
        file.dimensions = {"y": 6, "x": 5, "band": 2}
        file.create_variable("r", ("y", "x", "band"), "f4")[...] = pixels(6, 5, 2)
    corrupt_bytes(folder / "a.nc", draw, last=4000)
    return write_scene(folder, {"hsi": {"files": "a.nc"}})


def matlab_header(folder: Path, draw: Draw) -> Path:
    """Bytes of a MATLAB file of version 5."""
    content = {"cube": pixels(6, 5, 2), "info": {"wavelength": np.array([450.0, 850.0])}}
    scipy.io.savemat(folder / "a.mat", content, do_compression=False)
    corrupt_bytes(folder / "a.mat", draw, last=draw(st.sampled_from([220, 1000])))
    wavelengths = {"files": "a.mat", "variable": "info.wavelength"}
    return write_scene(folder, {"hsi": {"files": "a.mat", "variable": "cube", "wavelengths": wavelengths}})


def matlab_attributes(folder: Path, draw: Draw) -> Path:
    """Attributes of a MATLAB file of version 7.3."""
    with h5py.File(folder / "a.mat", "w") as file:
        file["cube"] = pixels(6, 5, 2).T
        file["cube"].attrs["MATLAB_class"] = np.bytes_("single")
        file["info/wavelength"] = np.array([[450.0], [850.0]])
        file["info"].attrs["MATLAB_class"] = np.bytes_("struct")
    corrupt_hdf5(folder / "a.mat", draw)
    wavelengths = {"files": "a.mat", "variable": "info.wavelength"}
    return write_scene(folder, {"hsi": {"files": "a.mat", "variable": "cube", "wavelengths": wavelengths}})


def npy_header(folder: Path, draw: Draw) -> Path:
    """Bytes of a NumPy file's header."""
    np.save(folder / "a.npy", pixels(6, 5, 2))
    corrupt_bytes(folder / "a.npy", draw, last=128)
    return write_scene(folder, {"hsi": {"files": "a.npy"}})


def scene_file(folder: Path, draw: Draw) -> Path:
    """Words of a scene.yaml that uses most of its fields."""
    write_raster(folder / "a.tif", pixels(6, 5, 3))
    write_raster(folder / "b 1.tif", pixels(6, 5, 1))
    write_raster(folder / "gt.tif", np.tile([[[0], [1], [2], [2], [1]]], (6, 1, 1)).astype(np.uint8))
    hsi = {"files": "a.tif", "bands": "1-2,3", "nodata": 7, "scale": 0.5, "offset": 1, "crs": "EPSG:32633"}
    stack = {"bands": {"B02": "b*.tif"}, "resample": "nearest"}
    labels = {"files": "gt.tif", "ignore": [0], "classes": {1: "roof", 2: "road"}, "descriptions": {1: "flat, dark"}}
    labels["split"] = {"train": "gt.tif", "test": {"files": "gt.tif"}}
    path = write_scene(folder, {"hsi": hsi | {"wavelengths": [450, 550, 650]}, "s2": stack}, labels)
    corrupt_text_file(path, draw)
    return path


def geojson(folder: Path, draw: Draw) -> Path:
    """Words of a GeoJSON file of polygons and points."""
    write_raster(folder / "a.tif", pixels(6, 5, 2))
    ring = [[500, 900], [530, 900], [530, 870], [500, 870], [500, 900]]
    shapes = [{"type": "Polygon", "coordinates": [ring]}, {"type": "Point", "coordinates": [535, 865]}]
    features = [
        {"type": "Feature", "properties": {"class": name}, "geometry": shape}
        for name, shape in zip(("roof", "road"), shapes, strict=True)
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    (folder / "gt.geojson").write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    corrupt_text_file(folder / "gt.geojson", draw)
    return write_scene(folder, {"hsi": {"files": "a.tif"}}, {"vectors": "gt.geojson", "attribute": "class"})


def vector_bytes(folder: Path, draw: Draw, name: str) -> Path:
    """Bytes of a file of two polygons, anywhere in it, or in one that belongs to it."""
    write_raster(folder / "a.tif", pixels(6, 5, 2))
    rings = [[(500, 900), (530, 900), (530, 870), (500, 900)], [(530, 870), (540, 870), (540, 860), (530, 870)]]
    # WKB: little-endian, a polygon of one ring
    shapes = [
        struct.pack("<BIII", 1, 3, 1, len(ring)) + b"".join(struct.pack("<dd", *place) for place in ring)
        for ring in rings
    ]
    pyogrio.raw.write(
        folder / name, np.array(shapes, object), [np.array(["roof", "road"], object)], ["class"],
        geometry_type="Polygon", crs="EPSG:32633",
    )  # fmt: skip
    stem = name.partition(".")[0]
    corrupt_bytes(draw(st.sampled_from(sorted(folder.glob(f"{stem}.*")))), draw)
    return write_scene(folder, {"hsi": {"files": "a.tif"}}, {"vectors": name, "attribute": "class"})


def shapefile_bytes(folder: Path, draw: Draw) -> Path:
    """Bytes of a Shapefile: shapes, index, attributes, CRS or encoding."""
    return vector_bytes(folder, draw, "gt.shp")


def geopackage_bytes(folder: Path, draw: Draw) -> Path:
    """Bytes of a GeoPackage, an SQLite file, mostly in its first pages."""
    return vector_bytes(folder, draw, "gt.gpkg")


def table_of_points(folder: Path, draw: Draw) -> Path:
    """Words of a table of points."""
    write_raster(folder / "a.tif", pixels(6, 5, 2))
    (folder / "gt.csv").write_text("x,y,class\n505,895,roof\n515,885,road\n525.5,865,roof\n")
    corrupt_text_file(folder / "gt.csv", draw)
    labels = {"vectors": "gt.csv", "attribute": "class", "crs": "EPSG:32633"}
    return write_scene(folder, {"hsi": {"files": "a.tif"}}, labels)


def sentinel2_metadata(folder: Path, draw: Draw) -> Path:
    """Words of a SAFE folder's XML."""
    write_sentinel2(folder, -1000, draw(st.sampled_from(["2A", "1C"])))
    (safe,) = folder.iterdir()
    corrupt_text_file(next(safe.glob("MTD*.xml")), draw)
    return safe


def landsat_metadata(folder: Path, draw: Draw) -> Path:
    """Words of a Landsat folder's MTL file, in each of its forms."""
    write_landsat(folder, draw(st.sampled_from(["txt", "json", "xml"])))
    corrupt_text_file(next((folder / LANDSAT).glob("*_MTL.*")), draw)
    return folder / LANDSAT


def dlr_metadata(folder: Path, draw: Draw) -> Path:
    """Words of the XML of an EnMAP or DESIS folder."""
    write_dlr(folder, draw(st.sampled_from(["enmap", "desis"])))
    (product,) = folder.iterdir()
    (metadata,) = (path for path in product.iterdir() if "METADATA" in path.name)
    corrupt_text_file(metadata, draw)
    return product


def prisma_attributes(folder: Path, draw: Draw) -> Path:
    """Attributes of a PRISMA file."""
    path = folder / "PRS_L2D_STD_20201107.he5"
    write_prisma(
        path, Epsg_Code=32633, Product_ULcorner_easting=600015.0, Product_ULcorner_northing=5799985.0,
        Product_LRcorner_easting=600525.0, Product_LRcorner_northing=5799655.0,
        L2ScaleVnirMin=0.01, L2ScaleVnirMax=1.2, L2ScaleSwirMin=0.0, L2ScaleSwirMax=0.9,
    )  # fmt: skip
    with h5py.File(path, "r+") as file:
        for _ in range(draw(st.integers(1, 3))):
            name, value = draw(st.sampled_from(sorted(file.attrs))), draw(st.sampled_from(ATTRIBUTES))
            file.attrs[name] = np.bytes_(value) if isinstance(value, bytes) else value
    return path


def emit_attributes(folder: Path, draw: Draw) -> Path:
    """Attributes and tables of an EMIT file."""
    path = folder / "EMIT_L2A_RFL_001.nc"
    write_emit(path)
    if draw(st.booleans()):
        with h5py.File(path, "r+") as file:
            name, value = (
                draw(st.sampled_from(["geotransform", "spatial_ref"])),
                draw(st.sampled_from(ATTRIBUTES)),
            )
            file.attrs[name] = np.bytes_(value) if isinstance(value, bytes) else value
    else:
        corrupt_hdf5(path, draw)
    return path


CORRUPTERS: Final = MappingProxyType(
    {
        one.__name__: one
        for one in (
            *(geotiff_tags, geotiff_header, geotiff_bytes, envi_header, cf_attributes, netcdf_bytes, matlab_header),
            *(matlab_attributes, npy_header, scene_file, geojson, shapefile_bytes, geopackage_bytes),
            *(table_of_points, sentinel2_metadata),
            *(landsat_metadata, dlr_metadata, prisma_attributes, emit_attributes),
        )
    }
)
