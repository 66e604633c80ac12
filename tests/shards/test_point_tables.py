"""Tables of labelled points: how columns are told, which texts are numbers, and the whole line of what is refused."""

from pathlib import Path

import numpy as np
import pyproj
import pytest
from small_scenes import pixels, write_raster, write_scene

from shards.errors import BadInput
from shards.open_scene import open_scene
from shards.scene.file_scene import FileScene

HEIGHT, WIDTH = 20, 30  # pixels of 10 m; the upper left corner lies at x 500, y 900 of EPSG:32633


def opened(folder: Path, table: str | bytes, **labels: object) -> FileScene:
    """A scene whose labels are this table."""
    (folder / "points.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    write_raster(folder / "hsi.tif", pixels(HEIGHT, WIDTH, 1))
    scene = open_scene(str(write_scene(folder, {"hsi": {"files": "hsi.tif"}}, {"vectors": "points.csv", **labels})))
    assert isinstance(scene, FileScene)
    return scene


def labelled(scene: FileScene) -> dict[tuple[int, int], str]:
    """The class name of each labelled pixel (row, col)."""
    labels = scene.read_labels(slice(0, HEIGHT), slice(0, WIDTH))
    assert scene.classes is not None
    return {(row, col): scene.classes.names[int(labels[row, col])] for row, col in np.argwhere(labels).tolist()}


def refusal(folder: Path, table: str | bytes, **labels: object) -> str:
    """The line that refuses a table, from the table's name on."""
    with pytest.raises(BadInput) as refused:
        opened(folder, table, **labels)
    return str(refused.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("head", "point"),
    [
        ("x,y", "725.5,742"),
        ("Easting,NORTHING", "725.5,742"),
        (" x , y ", " 725.5 , 742 "),
        ("col,row", "22,15"),
        ("Column,ROW", "22,15"),
        ("lon,lat", "{lon},{lat}"),
        ("Longitude,latitude", "{lon},{lat}"),
        ("lng,LAT", "{lon},{lat}"),
    ],
)
def test_the_columns_of_a_place_go_by_many_names(head: str, point: str, tmp_path: Path) -> None:
    lon, lat = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(725.5, 742)
    scene = opened(tmp_path, f"{head},cover\n{point.format(lon=lon, lat=lat)},wood\n")
    assert labelled(scene) == {(15, 22): "wood"}


@pytest.mark.parametrize("head", ["lon,lat", "x,y"])
def test_a_crs_that_is_given_holds_for_every_name_of_the_columns(head: str, tmp_path: Path) -> None:
    x, y = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:3035", always_xy=True).transform(725.5, 742)
    assert labelled(opened(tmp_path, f"{head},cover\n{x},{y},wood\n", crs="EPSG:3035")) == {(15, 22): "wood"}


def test_columns_and_rows_need_no_crs_and_heed_none(tmp_path: Path) -> None:
    assert labelled(opened(tmp_path, "col,row,cover\n22,15,wood\n", crs="EPSG:3035")) == {(15, 22): "wood"}


@pytest.mark.parametrize(
    ("head", "first"), [("x,y,row,col", "505,895,1,1"), ("lon,lat,x,y", "8,8,505,895"), ("row,col,lon,lat", "0,0,8,8")]
)
def test_of_several_places_x_and_y_come_first_and_rows_last(head: str, first: str, tmp_path: Path) -> None:
    if head.startswith("row"):  # lon and lat come before them, and lie elsewhere
        assert "no feature lies on the scene" in refusal(tmp_path, f"{head},cover\n{first},wood\n", attribute="cover")
    else:
        assert labelled(opened(tmp_path, f"{head},cover\n{first},wood\n", attribute="cover")) == {(0, 0): "wood"}


def test_points_on_the_scenes_outer_edges_are_in_it_or_not(tmp_path: Path) -> None:
    inside = {(0, 0): (500, 900), (0, 29): (799.9, 900), (19, 0): (500, 700.1), (19, 29): (799.9, 700.1)}
    outside = [(800, 800), (600, 700), (499.9, 800), (600, 900.1)]
    rows = "".join(f"{x},{y},wood\n" for x, y in (*inside.values(), *outside))
    scene = opened(tmp_path, f"x,y,cover\n{rows}")
    assert set(labelled(scene)) == set(inside)
    (note,) = scene.notes
    assert note == f"{tmp_path}/points.csv: labels: 4 of 8 features lie outside the scene: left out"


def test_a_table_whose_points_all_lie_on_the_scene_has_no_note(tmp_path: Path) -> None:
    assert opened(tmp_path, "x,y,cover\n505,895,wood\n").notes == ()


def test_two_points_of_one_class_may_share_a_pixel_and_two_classes_may_not(tmp_path: Path) -> None:
    assert labelled(opened(tmp_path, "row,col,cover\n3,4,wood\n3,4,wood\n")) == {(3, 4): "wood"}
    assert refusal(tmp_path, "row,col,cover\n3,4,wood\n9,9,wood\n3,4,lake\n") == (
        "points.csv: labels: line 4 and line 2, of two classes, both cover pixel (3, 4); cut one of them back"
    )


# underscores between digits are Python's own; a class code may have them
@pytest.mark.parametrize("text", ["1_2", "2.1.1", "12a", "Acer platanoides", "Wald & Wiese", "höhe"])
def test_a_class_may_be_any_text(text: str, tmp_path: Path) -> None:
    assert labelled(opened(tmp_path, f"row,col,cover\n3,4,{text}\n")) == {(3, 4): text}


@pytest.mark.parametrize(("text", "name"), [("7", "7"), (" 7 ", "7"), ("7.0", "7"), ("07", "7"), ("65535", "65535")])
def test_whole_numbers_are_class_ids(text: str, name: str, tmp_path: Path) -> None:
    scene = opened(tmp_path, f"row,col,cover\n3,4,{text}\n")
    assert labelled(scene) == {(3, 4): name}
    assert scene.read_labels(slice(3, 4), slice(4, 5))[0, 0] == int(name)


def test_numbers_beside_texts_are_names_too(tmp_path: Path) -> None:
    scene = opened(tmp_path, "row,col,cover\n1,1,wood\n2,2,30\n3,3,4\n")
    assert scene.classes is not None
    assert scene.classes.names == {1: "30", 2: "4", 3: "wood"}
    assert labelled(scene) == {(1, 1): "wood", (2, 2): "30", (3, 3): "4"}


def test_what_is_ignored_is_no_class_and_labels_nothing(tmp_path: Path) -> None:
    scene = opened(tmp_path, "row,col,cover\n1,1,0\n2,2,99\n3,3,4\n", ignore=[99])
    assert scene.classes is not None
    assert scene.classes.names == {4: "4"}
    assert labelled(scene) == {(3, 3): "4"}


def test_commas_in_quotes_and_blank_lines_are_as_in_any_csv(tmp_path: Path) -> None:
    scene = opened(tmp_path, 'id,x,y,cover\n\n"a, b",505,895,"wood, old"\n , ,,\nc,515,895,lake\n', attribute="cover")
    assert labelled(scene) == {(0, 0): "wood, old", (0, 1): "lake"}


COLUMNS = "expected a first line with the columns x and y, lon and lat, or row and col; it has: "
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", f"points.csv: labels: {COLUMNS}none"),
    "no place": ("plot,cover\n1,wood\n", f"points.csv: labels: {COLUMNS}plot, cover"),
    "half a place": ("x,lat,cover\n1,2,wood\n", f"points.csv: labels: {COLUMNS}x, lat, cover"),
    "no class": ("x,y\n505,895\n", "points.csv: labels.attribute: expected one of the file's attributes: it has none"),
    "two attributes": (
        "x,y,cover,plot\n505,895,wood,1\n",
        "points.csv: labels.attribute: expected one of the file's attributes: cover, plot",
    ),
    "no rows": ("x,y,cover\n", "points.csv: labels: holds no feature"),
    "no number": (
        "x,y,cover\n505,895,wood\n\n1_0,895,wood\n",
        "points.csv: labels: line 4: x '1_0', y '895'; expected two numbers",
    ),
    "no number either": (
        "x,y,cover\n505,north,wood\n", "points.csv: labels: line 2: x '505', y 'north'; expected two numbers",
    ),
    "a decimal comma between commas": (
        'x,y,cover\n"505,5",895,wood\n', "points.csv: labels: line 2: x '505,5', y '895'; expected two numbers",
    ),
    "endless": ("x,y,cover\ninf,895,wood\n", "points.csv: labels: line 2: x inf, y 895; expected finite numbers"),
    "endless below": ("x,y,cover\n505,nan,wood\n", "points.csv: labels: line 2: x 505, y nan; expected finite numbers"),
    "half a column": (
        "row,col,cover\n1,2.5,wood\n", "points.csv: labels: line 2: col 2.5, row 1; expected whole numbers",
    ),
    "half a row": ("row,col,cover\n1.5,2,wood\n", "points.csv: labels: line 2: col 2, row 1.5; expected whole numbers"),
    "too many values": (
        "x;y;cover\n505;895;wood;old\n", "points.csv: labels: line 2: 4 values, expected 3: x;y;cover",
    ),
    "no class value": (
        "x,y,cover\n505,895, \n",
        "points.csv: labels: line 2: attribute cover is empty; give the feature a class, or leave it out",
    ),
    "a broken number": (
        "x,y,cover\n505,895,1.5\n",
        "points.csv: labels: line 2: attribute cover is 1.5; expected a whole number or a text",
    ),
    "no id": ("x,y,cover\n505,895,65536\n", "points.csv: labels: line 2: class 65536, expected 0 to 65535 or a text"),
    "below 0": ("x,y,cover\n505,895,-1\n", "points.csv: labels: line 2: class -1, expected 0 to 65535 or a text"),
    "no text": (
        b"x,y,cover\n505,895,\xff\n",
        "points.csv: labels: cannot be read: 'utf-8' codec can't decode byte 0xff in position 18: invalid start byte",
    ),
    "outside": (
        "x,y,cover\n5,8,wood\n",
        "points.csv: labels: no feature lies on the scene; check the coordinates, and give `crs` where the file's own "
        "is missing or wrong",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_used_is_refused_in_one_whole_line(case: str, tmp_path: Path) -> None:
    table, line = REFUSED[case]
    assert refusal(tmp_path, table) == line


def test_an_attribute_that_is_none_is_told_beside_those_that_are(tmp_path: Path) -> None:
    assert refusal(tmp_path, "x,y,cover\n505,895,wood\n", attribute="class") == (
        "points.csv: labels.attribute: 'class' is none; expected one of the file's attributes: cover"
    )


def test_a_class_that_is_not_named_is_told_with_those_that_are(tmp_path: Path) -> None:
    table = "x,y,cover\n505,895,lake\n515,895,wod\n"
    assert refusal(tmp_path, table, classes={3: "wood", 7: "lake"}, ignore=[5]) == (
        "points.csv: labels: line 3: unknown class 'wod'; expected one of 3 (wood), 7 (lake), or one of `ignore` "
        "[0, 5]; did you mean wood?"
    )


def test_a_crs_that_is_none_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path, "x,y,cover\n505,895,lake\n", crs="EPSG:nothing") == (
        "points.csv: labels.crs: 'EPSG:nothing' is no coordinate reference system; expected one such as EPSG:32633"
    )


def test_coordinates_that_a_crs_cannot_place_are_told(tmp_path: Path) -> None:
    assert refusal(tmp_path, "lon,lat,cover\n400,895,lake\n") == (
        "points.csv: labels: the CRS WGS 84 cannot place its coordinates; give `crs`"
    )


def test_several_tables_are_one_set_of_labels_and_each_names_its_lines(tmp_path: Path) -> None:
    (tmp_path / "spots.csv").write_text("row,col,cover\n5,5,lake\n0,0,wood\n50,50,lake\n")
    table = "row,col,cover\n0,0,wood\n2,2,wood\n"
    scene = opened(tmp_path, table, vectors=["points.csv", "spots.csv"])
    assert labelled(scene) == {(0, 0): "wood", (2, 2): "wood", (5, 5): "lake"}
    (note,) = scene.notes
    assert note == f"{tmp_path}/points.csv (and 1 more): labels: 1 of 5 features lie outside the scene: left out"
    (tmp_path / "spots.csv").write_text("row,col,cover\n5,5,lake\n0,0,lake\n")
    assert refusal(tmp_path, table, vectors=["points.csv", "spots.csv"]) == (
        "points.csv (and 1 more): labels: spots.csv: line 3 and points.csv: line 2, of two classes, both cover pixel "
        "(0, 0); cut one of them back"
    )
