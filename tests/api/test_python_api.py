"""What Python users import: light to import, the same maps as the commands', NumPy and xarray in and out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
from sklearn.base import clone
from small_study import CLASSES, HEIGHT, WIDTH, command, write_small_scene

import diffclip_dist as dc
from diffclip_dist.api.estimator_parameters import NotFittedError
from shards.archive.archive import Archive
from shards.errors import BadInput

REPOSITORY = Path(__file__).resolve().parents[2]
CONTRACT = {
    "open_archive", "build_archive", "pretrain", "load_encoder", "features", "FewShotClassifier", "predict_map",
}  # fmt: skip


def modules_after(*lines: str) -> set[str]:
    """What a fresh interpreter has imported after these lines."""
    code = "; ".join(["import sys", *lines, "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_names_are_listed_before_anything_heavy_is_imported() -> None:
    found = modules_after("import diffclip_dist as dc", f"assert {CONTRACT!r} <= set(dir(dc))")
    assert not found & {"torch", "ray", "deepspeed", "numpy", "xarray", "sklearn"}
    assert not modules_after("import diffclip_dist as dc", "dc.build_archive") & {"torch", "ray", "deepspeed"}
    used = modules_after("import diffclip_dist as dc", "dc.features, dc.FewShotClassifier, dc.predict_map")
    assert "torch" in used
    assert not used & {"ray", "deepspeed", "sklearn", "matplotlib", "open_clip", "diffclip_dist.train"}
    with pytest.raises(AttributeError, match="no_such_name"):
        dc.no_such_name  # noqa: B018


def test_parameters_are_as_scikit_learn_has_them(encoder: Path) -> None:
    classifier = dc.FewShotClassifier(encoder=str(encoder), smoothing=1, class_names=CLASSES)
    assert classifier.get_params()["class_names"] is CLASSES
    copied = clone(classifier).set_params(stride=2)
    assert (copied.smoothing, copied.stride, classifier.stride) == (1, 2, 3)
    assert repr(copied) == f"FewShotClassifier(encoder={str(encoder)!r}, class_names={CLASSES}, stride=2, smoothing=1)"
    with pytest.raises(ValueError, match="no parameter 'shots'"):
        classifier.set_params(shots=3)
    with pytest.raises(NotFittedError):
        classifier.predict({"hsi": np.zeros((3, 3, 6))})
    with pytest.raises(NotFittedError):
        classifier.save("nowhere")


def test_a_map_is_right_the_same_from_arrays_and_keeps_its_place(
    archive: Archive, encoder: Path, arrays: dict[str, np.ndarray], dataset: xarray.Dataset, labels: np.ndarray
) -> None:
    classifier = dc.FewShotClassifier(encoder=dc.load_encoder(encoder), class_names=CLASSES)
    assert classifier.fit(archive["town"], labels) is classifier
    assert classifier.classes_.tolist() == [*CLASSES]
    found = classifier.predict(archive["town"])
    truth = np.repeat(np.array([2, 5, 7])[np.arange(WIDTH) // 5 % 3][None], HEIGHT, axis=0)
    assert found.dtype == np.uint8
    assert np.mean(found == truth) > 0.8
    assert classifier.score(archive["town"]) > 0.8
    assert np.array_equal(classifier.predict(arrays), found)
    placed = classifier.predict(dataset)
    assert isinstance(placed, xarray.DataArray)
    assert placed.dims == ("y", "x")
    assert placed.rio.crs.to_epsg() == 32633
    assert np.array_equal(placed.x, dataset.x)
    assert np.array_equal(placed, found)
    again = dc.FewShotClassifier(encoder=str(encoder), class_names=CLASSES).fit(dataset, labels)
    assert np.array_equal(again.predict(arrays), found)


@pytest.mark.parametrize("head", ["kernel", "cosine"])
def test_probabilities_sum_to_one_and_agree_with_the_map(
    encoder: Path, arrays: dict[str, np.ndarray], dataset: xarray.Dataset, labels: np.ndarray, head: str
) -> None:
    holed = {name: values.copy() for name, values in arrays.items()}
    for values in holed.values():
        values[:3, 20:25] = np.nan
    classifier = dc.FewShotClassifier(encoder=encoder, head=head, steps=5, views=1).fit(holed, labels)
    found, class_map = classifier.predict_proba(holed), classifier.predict(holed)
    assert found.shape == (HEIGHT, WIDTH, 3)
    empty = np.zeros((HEIGHT, WIDTH), bool)
    empty[:3, 20:25] = True
    assert np.array_equal(np.isnan(found).any(axis=2), empty)
    assert np.array_equal(class_map == 0, empty)
    np.testing.assert_allclose(found[~empty].sum(axis=1), 1.0, rtol=1e-5)
    assert np.array_equal(classifier.classes_[found[~empty].argmax(axis=1)], class_map[~empty])
    placed = classifier.predict_proba(dataset)
    assert isinstance(placed, xarray.DataArray)
    assert placed.sel({"class": 5}).rio.crs.to_epsg() == 32633


def test_python_and_commands_share_classifiers(
    archive: Archive, encoder: Path, labels: np.ndarray, tmp_path: Path
) -> None:
    classifier = dc.FewShotClassifier(encoder=encoder).fit(archive["town"], labels)
    assert classifier.class_names_ == CLASSES  # the scene's own names
    classifier.save(tmp_path / "classifier")
    scene = ("--archive", archive.location, "--scene", "town")
    ended = command("predict.py", "--model", tmp_path / "classifier", *scene, "--out", tmp_path / "command.tif")
    assert ended.status == 0, ended.errors
    mapped = dc.predict_map(tmp_path / "classifier", archive["town"], out=tmp_path / "python.tif")
    assert np.array_equal(mapped, classifier.predict(archive["town"]))
    assert (tmp_path / "python.tif").read_bytes() == (tmp_path / "command.tif").read_bytes()
    assert (tmp_path / "python.png").is_file()


def test_fitting_to_a_studys_shots_gives_the_studys_classifier(archive: Archive, encoder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    asked = ("--archive", archive.location, "--encoder", encoder, "--shots", 2, "--seeds", 1, "--out", study)
    ended = command("fewshot.py", *asked)
    assert ended.status == 0, ended.errors
    shots = np.zeros((HEIGHT, WIDTH), int)
    for name, pixels in json.loads((study / "supports.json").read_text())["shots"]["2"]["0"].items():
        rows, cols = np.transpose(pixels)
        shots[rows, cols] = next(class_id for class_id, known in CLASSES.items() if known == name)
    with rasterio.open(study / "maps" / "2shot.tif") as read:
        expected = read.read(1)
    fitted = dc.FewShotClassifier(encoder=encoder).fit(archive["town"], shots)
    assert np.array_equal(fitted.predict(archive["town"]), expected)
    assert np.array_equal(dc.FewShotClassifier.load(study / "model-2shot").predict(archive["town"]), expected)


def test_a_class_0_of_the_scenes_own_labels_keeps_its_id_in_map_files(encoder: Path, tmp_path: Path) -> None:
    named = {0: "bare", **CLASSES}
    scene = write_small_scene(tmp_path / "zero", "zero", classes=named, ignore=[255])
    zero = dc.build_archive([scene], tmp_path / "archive")["zero"]
    classifier = dc.FewShotClassifier(encoder=encoder, head="cosine", steps=5, views=1).fit(zero)
    assert classifier.class_names_ == {class_id + 1: name for class_id, name in named.items()}
    classifier.save(tmp_path / "classifier")
    found = dc.predict_map(tmp_path / "classifier", zero, out=tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as read:
        assert np.array_equal(read.read(1), found - 1)
        assert read.tags()["CLASS_0"] == "bare"
    labels = zero.read(()).labels
    assert labels is not None
    again = dc.FewShotClassifier(encoder=encoder, head="cosine", steps=5, views=1)
    again.fit(zero, np.where(labels > 1, labels - 1, 0))  # by the user's own ids, of which 0 means unlabelled
    assert again.class_names_ == CLASSES


def test_every_label_is_learned_from(archive: Archive, labels: np.ndarray) -> None:
    fitted = dc.FewShotClassifier(class_names={2: "roof"}).fit(archive["town"], labels)
    assert len(fitted.classifier_.fitted.head.support_SQK[0]) == np.count_nonzero(labels) == 9
    assert fitted.class_names_ == {2: "roof", 5: "class 5", 7: "class 7"}


def test_of_very_many_labels_an_even_part_is_gathered_and_the_number_given_is_said(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffclip_dist.fewshot.labelled_pixels.MOST_LABELLED", 100)
    monkeypatch.setattr("diffclip_dist.fewshot.labelled_pixels.LEAST_OF_CLASS", 10)
    own = archive["town"].read(()).labels
    assert own is not None
    given = np.count_nonzero(own)
    with pytest.warns(UserWarning, match=rf"learned from \d+ of {given:,} labels"):
        fitted = dc.FewShotClassifier().fit(archive["town"])
    learned = len(fitted.classifier_.fitted.head.support_SQK[0])
    assert 30 <= learned <= 100
    assert fitted.class_names_ == archive["town"].record.classes
    found = fitted.cross_validate(archive["town"])
    assert found.labels_C.sum() == given
    assert len(found.tested) <= 100


def test_bands_alone_do_without_an_encoder_and_are_saved_so(
    archive: Archive, labels: np.ndarray, tmp_path: Path
) -> None:
    classifier = dc.FewShotClassifier().fit(archive["town"], labels)
    assert classifier.score(archive["town"]) > 0.8
    classifier.save(tmp_path / "classifier")
    assert not (tmp_path / "classifier" / "encoder").exists()
    loaded = dc.FewShotClassifier.load(tmp_path / "classifier")
    assert loaded.encoder is None
    assert np.array_equal(loaded.predict(archive["town"]), classifier.predict(archive["town"]))


def test_features_come_in_the_scenes_form(
    archive: Archive, encoder: Path, arrays: dict[str, np.ndarray], dataset: xarray.Dataset
) -> None:
    for given in (None, encoder):
        found = dc.features(archive["town"], given, stride=2, smoothing=1)
        assert found.dtype == np.float32
        assert found.shape[:2] == (HEIGHT, WIDTH)
        assert not np.isnan(found).any()  # the lidar's hole has bands of the other modality
        np.testing.assert_allclose(dc.features(arrays, given, stride=2, smoothing=1), found, rtol=1e-3, atol=1e-3)
    placed = dc.features(dataset.hsi)
    assert isinstance(placed, xarray.DataArray)
    assert placed.dims == ("y", "x", "feature")
    assert np.array_equal(placed.y, dataset.y)


def test_arrays_become_an_archive(dataset: xarray.Dataset, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    built = dc.build_archive({"placed": dataset, "plain": arrays}, tmp_path / "archive", tile_size=32)
    assert dc.open_archive(tmp_path / "archive").fingerprint == built.fingerprint
    record = built["placed"].record
    assert record.transform == (30.0, 0.0, 499_985.0, 0.0, -30.0, 5_800_015.0)
    for name in ("placed", "plain"):
        read = built[name].read()
        for modality, values in arrays.items():
            assert np.array_equal(read.values[modality], values, equal_nan=True)


def test_an_archive_opened_with_xarray_is_the_same_scene_and_keeps_its_labels_apart(archive: Archive) -> None:
    with xarray.open_zarr(f"{archive.location}/scenes/town.zarr") as opened:
        modalities = opened[["hsi", "lidar"]]
        assert np.array_equal(dc.features(modalities), dc.features(archive["town"]), equal_nan=True)
        with pytest.raises(BadInput, match="scene: labels: labels among the modalities"):
            dc.features(opened)
        with pytest.raises(BadInput, match="labels among the modalities"):
            dc.build_archive({"town": opened}, "nowhere")
        with pytest.raises(BadInput, match="labels among the modalities"):
            dc.features({"hsi": opened["hsi"].to_numpy(), "labels": opened["labels"].to_numpy()})


def test_a_fill_value_marks_missing_pixels(arrays: dict[str, np.ndarray], labels: np.ndarray) -> None:
    counts = np.round(100 * arrays["hsi"]).astype(np.int16)
    counts[2, 3] = -9999
    held = xarray.DataArray(counts, dims=("row", "col", "band"), attrs={"_FillValue": -9999}, name="hsi")
    assert int((dc.FewShotClassifier().fit(held, labels).predict(held) == 0).sum()) == 1


@pytest.mark.parametrize(
    ("scene", "given", "fault"),
    [
        ("town", np.zeros((2, 2), int), r"labels: expected shape \(44, 38\)"),
        ("town", np.zeros((HEIGHT, WIDTH), int), "labels: expected at least one pixel"),
        ("town", np.full((HEIGHT, WIDTH), 0.5), "labels: expected whole numbers"),
        ("arrays", None, "has no labels of its own"),
        ("name", None, "scene: expected a scene of an archive"),
    ],
)
def test_what_cannot_be_used_is_named(
    archive: Archive, arrays: dict[str, np.ndarray], scene: str, given: np.ndarray | None, fault: str
) -> None:
    scenes = {"town": archive["town"], "arrays": arrays, "name": "town"}
    with pytest.raises(BadInput, match=fault) as refused:
        dc.FewShotClassifier().fit(scenes[scene], given)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_a_folder_of_something_else_is_not_written_over(archive: Archive, labels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="name another folder"):
        dc.FewShotClassifier().fit(archive["town"], labels).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_cross_validation_tests_each_label_without_learning_from_it(
    archive: Archive, encoder: Path, labels: np.ndarray
) -> None:
    few = labels.copy()
    rows, cols = np.nonzero(few == 7)
    few[rows[1:], cols[1:]] = 0  # a single label of water, three of each other class
    rows, cols = np.nonzero(few == 5)
    few[rows[0], cols[0]] = 2  # a wrong label: a tree called a roof
    classifier = dc.FewShotClassifier(encoder=str(encoder), class_names=CLASSES)
    found = classifier.cross_validate(archive["town"], few)
    assert not hasattr(classifier, "classifier_")
    assert found.folds.describe() == "by cross-validation over the labels, 6 folds (leave-one-out)"
    by_place = dict(
        zip(zip(found.tested.rows.tolist(), found.tested.cols.tolist(), strict=True), found.right.tolist(), strict=True)
    )
    assert len(by_place) == 6
    assert by_place.pop((int(rows[0]), int(cols[0]))) is False
    assert found.per_class[2].mean is None  # of water's only label nothing can be said
    assert found.oa.mean == pytest.approx(100 * np.mean(found.right))
    assert found.oa.mean < 100
    assert found.oa.ci95 is not None
    assert 0 <= found.oa.ci95[0] < found.oa.mean < found.oa.ci95[1] < 100


def test_cross_validation_by_blocks_holds_out_whole_blocks(archive: Archive, encoder: Path) -> None:
    classifier = dc.FewShotClassifier(encoder=str(encoder), smoothing=0, stride=1)
    found = classifier.cross_validate(archive["town"], protocol="blocks")
    assert found.folds.kind == "blocks"
    assert found.oa.mean is not None
    assert found.oa.mean > 80
    with pytest.raises(BadInput, match="expected random or blocks, found official"):
        classifier.cross_validate(archive["town"], protocol="official")  # type: ignore[arg-type]


def test_more_labels_than_the_kernel_head_takes_are_learned_from_by_a_sample_that_is_told_of(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffclip_dist.fewshot.fit_labels.MOST_SUPPORT", 60)
    cover = np.repeat(np.array([2, 5, 7])[np.arange(WIDTH) // 5 % 3][None], HEIGHT, axis=0)
    classifier = dc.FewShotClassifier(class_names=CLASSES)
    with pytest.warns(UserWarning, match=f"learned from 60 of {cover.size:,} labels.*balanced over the classes"):
        classifier.fit(arrays, cover)
    head = classifier.classifier_.fitted.head
    assert head.support_SQK.shape[1] <= 60
    assert classifier.classifier_.config.shots == 20
    assert classifier.score(arrays, cover) > 0.9
