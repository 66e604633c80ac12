"""Label maps in files: the official split beside them, blocks of them, and the whole line of what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from small_scenes import pixels, write_raster, write_scene

from shards.errors import BadInput
from shards.open_scene import open_scene
from shards.scene import file_scene
from shards.scene.file_scene import FileScene

HEIGHT, WIDTH = 9, 7
WHOLE = slice(0, HEIGHT), slice(0, WIDTH)
CLASSES = {1: "grass", 3: "roof"}


def ids(**pixels_of: list[tuple[int, int]]) -> np.ndarray:
    """A label map (row, col); ``c3=[(0, 1)]`` labels a pixel with 3."""
    made = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, places in pixels_of.items():
        for place in places:
            made[place] = int(name.removeprefix("c"))
    return made


def opened(folder: Path, labels: dict[str, Any] | None, **maps: np.ndarray) -> FileScene:
    """A scene with these labels; each map is written as NAME.npy."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "hsi.npy", pixels(HEIGHT, WIDTH, 2))
    for name, values in maps.items():
        np.save(folder / f"{name}.npy", values)
    scene = open_scene(str(write_scene(folder, {"hsi": {"files": "hsi.npy"}}, labels)))
    assert isinstance(scene, FileScene)
    return scene


def refusal(folder: Path, labels: dict[str, Any], **maps: np.ndarray) -> str:
    """The line that refuses the labels, without the folder's path."""
    with pytest.raises(BadInput) as refused:
        opened(folder, labels, **maps)
    return str(refused.value).replace(f"{folder}/", "")


def test_a_scene_without_labels_reads_as_unlabelled_in_any_block(tmp_path: Path) -> None:
    scene = opened(tmp_path, None)
    assert (scene.classes, scene.labels, scene.split) == (None, None, None)
    block = scene.read_labels(slice(2, 6), slice(3, 5))
    assert (block.shape, block.dtype, block.any()) == ((4, 2), np.uint16, False)


def test_a_label_map_beside_an_official_split_is_read_as_it_is(tmp_path: Path) -> None:
    gt = ids(c1=[(0, 0), (1, 1), (8, 6)], c3=[(4, 4)])
    train, test = ids(c1=[(0, 0)]), ids(c1=[(1, 1)], c3=[(4, 4)])
    labels = {"files": "gt.npy", "classes": CLASSES, "split": {"train": "train.npy", "test": "test.npy"}}
    scene = opened(tmp_path, labels, gt=gt, train=train, test=test)
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), gt)
    for read, expected in zip(scene.read_split(*WHOLE), (train, test), strict=True):
        np.testing.assert_array_equal(read, expected)
    assert scene.classes is not None
    assert scene.classes.official_split
    for block in ((slice(3, 5), slice(2, 6)), (slice(8, 9), slice(6, 7))):
        np.testing.assert_array_equal(scene.read_labels(*block), gt[block])


def test_a_split_alone_labels_what_either_map_does(tmp_path: Path) -> None:
    train, test = ids(c1=[(0, 0)]), ids(c1=[(1, 1)], c3=[(4, 4)])
    scene = opened(
        tmp_path, {"classes": CLASSES, "split": {"train": "train.npy", "test": "test.npy"}}, train=train, test=test
    )
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), ids(c1=[(0, 0), (1, 1)], c3=[(4, 4)]))
    block = slice(1, 5), slice(1, 5)
    np.testing.assert_array_equal(scene.read_split(*block)[1], test[block])


def test_a_pixel_in_both_train_and_test_is_refused_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_scene, "CHECK_ROWS", 4)  # so that the last strip is a short one
    labels = {"classes": CLASSES, "split": {"train": "train.npy", "test": "test.npy"}}
    train = ids(c1=[(0, 0), (8, 5)])
    assert refusal(tmp_path, labels, train=train, test=ids(c1=[(1, 1), (8, 5)])) == (
        "scene.yaml: labels.split: pixel (8, 5) is in both train and test"
    )
    opened(tmp_path, labels, train=train, test=ids(c1=[(1, 1), (8, 4)]))


@pytest.mark.parametrize(("row", "col"), [(0, 0), (3, 6), (4, 0), (8, 6)])
def test_one_labelled_pixel_is_enough_wherever_it_lies(
    row: int, col: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_scene, "CHECK_ROWS", 4)
    scene = opened(tmp_path, {"files": "gt.npy", "classes": CLASSES}, gt=ids(c3=[(row, col)]))
    assert np.argwhere(scene.read_labels(*WHOLE)).tolist() == [[row, col]]


NONE_LABELLED = "scene.yaml: labels: no labelled pixel; leave `labels` out for an unlabelled scene"
UNKNOWN = "gt.npy: labels: unknown class id {}; expected one of [1, 3] or one of `ignore` {}"
REFUSED: dict[str, tuple[dict[str, Any], np.ndarray, str]] = {
    "nothing labelled": ({}, ids(), NONE_LABELLED),
    "all ignored": ({"ignore": [7]}, ids(c7=[(0, 0)]), NONE_LABELLED),
    "an unknown id": ({}, ids(c1=[(0, 0)], c2=[(8, 6)]), UNKNOWN.format(2, [0])),
    "an unknown id beside ignored ones": (
        {"ignore": [255]}, ids(c1=[(0, 0)], c2=[(8, 6)], c255=[(1, 1)]), UNKNOWN.format(2, [0, 255])
    ),
    "no whole number": ({}, np.where(ids(c1=[(0, 0)]) > 0, 1.5, 0), UNKNOWN.format(1.5, [0])),
    "two bands": (
        {}, np.stack([ids(c1=[(0, 0)])] * 2, axis=-1), "gt.npy: labels.files: 2 bands, expected one band of class ids"
    ),
    "an unknown description": (
        {"descriptions": {2: "lawn"}}, ids(c1=[(0, 0)]),
        "scene.yaml: labels: descriptions: class id 2 is unknown; known: [1, 3]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_map_that_cannot_be_used_is_refused_in_one_whole_line(case: str, tmp_path: Path) -> None:
    more, gt, line = REFUSED[case]
    assert refusal(tmp_path, {"files": "gt.npy", "classes": CLASSES, **more}, gt=gt) == line


@pytest.mark.parametrize(
    ("maps", "line"),
    [
        ({"files": "none.npy"}, "none.npy: labels: no such file"),
        ({"split": {"train": "none.npy", "test": "gt.npy"}}, "none.npy: labels.split.train: no such file"),
        ({"split": {"train": "gt.npy", "test": "none.npy"}}, "none.npy: labels.split.test: no such file"),
    ],
)
def test_a_map_that_is_not_there_is_told_by_its_field(maps: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, {"classes": CLASSES, **maps}, gt=ids(c1=[(0, 0)])) == line


def test_a_file_that_covers_another_wholly_is_no_part_of_one_label_map(tmp_path: Path) -> None:
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 2))
    for name in ("one", "two"):
        write_raster(tmp_path / f"{name}.tif", ids(c1=[(0, 0)])[..., None])
    labels = {"files": ["one.tif", "two.tif"], "classes": CLASSES}
    with pytest.raises(BadInput, match=r"give one label map, or several that lie side by side$"):
        open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, labels)))


def test_a_crs_given_for_a_label_map_must_be_its_own(tmp_path: Path) -> None:
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 2))
    write_raster(tmp_path / "gt.tif", ids(c1=[(0, 0)])[..., None])
    labels = {"files": "gt.tif", "classes": CLASSES, "crs": "EPSG:32632"}
    with pytest.raises(BadInput, match=r"gt\.tif: labels\.files\.crs: the file's own CRS is another one"):
        open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, labels)))
    labels["crs"] = "EPSG:32633"
    scene = open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, labels)))
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), ids(c1=[(0, 0)]))


def test_descriptions_follow_their_classes(tmp_path: Path) -> None:
    labels = {"files": "gt.npy", "classes": CLASSES, "descriptions": {3: "tiled roof"}}
    scene = opened(tmp_path, labels, gt=ids(c1=[(0, 0)]))
    assert scene.classes is not None
    assert (scene.classes.names, scene.classes.descriptions) == (CLASSES, {3: "tiled roof"})
    assert not scene.classes.official_split


def test_descriptions_of_the_classes_that_features_name_are_checked(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("row,col,cover\n0,0,wood\n1,1,lake\n")
    labels = {"vectors": "points.csv", "descriptions": {3: "tiled roof"}}
    assert refusal(tmp_path, labels) == "scene.yaml: labels.descriptions: class id 3 is unknown; known: [1, 2]"


def test_a_geopackage_of_labels_holds_features_or_a_raster(tmp_path: Path) -> None:
    write_raster(tmp_path / "hsi.tif", pixels(HEIGHT, WIDTH, 2))
    corner = shapely.box(500, 880, 520, 900)  # two by two pixels of 10 m
    pyogrio.raw.write(
        tmp_path / "features.gpkg", shapely.to_wkb(np.array([corner])), [np.array([3])], np.array(["cover"]),
        crs="EPSG:32633", geometry_type="Polygon",
    )  # fmt: skip
    expected = ids(c3=[(0, 0), (0, 1), (1, 0), (1, 1)])
    with rasterio.open(
        tmp_path / "raster.gpkg", "w", driver="GPKG", height=HEIGHT, width=WIDTH, count=1, dtype="int16",
        crs="EPSG:32633", transform=from_origin(500, 900, 10, 10),
    ) as raster:  # fmt: skip
        raster.write(expected, 1)
    for labels in ({"files": "features.gpkg"}, {"files": "raster.gpkg", "classes": CLASSES}):
        scene = open_scene(str(write_scene(tmp_path, {"hsi": {"files": "hsi.tif"}}, labels)))
        np.testing.assert_array_equal(scene.read_labels(*WHOLE), expected)


def test_features_and_arrays_are_not_taken_for_each_other(tmp_path: Path) -> None:
    labels = {"files": "gt.npy", "classes": CLASSES, "layer": "fields"}
    assert refusal(tmp_path, labels, gt=ids(c1=[(0, 0)])) == (
        "gt.npy: labels: holds no polygons or points that `attribute` and `layer` could choose"
    )


def test_where_only_a_part_of_the_maps_are_features_the_classes_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("row,col,cover\n0,0,3\n")
    split = {"train": "train.csv", "test": "test.npy"}
    assert refusal(tmp_path, {"split": split}, test=ids(c1=[(1, 1)])) == (
        "scene.yaml: labels.classes: expected what the ids mean, such as classes: {1: water, 2: forest}"
    )
    scene = opened(tmp_path, {"split": split, "classes": CLASSES}, test=ids(c1=[(1, 1)]))
    np.testing.assert_array_equal(scene.read_labels(*WHOLE), ids(c3=[(0, 0)], c1=[(1, 1)]))
