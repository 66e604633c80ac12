"""Maps as Cloud Optimized GeoTIFFs: classes with colours and names, and probabilities."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.predict import BLOCK, NO_PERCENT, ClassMap
from diffclip_dist.mapping.qgis_style import write_qgis_style
from shards.archive.manifest import SceneRecord
from shards.archive.publish import publish_file
from shards.preview.class_colours import rgb

UNMAPPED = "unmapped"
CONFIDENCE = "confidence"
# Of GDAL's cache of blocks, which would else take a twentieth of the machine's memory
CACHE_MB: Final = 128

# Writes a block whose upper left pixel is at the given row and column of the map
BlockWriter = Callable[[int, int, npt.NDArray[Any]], None]


@contextmanager
def map_writer(
    file: Path,
    dtype: str,
    record: SceneRecord,
    classes: Sequence[MappedClass],
    tags: Mapping[str, str],
) -> Iterator[BlockWriter]:
    """Writes a map of class ids (row, col) block by block; the file appears under its name once it is whole.

    Overviews hold the most frequent class, so that a class id is never averaged. Class names stand in the tags
    (``CLASS_1=roof``) and, for programs that read GDAL's category names, in ``FILE.aux.xml`` beside the map.
    ``MAP.qml`` is the style that QGIS loads with it.

    Args:
        file: the GeoTIFF; its folder must exist.
        dtype: ``uint8`` or ``uint16``.
        record: shape, CRS and transform of the scene.
        classes: the classes the map may hold. 0 is no data in the blocks; the file has the users' ids, and its highest
            value for no data where 0 is a class.
        tags: further tags, such as ``GENERATED``.
    """
    shift = _id_shift(classes)
    nodata = int(np.iinfo(dtype).max) if shift else 0
    with _cloud_optimized(file, record, 1, dtype, nodata, Resampling.mode) as out:
        out.set_band_description(1, "land cover class")
        out.write_colormap(1, {nodata: (0, 0, 0, 0), **{one.user_id: (*rgb(one.colour), 255) for one in classes}})
        out.update_tags(SCENE=record.name, **{f"CLASS_{one.user_id}": one.name for one in classes}, **tags)

        def write(row: int, col: int, block: ClassMap) -> None:
            if shift:
                block = np.where(block == 0, nodata, block - shift).astype(dtype)
            out.write(block, 1, window=Window(col, row, block.shape[1], block.shape[0]))

        yield write
        _write_category_names(file.with_name(f"{file.name}.aux.xml"), classes)
        write_qgis_style(file, classes)


@contextmanager
def probability_writer(
    file: Path, record: SceneRecord, classes: Sequence[MappedClass], tags: Mapping[str, str]
) -> Iterator[BlockWriter]:
    """Writes probabilities in percent (row, col, class) block by block, as `map_writer` writes classes.

    The file has a band a class, described by its name, and last the confidence: the highest of them, which is the
    probability of the class on the map. A byte a value: whole percents are finer than what calibration can tell.
    Overviews hold means.

    Args:
        file: the GeoTIFF; its folder must exist.
        record: shape, CRS and transform of the scene.
        classes: in the order of the blocks' last axis.
        tags: further tags.
    """
    names = [*(one.name for one in classes), CONFIDENCE]
    with _cloud_optimized(file, record, len(names), "uint8", NO_PERCENT, Resampling.average) as out:
        out.descriptions = names
        out.units = ["percent"] * len(names)
        out.update_tags(SCENE=record.name, **tags)

        def write(row: int, col: int, block: npt.NDArray[np.uint8]) -> None:
            bands = np.concatenate([block, block.max(axis=2, keepdims=True)], axis=2)
            out.write(np.moveaxis(bands, 2, 0), window=Window(col, row, block.shape[1], block.shape[0]))

        yield write


@contextmanager
def _cloud_optimized(
    file: Path, record: SceneRecord, bands: int, dtype: str, nodata: int, overviews: Resampling
) -> Iterator[Any]:
    """A raster to write to; the file appears under its name once it is whole.

    The blocks go to a tiled GeoTIFF beside the file first, because a Cloud Optimized GeoTIFF has its overviews before
    its pixels. Memory does not grow with the raster.
    """
    tiled, whole = (file.with_name(f".{file.name}.{part}") for part in ("tiled", "partial"))
    profile = {
        "driver": "GTiff",
        "height": record.height,
        "width": record.width,
        "count": bands,
        "dtype": dtype,
        "nodata": nodata,
        "crs": record.crs_wkt,
        "transform": None if record.transform is None else rasterio.Affine(*record.transform),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "bigtiff": "if_safer",
        # three or four bands would else pass for a photograph's
        **({"photometric": "minisblack"} if bands > 1 else {}),
    }
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
            # A scene without CRS is mapped without one
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(tiled, "w", **profile) as out:
                yield out
            rasterio.shutil.copy(
                tiled, whole, driver="COG", compress="deflate", blocksize=BLOCK,
                overview_resampling=overviews.name, bigtiff="if_safer",
            )  # fmt: skip
        publish_file(whole, file)
    finally:
        tiled.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def read_map(file: Path, classes: Sequence[MappedClass], longest: int | None = None) -> ClassMap:
    """Class ids (row, col) of a written map, 0 is no data; thinned, from its overviews, to so many pixels a side.

    Args:
        file: the GeoTIFF.
        classes: the classes that it was written with.
        longest: pixels of a side at most; None reads every pixel.
    """
    shift = _id_shift(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(file) as written:
            scale = 1.0 if longest is None else max(1.0, max(written.shape) / longest)
            shape = tuple(max(int(side / scale), 1) for side in written.shape)
            found: ClassMap = written.read(1, out_shape=shape)
            nodata = written.nodata
    return np.where(found == nodata, 0, found + shift) if shift else found


def _id_shift(classes: Sequence[MappedClass]) -> int:
    return max((one.id_shift for one in classes), default=0)


def _write_category_names(file: Path, classes: Sequence[MappedClass]) -> None:
    names = {one.user_id: one.name for one in classes}
    dataset = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(dataset, "PAMRasterBand", band="1")
    listed = ElementTree.SubElement(band, "CategoryNames")
    for class_id in range(max(names) + 1):
        ElementTree.SubElement(listed, "Category").text = names.get(class_id, UNMAPPED if class_id == 0 else "")
    ElementTree.ElementTree(dataset).write(file, encoding="unicode")
