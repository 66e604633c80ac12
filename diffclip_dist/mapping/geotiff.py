"""Class maps as Cloud Optimized GeoTIFFs: CRS, transform, colour table, class names and overviews."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.predict import ClassMap
from shards.archive.manifest import SceneRecord
from shards.preview.class_colours import rgb

UNMAPPED = "unmapped"
# Side of a GeoTIFF's blocks, in pixels; a multiple of 16
BLOCK: Final = 512


class BlockWriter(Protocol):
    """Takes a map block by block."""

    def __call__(self, row: int, col: int, block: ClassMap) -> None:
        """Writes class ids (row, col) whose upper left pixel is at the given place of the map."""


@contextmanager
def map_writer(
    file: Path,
    dtype: str,
    record: SceneRecord,
    classes: Sequence[MappedClass],
    tags: Mapping[str, str],
) -> Iterator[BlockWriter]:
    """Writes a map block by block; the file appears under its name once it is whole.

    The blocks go to a tiled GeoTIFF beside the map first, because a Cloud Optimized GeoTIFF has its overviews before
    its pixels. Overviews hold the most frequent class, so that a class id is never averaged. Memory does not grow with
    the map. Class names stand in the tags (``CLASS_1=roof``) and, for programs that read GDAL's category names, in
    ``FILE.aux.xml`` beside the map.

    Args:
        file: the GeoTIFF; its folder must exist.
        dtype: ``uint8`` or ``uint16``.
        record: shape, CRS and transform of the scene.
        classes: the classes the map may hold. 0 is no data in the blocks; the file has the users' ids, and its highest
            value for no data where 0 is a class.
        tags: further tags, such as ``GENERATED``.
    """
    shift = max((one.id_shift for one in classes), default=0)
    nodata = int(np.iinfo(dtype).max) if shift else 0
    blocks, whole = (file.with_name(f".{file.name}.{part}") for part in ("blocks", "partial"))
    profile = {
        "driver": "GTiff",
        "height": record.height,
        "width": record.width,
        "count": 1,
        "dtype": dtype,
        "nodata": nodata,
        "crs": record.crs_wkt,
        "transform": None if record.transform is None else rasterio.Affine(*record.transform),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "bigtiff": "if_safer",
    }
    try:
        with warnings.catch_warnings():
            # A scene without CRS is mapped without one
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(blocks, "w", **profile) as out:
                out.set_band_description(1, "land cover class")
                out.write_colormap(
                    1, {nodata: (0, 0, 0, 0), **{one.user_id: (*rgb(one.colour), 255) for one in classes}}
                )
                out.update_tags(SCENE=record.name, **{f"CLASS_{one.user_id}": one.name for one in classes}, **tags)

                def write(row: int, col: int, block: ClassMap) -> None:
                    if shift:
                        block = np.where(block == 0, nodata, block - shift).astype(dtype)
                    out.write(block, 1, window=Window(col, row, block.shape[1], block.shape[0]))

                yield write
            rasterio.shutil.copy(
                blocks, whole, driver="COG", compress="deflate", blocksize=BLOCK, overview_resampling="mode",
                bigtiff="if_safer",
            )  # fmt: skip
        with whole.open("rb") as written:
            os.fsync(written.fileno())
        _write_category_names(file.with_name(f"{file.name}.aux.xml"), classes)
        whole.replace(file)
    finally:
        blocks.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def write_geotiff(
    file: Path, class_map: ClassMap, record: SceneRecord, classes: Sequence[MappedClass], tags: Mapping[str, str]
) -> None:
    """Writes a map that is in memory; see `map_writer`.

    Args:
        file: the GeoTIFF; its folder must exist.
        class_map: class ids (row, col), 0 is no data.
        record: CRS and transform, where the scene has them.
        classes: the classes the map may hold.
        tags: further tags, such as ``GENERATED``.
    """
    with map_writer(file, class_map.dtype.name, record, classes, tags) as write:
        write(0, 0, class_map)


def _write_category_names(file: Path, classes: Sequence[MappedClass]) -> None:
    names = {one.user_id: one.name for one in classes}
    dataset = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(dataset, "PAMRasterBand", band="1")
    listed = ElementTree.SubElement(band, "CategoryNames")
    for class_id in range(max(names) + 1):
        ElementTree.SubElement(listed, "Category").text = names.get(class_id, UNMAPPED if class_id == 0 else "")
    ElementTree.ElementTree(dataset).write(file, encoding="unicode")
