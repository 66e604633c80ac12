"""Class maps as GeoTIFF: CRS, transform, colour table and class names."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.predict import ClassMap
from shards.archive.manifest import SceneRecord
from shards.preview.class_colours import rgb

UNMAPPED = "unmapped"


def write_geotiff(
    file: Path, class_map: ClassMap, record: SceneRecord, classes: Sequence[MappedClass], tags: Mapping[str, str]
) -> None:
    """Writes a map, under another name until it is whole.

    Class names stand in the tags (``CLASS_1=roof``) and, for programs that read GDAL's category names, in
    ``FILE.aux.xml`` beside it.

    Args:
        file: the GeoTIFF; its folder must exist.
        class_map: class ids (row, col), 0 is no data.
        record: CRS and transform, where the scene has them.
        classes: the classes the map may hold.
        tags: what else is said of the map, such as ``GENERATED``.
    """
    partial = file.with_name(f".{file.name}.partial")
    profile = {
        "driver": "GTiff",
        "height": class_map.shape[0],
        "width": class_map.shape[1],
        "count": 1,
        "dtype": class_map.dtype.name,
        "nodata": 0,
        "compress": "deflate",
        "crs": record.crs_wkt,
        "transform": None if record.transform is None else rasterio.Affine(*record.transform),
    }
    try:
        with warnings.catch_warnings():
            # A scene without CRS is mapped without one
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(partial, "w", **profile) as out:
                out.write(class_map, 1)
                out.set_band_description(1, "land cover class")
                out.write_colormap(1, {0: (0, 0, 0, 0), **{one.class_id: (*rgb(one.colour), 255) for one in classes}})
                out.update_tags(SCENE=record.name, **{f"CLASS_{one.class_id}": one.name for one in classes}, **tags)
        _write_category_names(file.with_name(f"{file.name}.aux.xml"), classes)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write_category_names(file: Path, classes: Sequence[MappedClass]) -> None:
    names = {one.class_id: one.name for one in classes}
    dataset = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(dataset, "PAMRasterBand", band="1")
    listed = ElementTree.SubElement(band, "CategoryNames")
    for class_id in range(max(names) + 1):
        ElementTree.SubElement(listed, "Category").text = names.get(class_id, UNMAPPED if class_id == 0 else "")
    ElementTree.ElementTree(dataset).write(file, encoding="unicode")
