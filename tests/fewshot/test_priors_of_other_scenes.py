"""A classifier of one scene maps another whose classes have other frequencies; all scenes here are generated."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import safetensors.torch
from small_study import command

import diffclip_dist as dc
from diffclip_dist.feature_extraction import scene_sample
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.fewshot.kernel_head import KernelHead
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.scene.array_scene import ArrayScene

SPECTRA = np.array([[4, 5, 6, 7, 6, 5], [5, 5, 6, 6, 7, 5], [4, 6, 5, 7, 7, 6]], np.float32)
HEIGHTS = np.array([0.0, 1.0, 2.0], np.float32)
SIDE, PATCH, SHOTS = 64, 4, 10
FIRST, OTHER = (0.7, 0.2, 0.1), (0.1, 0.2, 0.7)
Arrays = dict[str, npt.NDArray[np.float32]]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """A scene and the class of each pixel."""

    arrays: Arrays
    truth: Labels

    def accuracy(self, found: npt.ArrayLike, where: npt.NDArray[np.bool_] | None = None) -> float:
        """Percent of the pixels that are right."""
        return 100.0 * float(np.mean((np.asarray(found) == self.truth)[... if where is None else where]))


def make_place(shares: tuple[float, ...], seed: int) -> Place:
    """Patches of three classes with these shares, whose spectra overlap."""
    random = np.random.default_rng([seed, round(100 * shares[0])])
    cover = np.kron(random.choice(3, size=(SIDE // PATCH,) * 2, p=shares), np.ones((PATCH, PATCH), np.int64))
    hsi = SPECTRA[cover] + random.normal(0, 1, (SIDE, SIDE, 6)).astype(np.float32)
    height = HEIGHTS[cover] + random.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    return Place({"hsi": hsi, "height": height}, cover + 1)


def bands_alone(place: Place) -> Place:
    return Place({"hsi": place.arrays["hsi"]}, place.truth)


def half_covered(place: Place) -> Place:
    """The same place, with heights in its upper half alone."""
    height = place.arrays["height"].copy()
    height[SIDE // 2 :] = np.nan
    return Place({"hsi": place.arrays["hsi"], "height": height}, place.truth)


def few_labels(place: Place, seed: int) -> Labels:
    random = np.random.default_rng(seed)
    labels = np.zeros_like(place.truth)
    for class_id in (1, 2, 3):
        labels.ravel()[random.choice(np.flatnonzero(place.truth == class_id), SHOTS, replace=False)] = class_id
    return labels


def fitted(place: Place, seed: int) -> dc.FewShotClassifier:
    names = {1: "meadow", 2: "field", 3: "forest"}
    return dc.FewShotClassifier(smoothing=0, class_names=names).fit(place.arrays, few_labels(place, seed))


def test_priors_of_the_other_scene_make_its_map_better() -> None:
    gains = []
    for seed in range(4):
        first, other = (bands_alone(make_place(shares, seed)) for shares in (FIRST, OTHER))
        classifier = fitted(first, seed)
        estimated, kept = (other.accuracy(classifier.predict(other.arrays, keep_priors=keep)) for keep in (False, True))
        gains.append(estimated - kept)
    print(f"gain in points of OA over keeping the first scene's priors: {np.round(gains, 1).tolist()}")
    assert min(gains) > 1.0
    assert np.mean(gains) > 3.0


def test_the_scene_of_the_labels_keeps_its_own() -> None:
    first = bands_alone(make_place(FIRST, 0))
    classifier = fitted(first, 0)
    assert np.array_equal(classifier.predict(first.arrays), classifier.predict(first.arrays, keep_priors=True))
    probabilities = classifier.predict_proba(first.arrays)
    np.testing.assert_array_equal(probabilities, classifier.predict_proba(first.arrays, keep_priors=True))


def test_each_pattern_of_modalities_gets_its_own() -> None:
    first, other = half_covered(make_place(FIRST, 1)), half_covered(make_place(OTHER, 1))
    classifier = fitted(first, 1)
    assert [part.modalities for part in classifier.classifier_.fitted.by_pattern] == [("hsi",)]
    without_height = np.isnan(other.arrays["height"])
    estimated, kept = (classifier.predict(other.arrays, keep_priors=keep) for keep in (False, True))
    for where in (without_height, ~without_height):
        assert other.accuracy(estimated, where) > other.accuracy(kept, where)


def test_a_part_of_a_large_scene_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (bands_alone(make_place(shares, 0)) for shares in (FIRST, OTHER))
    classifier = fitted(first, 0)
    whole, kept = (other.accuracy(classifier.predict(other.arrays, keep_priors=keep)) for keep in (False, True))
    opened = functools.partial(SceneReader.open, whole_pixels=1000)
    monkeypatch.setattr(SceneReader, "open", opened)
    monkeypatch.setattr(scene_sample, "PATCHES", 8)
    patches = other.accuracy(classifier.predict(other.arrays))
    assert patches == pytest.approx(whole, abs=1.5)
    assert patches > kept


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both scenes in an archive."""
    folder = tmp_path_factory.mktemp("places") / "archive"
    scenes = [
        ArrayScene(name, {"hsi": make_place(shares, 2).arrays["hsi"]})
        for name, shares in (("first", FIRST), ("other", OTHER))
    ]
    build_archive(scenes, folder, ArchiveSettings(tile_size=32, halo=3))
    return folder


@pytest.fixture(scope="module")
def model(archive: Path) -> Path:
    """A classifier of the first scene."""
    first = make_place(FIRST, 2)
    names = {1: "meadow", 2: "field", 3: "forest"}
    classifier = dc.FewShotClassifier(smoothing=0, class_names=names)
    folder = archive.parent / "model"
    classifier.fit(dc.open_archive(str(archive))["first"], few_labels(first, 2)).save(folder)
    return folder


def mapped(model: Path, archive: Path, out: Path, *options: str) -> npt.NDArray[np.uint8]:
    ended = command("predict.py", "--model", model, "--archive", archive, "--scene", "other", "--out", out, *options)
    assert ended.status == 0, ended.errors
    with rasterio.open(out) as read:
        found: npt.NDArray[np.uint8] = read.read(1)
    return found


def test_the_command_does_the_same(archive: Path, model: Path, tmp_path: Path) -> None:
    other = make_place(OTHER, 2)
    estimated = mapped(model, archive, tmp_path / "estimated.tif")
    kept = mapped(model, archive, tmp_path / "kept.tif", "--keep-priors")
    assert other.accuracy(estimated) > other.accuracy(kept) + 1.0
    scene = dc.open_archive(str(archive))["other"]
    assert np.array_equal(estimated, dc.predict_map(model, scene))
    assert np.array_equal(kept, dc.predict_map(model, scene, keep_priors=True))


def test_classifiers_of_older_formats_keep_theirs(archive: Path, model: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    weights = safetensors.torch.load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if name not in ("prior_C", "seen_C")}
    assert len(kept) == len(weights) - 2
    safetensors.torch.save_file(kept, older / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    del config["calibration"], config["weights_sha256"]
    (older / "config.json").write_text(json.dumps({**config, "format_version": 5}))
    head = dc.FewShotClassifier.load(older).classifier_.fitted.head
    assert isinstance(head, KernelHead)
    assert head.prior_C is None
    expected = mapped(model, archive, tmp_path / "kept.tif", "--keep-priors")
    assert np.array_equal(mapped(older, archive, tmp_path / "older.tif"), expected)
