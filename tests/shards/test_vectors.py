"""Labels from polygons and points: which pixels they label, with which class, and what is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import rasterio
import shapely
import yaml
from small_scenes import ShardCommand, pixels, write_raster, write_scene

from shards.archive.archive import Archive
from shards.open_scene import open_scene
from shards.scene.file_scene import FileScene

HEIGHT, WIDTH = 20, 30
# the scene's pixels are 10 m; its upper left corner lies at x 500, y 900 of EPSG:32633
WHOLE = slice(0, HEIGHT), slice(0, WIDTH)
# columns and rows of the corners; no edge meets a pixel's centre
WOOD = [(2.2, 3.2), (9.7, 3.2), (9.7, 8.8), (2.2, 8.8)]
LAKE = [(14.0, 2.0), (27.0, 5.3), (16.1, 17.9)]


def in_metres(corners: list[tuple[float, float]]) -> np.ndarray:
    """Corners (column, row) in x and y of the scene."""
    return np.array(corners) * (10, -10) + (500, 900)


def inside(corners: list[tuple[float, float]]) -> np.ndarray:
    """The pixels (row, col) whose centre lies in a convex polygon, by the side of each edge that they lie on."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    sides = [
        (x1 - x0) * (rows - y0) - (y1 - y0) * (cols - x0) > 0
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True)
    ]
    return np.all(sides, axis=0)


def write_features(
    path: Path,
    shapes: list[Any],
    crs: str | None = "EPSG:32633",
    layer: str | None = None,
    append: bool = False,
    **attributes: list[Any],
) -> Path:
    """Writes shapely geometries with their attributes in the format that the name says."""
    columns = [np.array(values, dtype=object if isinstance(values[0], str) else None) for values in attributes.values()]
    names = np.array(list(attributes))
    kinds = {shape.geom_type for shape in shapes if shape is not None}
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(shapes, dtype=object)),
        columns,
        names,
        crs=crs,
        layer=layer,
        append=append,
        geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown",
    )
    return path


def polygon(corners: list[tuple[float, float]]) -> shapely.Polygon:
    return shapely.Polygon(in_metres(corners))


def scene_with(folder: Path, labels: dict[str, Any], **raster: Any) -> FileScene:
    """A scene of 20x30 pixels with these labels."""
    write_raster(folder / "hsi.tif", pixels(HEIGHT, WIDTH, 2), **raster)
    scene = open_scene(str(write_scene(folder, {"hsi": {"files": "hsi.tif"}}, labels)))
    assert isinstance(scene, FileScene)
    return scene


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035"])
@pytest.mark.parametrize("name", ["fields.geojson", "fields.gpkg", "fields.shp", "fields.fgb"])
def test_polygons_label_the_pixels_whose_centres_they_hold(name: str, crs: str, tmp_path: Path) -> None:
    onto = pyproj.Transformer.from_crs("EPSG:32633", crs, always_xy=True)
    shapes = [
        shapely.transform(polygon(corners), lambda places: np.stack(onto.transform(*places.T), axis=1))
        for corners in (WOOD, LAKE)
    ]
    write_features(tmp_path / name, shapes, crs, cover=["wood", "lake"])
    scene = scene_with(tmp_path, {"vectors": name, "attribute": "cover"})
    assert scene.classes is not None
    assert scene.classes.names == {1: "lake", 2: "wood"}
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(WOOD) * 2 + inside(LAKE) * 1)


def test_any_block_reads_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corners = np.random.default_rng(0).uniform(-3, 33, (40, 3, 2))
    write_features(tmp_path / "f.gpkg", [polygon(places) for places in corners], cover=["a"] * 40, plot=list(range(40)))
    monkeypatch.setattr("shards.scene.readers.vectors.CELL", 7)
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "attribute": "cover"})
    whole = scene.read_labels(*WHOLE)
    assert 0.2 < (whole > 0).mean() < 1
    blocks = [
        (slice(0, 1), slice(0, 30)), (slice(5, 16), slice(13, 14)), (slice(19, 20), slice(29, 30)),
        (slice(8, 12), slice(9, 12)), (slice(9, 17), slice(9, 17)),  # within a cell, and across four
    ]  # fmt: skip
    for rows, cols in blocks:
        np.testing.assert_array_equal(scene.read_labels(rows, cols), whole[rows, cols])


def test_all_touched_labels_every_pixel_that_a_polygon_meets(tmp_path: Path) -> None:
    corners = [(2.7, 3.6), (9.4, 3.6), (9.4, 8.4), (2.7, 8.4)]  # the centres of its outermost pixels lie outside
    write_features(tmp_path / "f.gpkg", [polygon(corners)], cover=["wood"])
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "all_touched": True})
    expected = np.zeros((HEIGHT, WIDTH))
    expected[3:9, 2:10] = 1
    assert inside(corners).sum() < expected.sum()
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), expected)


def test_holes_parts_and_points_are_taken(tmp_path: Path) -> None:
    ring = shapely.Polygon(in_metres([(1, 1), (9, 1), (9, 9), (1, 9)]), [in_metres([(3, 3), (7, 3), (7, 7), (3, 7)])])
    two = shapely.MultiPolygon(
        [polygon([(12, 1), (14, 1), (14, 3), (12, 3)]), polygon([(20, 5), (21, 5), (21, 6), (20, 6)])]
    )
    spots = shapely.MultiPoint(in_metres([(4.5, 4.1), (25.99, 19.99)]))
    write_features(tmp_path / "f.gpkg", [ring, two, spots], cover=[5, 5, 7])
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "attribute": "cover"})
    expected = np.zeros((HEIGHT, WIDTH))
    expected[1:9, 1:9] = 5
    expected[3:7, 3:7] = 0
    expected[1:3, 12:14] = expected[5, 20] = 5
    expected[4, 4] = expected[19, 25] = 7
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), expected)
    assert scene.classes is not None
    assert scene.classes.names == {5: "5", 7: "7"}


@pytest.mark.parametrize("values", [["lake", "wood"], [4, 9], [4.0, 9.0], ["4", "9"]])
def test_classes_map_names_or_numbers_to_ids(values: list[Any], tmp_path: Path) -> None:
    write_features(tmp_path / "f.gpkg", [polygon(LAKE), polygon(WOOD)], cover=values)
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "attribute": "cover", "classes": {4: "lake", 9: "wood"}})
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(WOOD) * 9 + inside(LAKE) * 4)


def test_ignored_numbers_label_nothing(tmp_path: Path) -> None:
    write_features(tmp_path / "f.gpkg", [polygon(LAKE), polygon(WOOD)], cover=[4, 99])
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "ignore": [99]})
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(LAKE) * 4)


def test_a_layer_is_chosen_by_its_name(tmp_path: Path) -> None:
    write_features(tmp_path / "f.gpkg", [polygon(WOOD)], layer="spring", cover=["wood"])
    write_features(tmp_path / "f.gpkg", [polygon(LAKE)], layer="autumn", append=True, cover=["lake"])
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "layer": "autumn"})
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(LAKE))


def test_the_official_split_may_be_features(tmp_path: Path) -> None:
    write_features(tmp_path / "train.gpkg", [polygon(WOOD)], cover=["wood"])
    (tmp_path / "test.csv").write_text("row,col,cover\n15,16,lake\n0,29,wood\n")
    scene = scene_with(tmp_path, {"split": {"train": {"vectors": "train.gpkg"}, "test": "test.csv"}})
    train, test = scene.read_split(*WHOLE)
    np.testing.assert_array_equal(train, inside(WOOD) * 2)
    assert np.argwhere(test).tolist() == [[0, 29], [15, 16]]
    assert (test[0, 29], test[15, 16]) == (2, 1)
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), train + test)


TABLES = {
    "x and y": "x,y,cover\n505,895,wood\n725.5,742,lake\n",
    "northing first, tabs, more columns": "id\tNorthing\tEasting\tcover\n1\t895\t505\twood\n2\t742\t725.5\tlake\n",
    "semicolons and decimal commas": "x;y;cover\r\n505,0;895,0;wood\r\n725,5;742,0;lake\r\n\r\n",
    "a byte order mark": "\ufeffx,y,cover\n505,895,wood\n725.5,742,lake\n",
    "rows and columns": "row,col,cover\n0,0,wood\n15,22,lake\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_points_labels_their_pixels(table: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(TABLES[table], encoding="utf-8", newline="")
    scene = scene_with(tmp_path, {"vectors": "points.csv", "attribute": "cover"})
    labels = scene.read_labels(*WHOLE)
    assert np.argwhere(labels).tolist() == [[0, 0], [15, 22]]
    assert (labels[0, 0], labels[15, 22]) == (2, 1)


@pytest.mark.parametrize(("columns", "crs"), [("x,y", "EPSG:3035"), ("lon,lat", None)])
def test_points_of_another_crs_are_brought_onto_the_scene(columns: str, crs: str | None, tmp_path: Path) -> None:
    onto = pyproj.Transformer.from_crs("EPSG:32633", crs or "EPSG:4326", always_xy=True)
    x, y = onto.transform(725.5, 742)
    (tmp_path / "points.csv").write_text(f"{columns},cover\n{x},{y},3\n")
    scene = scene_with(tmp_path, {"files": "points.csv", **({"crs": crs} if crs else {})})
    assert np.argwhere(scene.read_labels(*WHOLE) == 3).tolist() == [[15, 22]]


def test_an_array_without_a_place_takes_rows_and_columns_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "hsi.npy", pixels(HEIGHT, WIDTH, 2))
    (tmp_path / "pixels.csv").write_text("row,col,cover\n3,4,1\n")
    (tmp_path / "points.csv").write_text("x,y,cover\n3,4,1\n")
    scene = open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.npy"}}, {"vectors": "pixels.csv"})))
    assert np.argwhere(scene.read_labels(*WHOLE)).tolist() == [[3, 4]]
    with pytest.raises(ValueError, match=r"points\.csv: labels: the scene carries no CRS .* `row`, `col`"):
        open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.npy"}}, {"vectors": "points.csv"})))


def test_features_of_two_classes_on_one_pixel_are_refused_by_name(tmp_path: Path, shard_command: ShardCommand) -> None:
    inner = [(4.0, 5.0), (6.0, 5.0), (6.0, 7.0), (4.0, 7.0)]
    write_features(tmp_path / "f.gpkg", [polygon(WOOD), polygon(LAKE), polygon(inner)], cover=["wood", "lake", "lake"])
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 2))
    scene_file = write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, {"vectors": "f.gpkg"})
    outcome = shard_command(scene_file, "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "feature 3 and feature 1" in outcome.err
    assert "pixel (5, 4)" in outcome.err
    assert not (tmp_path / "archive").exists()


def bad_features(folder: Path) -> None:
    """Files that each lack something."""
    write_features(folder / "two.gpkg", [polygon(WOOD)], layer="spring", cover=["wood"])
    write_features(folder / "two.gpkg", [polygon(LAKE)], layer="autumn", append=True, cover=["lake"])
    write_features(folder / "no_crs.shp", [polygon(WOOD)], crs=None, cover=["wood"])
    write_features(folder / "attributes.gpkg", [polygon(WOOD)], cover=["wood"], owner=["church"])
    write_features(folder / "null.gpkg", [polygon(WOOD), polygon(LAKE)], cover=[1.0, np.nan])
    write_features(folder / "half.gpkg", [polygon(WOOD)], cover=[1.5])
    write_features(folder / "away.gpkg", [shapely.box(0, 0, 10, 10)], cover=["wood"])
    write_features(folder / "line.gpkg", [shapely.LineString([(500, 900), (600, 800)])], cover=["road"])
    write_features(folder / "nowhere.gpkg", [polygon(WOOD), None], cover=["wood", "lake"])
    (folder / "empty.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    (folder / "broken.gpkg").write_bytes(b"no database")
    (folder / "metres.geojson").write_text(
        json.dumps({"type": "Feature", "properties": {"c": 1}, "geometry": shapely.geometry.mapping(polygon(WOOD))})
    )
    (folder / "wood.csv").write_text("x,y,cover\n505,895,wood\n")
    (folder / "odd.csv").write_text("place,cover\nhere,wood\n")
    (folder / "text.csv").write_text("x,y,cover\n505,895,wood\nnorth,895,wood\n")
    (folder / "short.csv").write_text("x,y,cover\n505,895\n")
    (folder / "between.csv").write_text("row,col,cover\n1.5,2,wood\n")


FAULTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"vectors": "two.gpkg"}, ("two.gpkg", "layer", "spring, autumn")),
    ({"vectors": "two.gpkg", "layer": "winter"}, ("two.gpkg", "'winter'", "spring, autumn")),
    ({"vectors": "no_crs.shp"}, ("no_crs.shp", "carries no CRS", "crs: EPSG:")),
    ({"vectors": "wood.csv", "crs": "EPSG:nothing"}, ("wood.csv", "labels.crs", "EPSG:nothing")),
    ({"vectors": "attributes.gpkg"}, ("attributes.gpkg", "labels.attribute", "cover, owner")),
    ({"vectors": "attributes.gpkg", "attribute": "class"}, ("attributes.gpkg", "'class'", "cover, owner")),
    ({"vectors": "null.gpkg"}, ("null.gpkg", "feature 2", "cover is empty")),
    ({"vectors": "half.gpkg"}, ("half.gpkg", "feature 1", "1.5", "whole number")),
    ({"vectors": "away.gpkg"}, ("away.gpkg", "no feature lies on the scene", "crs")),
    ({"vectors": "metres.geojson"}, ("metres.geojson", "give `crs`")),
    ({"vectors": "line.gpkg"}, ("line.gpkg", "feature 1", "LineString", "polygons or points")),
    ({"vectors": "nowhere.gpkg"}, ("nowhere.gpkg", "feature 2", "has no geometry")),
    ({"vectors": "empty.geojson"}, ("empty.geojson",)),
    ({"vectors": "broken.gpkg"}, ("broken.gpkg", "cannot be read")),
    ({"vectors": "none.gpkg"}, ("none.gpkg", "no such file")),
    ({"vectors": "wood.csv", "classes": {1: "lake"}}, ("wood.csv", "line 2", "'wood'", "1 (lake)")),
    ({"vectors": "odd.csv"}, ("odd.csv", "x and y", "row and col", "place, cover")),
    ({"vectors": "text.csv"}, ("text.csv", "line 3", "'north'")),
    ({"vectors": "short.csv"}, ("short.csv", "line 2", "2 values, expected 3")),
    ({"vectors": "between.csv"}, ("between.csv", "line 2", "whole")),
    ({"files": "hsi.tif"}, ("labels.classes", "expected what the ids mean")),
    ({"files": "hsi.tif", "attribute": "cover", "classes": {1: "a"}}, ("hsi.tif", "no polygons or points")),
    ({"files": "hsi.tif", "vectors": "wood.csv"}, ("labels: vectors", "either `files` or `vectors`")),
    (
        {"vectors": "wood.csv", "split": {"train": {"crs": "EPSG:4326"}, "test": "wood.csv"}},
        ("labels.split: train", "`vectors`"),
    ),
]


def test_features_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, shard_command: ShardCommand) -> None:
    bad_features(tmp_path)
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 1, "uint8"))
    for labels, words in FAULTS:
        scene_file = write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, labels)
        outcome = shard_command(scene_file, "--out", tmp_path / "archive")
        assert outcome.status == 2, labels
        assert all(word in outcome.err for word in words), outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
        assert not (tmp_path / "archive").exists()


def test_a_missing_package_is_told_with_its_remedy(
    tmp_path: Path, shard_command: ShardCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features(tmp_path / "f.gpkg", [polygon(WOOD)], cover=["wood"])
    (tmp_path / "points.csv").write_text("row,col,cover\n0,0,wood\n15,22,lake\n")
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 2))
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    monkeypatch.setitem(sys.modules, "shapely", None)
    fields = write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, {"vectors": "f.gpkg"})
    outcome = shard_command(fields, "--out", tmp_path / "archive")
    assert outcome.status == 2
    assert "pip install 'diffclip-dist[vectors]'" in outcome.err
    points = write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, {"vectors": "points.csv"})
    assert shard_command(points, "--out", tmp_path / "archive").status == 0


def test_features_outside_the_scene_are_counted(tmp_path: Path, shard_command: ShardCommand) -> None:
    away = shapely.box(0, 0, 10, 10)
    write_features(tmp_path / "f.gpkg", [polygon(WOOD), away, away], cover=["wood", "lake", "wood"])
    scene = scene_with(tmp_path, {"vectors": "f.gpkg"})
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(WOOD) * 2)
    outcome = shard_command(tmp_path / "scene.yaml", "--out", tmp_path / "archive")
    assert outcome.status == 0
    assert "f.gpkg: labels: 2 of 3 features lie outside the scene" in outcome.err


def test_features_changed_on_disk_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("row,col,cover\n0,0,1\n")
    scene_with(tmp_path, {"vectors": "points.csv"})
    path.write_text("row,col,cover\n5,6,1\n")
    assert np.argwhere(scene_with(tmp_path, {"vectors": "points.csv"}).read_labels(*WHOLE)).tolist() == [[5, 6]]


def test_labels_from_features_reach_the_archive(tmp_path: Path, shard_command: ShardCommand) -> None:
    write_features(tmp_path / "f.gpkg", [polygon(WOOD), polygon(LAKE)], cover=["wood", "lake"])
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 2))
    scene_file = write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, {"vectors": "f.gpkg"})
    assert shard_command(scene_file, "--out", tmp_path / "archive").status == 0
    scene = Archive.open(tmp_path / "archive").read_scene("place")
    assert scene.record.classes == {1: "lake", 2: "wood"}
    np.testing.assert_array_equal(scene.labels, inside(WOOD) * 2 + inside(LAKE) * 1)


def test_real_polygons_give_the_labels_that_were_burnt_from_them(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "rs_lsat_srtm"
    burnt = open_scene(str(folder))
    described = yaml.safe_load((folder / "scene.yaml").read_text())
    modalities = {name: {"files": str(folder / spec["files"])} for name, spec in described["modalities"].items()}
    labels = {"vectors": str(folder / "polygons.geojson"), "attribute": "class"}
    scene = open_scene(str(write_scene(tmp_path, modalities, labels)))
    assert scene.classes is not None
    assert burnt.classes is not None
    assert scene.classes.names == burnt.classes.names
    whole = slice(0, scene.height), slice(0, scene.width)
    np.testing.assert_array_equal(scene.read_labels(*whole), burnt.read_labels(*whole))


def test_shared_cases_of_features(shared_case: Callable[[str], Path]) -> None:
    quadrants = np.kron([[1, 2], [3, 4]], np.ones((20, 24)))
    rows, cols = slice(0, 40), slice(0, 48)
    np.testing.assert_array_equal(open_scene(str(shared_case("01-polygons"))).read_labels(rows, cols), quadrants)
    points = np.zeros_like(quadrants)
    points[::4, ::4] = quadrants[::4, ::4]
    np.testing.assert_array_equal(open_scene(str(shared_case("02-points-csv"))).read_labels(rows, cols), points)


def test_single_points_of_a_vector_file_label_their_pixels(tmp_path: Path) -> None:
    spots = shapely.points(in_metres([(4.5, 4.1), (0.0, 0.0), (29.99, 19.99)]))
    write_features(tmp_path / "f.gpkg", list(spots), cover=[3, 4, 3])
    labels = scene_with(tmp_path, {"vectors": "f.gpkg"}).read_labels(*WHOLE)
    assert {(row, col): int(labels[row, col]) for row, col in np.argwhere(labels).tolist()} == {
        (4, 4): 3, (0, 0): 4, (19, 29): 3,
    }  # fmt: skip


def test_polygons_at_the_scenes_edges_are_in_it_where_they_share_an_area(tmp_path: Path) -> None:
    def box(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
        return polygon([(left, top), (right, top), (right, bottom), (left, bottom)])

    inside = [box(-5, 2, 0.9, 3), box(29.1, 2, 40, 3), box(3, -5, 4, 0.9), box(3, 19.1, 4, 30)]
    beside = [box(-5, 5, 0, 6), box(30, 5, 40, 6), box(5, -5, 6, 0), box(5, 20, 6, 30)]
    away = [box(-9, 5, -3, 6), box(35, 5, 40, 6), box(5, -9, 6, -3), box(5, 25, 6, 30)]
    for number, shape in enumerate(inside):
        write_features(tmp_path / f"{number}.gpkg", [shape], cover=["wood"])
        assert scene_with(tmp_path, {"vectors": f"{number}.gpkg"}).read_labels(*WHOLE).sum() == 1
    write_features(tmp_path / "f.gpkg", [*inside, *beside, *away], cover=["wood"] * 12)
    (note,) = scene_with(tmp_path, {"vectors": "f.gpkg"}).notes
    assert note.endswith("f.gpkg: labels: 8 of 12 features lie outside the scene: left out")


def test_a_layers_own_attributes_are_chosen_from(tmp_path: Path) -> None:
    write_features(tmp_path / "f.gpkg", [polygon(WOOD)], layer="spring", cover=["wood"], owner=["church"])
    write_features(tmp_path / "f.gpkg", [polygon(LAKE)], layer="autumn", append=True, kind=["lake"])
    scene = scene_with(tmp_path, {"vectors": "f.gpkg", "layer": "autumn"})
    assert scene.classes is not None
    assert scene.classes.names == {1: "lake"}
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(LAKE))


def test_a_scene_that_is_turned_has_its_labels_turned_with_it(tmp_path: Path) -> None:
    turned = rasterio.Affine.translation(500, 900) * rasterio.Affine.rotation(-30) * rasterio.Affine.scale(10, -8)
    corners = [turned @ corner for corner in WOOD]
    write_features(tmp_path / "f.gpkg", [shapely.Polygon(corners)], cover=["wood"])
    x, y = turned @ (22.5, 15.5)
    (tmp_path / "points.csv").write_text(f"x,y,cover\n{x},{y},wood\n")
    scene = scene_with(tmp_path, {"vectors": "f.gpkg"}, transform=turned)
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), inside(WOOD))
    scene = scene_with(tmp_path, {"vectors": "points.csv"}, transform=turned)
    assert np.argwhere(scene.read_labels(*WHOLE)).tolist() == [[15, 22]]


def test_a_scene_with_a_place_but_no_crs_takes_tables_in_its_own_system_alone(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y,cover\n505,895,wood\n")
    (tmp_path / "lonlat.csv").write_text("lon,lat,cover\n15,0,wood\n")
    scene = scene_with(tmp_path, {"vectors": "points.csv"}, crs=None)
    assert np.argwhere(scene.read_labels(*WHOLE)).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="lonlat") as refused:
        scene_with(tmp_path, {"vectors": "lonlat.csv"}, crs=None)
    assert str(refused.value).endswith(
        "lonlat.csv: labels: the scene carries no CRS and transform to place x and y by; give the modality's files a "
        "georeference, or a table of `row`, `col` and the class"
    )
