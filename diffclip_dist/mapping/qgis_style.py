"""The style of a map of classes for QGIS, which loads MAP.qml with MAP.tif: a name and a colour for each class."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from diffclip_dist.fewshot.classifier import MappedClass
from shards.archive.publish import publish_file


def write_qgis_style(file: Path, classes: Sequence[MappedClass]) -> None:
    """Writes the style of a map, beside it; an earlier one is replaced.

    Args:
        file: the map's GeoTIFF; its folder must exist.
        classes: the classes that the map may hold.
    """
    style = ElementTree.Element("qgis", version="3.28", styleCategories="Symbology")
    pipe = ElementTree.SubElement(style, "pipe")
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for one in classes:
        entry = {"value": str(one.user_id), "color": one.colour, "alpha": "255", "label": one.name}
        ElementTree.SubElement(palette, "paletteEntry", entry)
    ElementTree.indent(style)
    target = file.with_suffix(".qml")
    whole = file.with_name(f".{target.name}.partial")
    ElementTree.ElementTree(style).write(whole, encoding="utf-8", xml_declaration=True)
    publish_file(whole, target)
