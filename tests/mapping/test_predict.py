"""A whole scene to a map: the same in any blocks, whole with a modality missing, refused where nothing fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin
from small_study import CLASSES, HEIGHT, WIDTH, build, command, write_small_scene

from diffclip_dist.feature_extraction.blocks import view_blocks
from diffclip_dist.fewshot.classifier import Classifier
from diffclip_dist.mapping.predict import predict_map
from shards.archive.archive import Archive
from shards.errors import BadInput


def with_stride(classifier: Classifier, stride: int) -> Classifier:
    fewshot = replace(classifier.config.fewshot, stride=stride)
    return replace(classifier, config=replace(classifier.config, fewshot=fewshot))


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_blocks_of_any_size_give_the_same_map(archive: Archive, classifier: Classifier, stride: int) -> None:
    striding = with_stride(classifier, stride)
    scene = archive.read_scene("town")
    whole = predict_map(striding, scene)
    for block_bytes in (6_000, 12_000, 25_000):
        assert np.array_equal(predict_map(striding, archive["town"], block_bytes), whole)
    assert whole.dtype == np.uint8
    assert set(np.unique(whole).tolist()) <= {*CLASSES}


def test_a_wide_scene_is_read_in_blocks_that_are_about_square(archive: Archive, classifier: Classifier) -> None:
    scene = archive.read_scene("town")
    modalities, config = classifier.config.modalities, classifier.config.fewshot
    seen = np.zeros((HEIGHT, WIDTH), int)
    for block in view_blocks(scene, modalities, classifier.fitted.encoder, config, 7, 4 * 7 * 20**2):
        height, width = block.view.present.shape
        assert height * width <= 20**2
        assert max(height, width) < 30
        assert np.array_equal(
            block.view.present[block.core],
            np.any([one[block.rows, block.cols] for one in scene.valid.values()], axis=0),
        )
        seen[block.rows, block.cols] += 1
    assert (seen == 1).all()


def other_scene(folder: Path, name: str, **change: object) -> Archive:
    """The small scene with another scene.yaml."""
    written = write_small_scene(folder / name, name)
    content = yaml.safe_load((written / "scene.yaml").read_text())
    content["modalities"] |= change
    content["modalities"] = {key: value for key, value in content["modalities"].items() if value is not None}
    (written / "scene.yaml").write_text(yaml.safe_dump(content))
    return build([str(written)], folder / f"{name}-built")


def test_a_scene_without_one_of_the_modalities_is_mapped(tmp_path: Path, classifier: Classifier) -> None:
    class_map = predict_map(classifier, other_scene(tmp_path, "bare", lidar=None)["bare"])
    assert np.count_nonzero(class_map) == HEIGHT * WIDTH


def test_a_modality_in_another_place_counts_as_the_same(
    tmp_path: Path, archive: Archive, classifier: Classifier
) -> None:
    turned = other_scene(tmp_path, "turned", hsi=None, extra={"files": "lidar.npy"})
    hsi = {"hsi": {"files": "hsi.npy"}}
    content = yaml.safe_load((tmp_path / "turned" / "scene.yaml").read_text())
    content["modalities"] |= hsi
    (tmp_path / "turned" / "scene.yaml").write_text(yaml.safe_dump(content))
    turned = build([str(tmp_path / "turned")], tmp_path / "again")
    assert [modality.name for modality in turned.scene("turned").modalities] == ["extra", "hsi", "lidar"]
    expected = predict_map(classifier, archive["town"])
    assert np.array_equal(predict_map(classifier, turned["turned"]), expected)


def test_pixels_without_any_data_get_no_class(tmp_path: Path, classifier: Classifier) -> None:
    holed = write_small_scene(tmp_path / "holed", "holed")
    hsi = np.load(holed / "hsi.npy")
    hsi[32:39, 6:15] = np.nan
    np.save(holed / "hsi.npy", hsi)
    class_map = predict_map(classifier, build([str(holed)], tmp_path / "built")["holed"])
    assert not class_map[32:39, 6:15].any()
    assert np.count_nonzero(class_map) == HEIGHT * WIDTH - 7 * 9


def test_scenes_that_do_not_fit_are_refused(tmp_path: Path, classifier: Classifier) -> None:
    foreign = other_scene(tmp_path, "foreign", hsi=None, lidar=None, sar={"files": "lidar.npy"})
    with pytest.raises(BadInput, match=r"scene foreign: has the modalities sar.*none is shared"):
        predict_map(classifier, foreign["foreign"])
    misspelt = other_scene(tmp_path, "misspelt", hsi=None, lidar=None, lidr={"files": "lidar.npy"})
    with pytest.raises(BadInput, match=r"none is shared; did you mean lidar\?"):
        predict_map(classifier, misspelt["misspelt"])
    fewer = other_scene(tmp_path, "fewer", hsi={"files": "hsi.npy", "bands": "1-4"})
    with pytest.raises(BadInput, match="modality hsi: has 4 bands, and the classifier expects 6"):
        predict_map(classifier, fewer["fewer"])


@pytest.fixture
def placed(tmp_path: Path) -> Archive:
    """The small scene as GeoTIFFs with a CRS."""
    scene = write_small_scene(tmp_path / "placed", "placed")
    profile = {"driver": "GTiff", "dtype": "float32", "crs": "EPSG:32633", "transform": from_origin(5e5, 58e5, 30, 30)}
    hsi = np.load(scene / "hsi.npy")
    with rasterio.open(scene / "hsi.tif", "w", height=HEIGHT, width=WIDTH, count=6, **profile) as out:
        out.write(np.moveaxis(hsi, -1, 0))
    content = {"name": "placed", "modalities": {"hsi": {"files": "hsi.tif"}}}
    (scene / "scene.yaml").write_text(yaml.safe_dump(content))
    return build([str(scene)], tmp_path / "placed-built")


def test_the_command_writes_a_placed_map_with_names_and_colours(placed: Archive, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "map.tif"
    arguments = ("--model", model, "--archive", placed.location, "--scene", "placed", "--out", out)
    ended = command("predict.py", *arguments)
    assert ended.status == 0, ended.errors
    assert str(out) in ended.output
    assert {path.name for path in out.parent.iterdir()} == {"map.tif", "map.tif.aux.xml", "map.qml", "map.png"}
    with rasterio.open(out) as read:
        assert read.crs.to_epsg() == 32633
        assert read.transform == from_origin(5e5, 58e5, 30, 30)
        assert (read.dtypes, read.nodata, read.shape) == (("uint8",), 0, (HEIGHT, WIDTH))
        assert read.tags()["CLASS_5"] == "tree"
        assert read.tags()["GENERATED"] == "false"
        colours = read.colormap(1)
        assert colours[7][2] > max(colours[7][:2]), "water is blue"
        assert colours[5][1] > max(colours[5][0], colours[5][2]), "trees are green"
        assert colours[0][3] == 0


def test_a_map_or_picture_that_exists_is_replaced_by_force_alone(archive: Archive, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    arguments = ("--model", model, "--archive", archive.location, "--scene", "town", "--out", out)
    for mine in (out, tmp_path / "map.png"):
        mine.write_bytes(b"mine")
        ended = command("predict.py", *arguments)
        assert ended.status == 2
        expected = f"error: --out {out}: {mine.name} exists already; give --force to replace it, or another --out"
        assert ended.errors.splitlines() == [expected]
        failed = command("predict.py", *arguments, "--force", "--scene", "village")
        assert failed.status == 2
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {mine.name: b"mine"}
        mine.unlink()
    out.write_bytes(b"mine")
    assert command("predict.py", *arguments, "--force").status == 0
    with rasterio.open(out) as read:
        assert read.shape == (HEIGHT, WIDTH)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.png", "map.qml", "map.tif", "map.tif.aux.xml"]


def test_a_quick_map_is_a_part_of_the_map(archive: Archive, classifier: Classifier) -> None:
    whole = predict_map(classifier, archive["town"])
    part = predict_map(classifier, archive["town"], rows=10)
    assert np.array_equal(part[:10], whole[:10])
    assert not part[10:].any()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"--scene": "village"}, "no scene 'village'"),
        ({"--model": "absent"}, "absent: expected a classifier"),
        ({"--archive": "absent"}, "absent"),
        ({"--out": "map.jpg"}, "map.jpg: expected a name that ends with .tif"),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(
    archive: Archive, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--model": model, "--archive": archive.location, "--scene": "town", "--out": "map.tif"} | change
    ended = command("predict.py", *(part for pair in given.items() for part in pair))
    assert ended.status == 2
    assert fault in ended.errors
    assert "Traceback" not in ended.errors
    assert not list(tmp_path.iterdir())
