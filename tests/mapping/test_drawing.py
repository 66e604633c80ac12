"""Colours, GeoTIFFs and pictures."""

from itertools import combinations
from math import dist
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import rasterio
from small_study import HEIGHT, WIDTH

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.geotiff import map_writer
from diffclip_dist.mapping.map_picture import render_map
from diffclip_dist.mapping.predict import map_dtype
from diffclip_dist.mapping.qgis_style import write_qgis_style
from shards.archive.archive import Archive
from shards.preview.class_colours import class_colours, rgb

HOUSTON = (
    "healthy grass", "stressed grass", "synthetic grass", "trees", "soil", "water", "residential", "commercial", "road",
    "highway", "railway", "parking lot 1", "parking lot 2", "tennis court", "running track",
)  # fmt: skip


def test_named_classes_look_natural_and_all_can_be_told_apart() -> None:
    colours = class_colours(dict(enumerate(HOUSTON, start=1)))
    by_name = {name: rgb(colours[place]) for place, name in enumerate(HOUSTON, start=1)}
    assert by_name["water"][2] == max(by_name["water"])
    assert by_name["trees"][1] == max(by_name["trees"])
    assert all(dist(one, other) > 40 for one, other in combinations(by_name.values(), 2))


def test_words_within_words_mean_nothing() -> None:
    carpet, seat, plain = (class_colours({1: name})[1] for name in ("carpet", "seat", "unheard of"))
    assert carpet == seat == plain


def test_many_unknown_classes_have_colours_of_their_own() -> None:
    colours = class_colours({class_id: f"class {class_id}" for class_id in range(1, 41)})
    assert len(set(colours.values())) == 40


def classes(*ids: int) -> list[MappedClass]:
    names = {class_id: f"kind {class_id}" for class_id in ids}
    return [MappedClass(class_id, name, class_colours(names)[class_id]) for class_id, name in names.items()]


def test_ids_above_255_keep_their_value(archive: Archive, tmp_path: Path) -> None:
    class_map = np.full((HEIGHT, WIDTH), 300, map_dtype(300))
    with map_writer(tmp_path / "map.tif", "uint16", archive.scene("town"), classes(3, 300), {}) as write:
        write(0, 0, class_map)
    with rasterio.open(tmp_path / "map.tif") as read:
        assert (read.read(1) == 300).all()
        assert read.tags()["CLASS_300"] == "kind 300"
        assert read.crs is None


def test_gis_programs_find_the_class_names(archive: Archive, tmp_path: Path) -> None:
    class_map = np.ones((HEIGHT, WIDTH), np.uint8)
    with map_writer(tmp_path / "map.tif", "uint8", archive.scene("town"), classes(1, 3), {}) as write:
        write(0, 0, class_map)
    written = ElementTree.parse(tmp_path / "map.tif.aux.xml")  # noqa: S314
    names = [node.text for node in written.iter("Category")]
    assert names == ["unmapped", "kind 1", None, "kind 3"]


def test_qgis_finds_a_name_and_a_colour_for_each_class(tmp_path: Path) -> None:
    # a scene with a class 0: files hold the users' ids, one below those in memory
    land = MappedClass(1, "land & <sand>", "#d9c27a", id_shift=1)
    flood = MappedClass(2, "Überflutung", "#2f6fb0", id_shift=1)
    write_qgis_style(tmp_path / "map.tif", [land, flood])
    (renderer,) = ElementTree.parse(tmp_path / "map.qml").iterfind("pipe/rasterrenderer")  # noqa: S314
    assert renderer.attrib["type"] == "paletted"
    entries = [
        (int(one.attrib["value"]), one.attrib["label"], one.attrib["color"]) for one in renderer.iter("paletteEntry")
    ]
    assert entries == [(0, land.name, land.colour), (1, flood.name, flood.colour)]
    assert [path.name for path in tmp_path.iterdir()] == ["map.qml"]


@pytest.mark.parametrize("shape", [(40, 30), (349, 1905), (3, 200), (200, 3)])
def test_a_picture_of_any_shape_shows_its_classes(tmp_path: Path, shape: tuple[int, int]) -> None:
    legend = classes(1, 2)
    class_map = np.ones(shape, np.uint8)
    class_map[:, shape[1] // 2 :] = 2
    render_map(tmp_path / "map.png", class_map, legend, "title", "subtitle", generated=False)
    picture = (matplotlib.image.imread(tmp_path / "map.png")[..., :3] * 255).round()
    for known in legend:
        assert (np.abs(picture - rgb(known.colour)).max(axis=2) < 2).sum() > 500


def test_a_picture_of_a_generated_scene_is_marked(tmp_path: Path) -> None:
    class_map = np.ones((30, 30), np.uint8)
    for generated in (False, True):
        render_map(tmp_path / f"{generated}.png", class_map, classes(1), "title", "subtitle", generated)
    red = rgb("#b3261e")
    counts = [
        int((np.abs(matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3] * 255 - red).max(axis=2) < 2).sum())
        for name in (False, True)
    ]
    assert counts[0] == 0
    assert counts[1] > 1000
