"""Class names that act: alone, as a prior that fades with shots, and for classes without shots.

Where a test needs names of a known quality, a stand-in tells classes by the truth; the others take the real classifier.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file, save_file
from small_study import Study, command
from torch import Tensor

import diffclip_dist as dc
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.bands_only import BandsOnly
from diffclip_dist.fewshot import names_prior
from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.names_prior import NamesPrior, ToldByName
from diffclip_dist.study.experiment import Outcome, Task, run_task
from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.name_matching import NameMatch, NearCaption
from shards.archive.archive import Archive, ReadableScene, Scene
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

CONFIG = FewshotConfig(statistics_windows=64)
SEEDS = 4


class NamesByTruth:
    """A stand-in for the name classifier: nearest class mean of the labelled spectra, each under the name given.

    Attributes:
        under: name of each class to the name of the class that it is taken for.
    """

    modalities = ("hsi",)

    def __init__(
        self, classes: Sequence[ClassName], means: Mapping[str, Tensor], scale_B: Tensor, sharp: float
    ) -> None:
        self.classes, self.means, self.scale_B, self.sharp = tuple(classes), means, scale_B, sharp
        near = (NearCaption("material", "caption", 1.0),)
        self.matches = tuple(NameMatch(one.name, near, one.name in means) for one in classes)

    def log_probabilities(self, values: Mapping[str, Tensor], *_: Tensor) -> Tensor:
        values_PB = values["hsi"]
        nowhere_B = torch.full_like(self.scale_B, 1e6)
        means_CB = torch.stack([self.means.get(one.name, nowhere_B) for one in self.classes])
        distance_PC = torch.cdist(values_PB.nan_to_num() / self.scale_B, means_CB / self.scale_B)
        return torch.log_softmax(-self.sharp * distance_PC, dim=1)

    def settings(self) -> dict[str, object]:
        return {}

    def with_classes(self, classes: Sequence[ClassName]) -> "NamesByTruth":
        return NamesByTruth(classes, self.means, self.scale_B, self.sharp)

    def for_scene(self, _: ReadableScene) -> "NamesByTruth":
        return self


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A small generated scene of fifteen classes."""
    folder = tmp_path_factory.mktemp("small") / "archive"
    spec = GeneratedSceneSpec(name="small", height=64, width=80, bands=24, seed=6, overlap=0.4, noise=0.03)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings())
    return Archive.open(str(folder)).read_scene("small")


def told_by_truth(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, under: Mapping[str, str] | None = None, sharp: float = 1.0
) -> None:
    """Lets class names be told by the spectra of the classes that `under` says, by default their own."""
    assert scene.labels is not None
    names = scene.record.classes
    values = torch.from_numpy(scene.values["hsi"].astype(np.float32))
    means = {name: values[torch.from_numpy(scene.labels == c)].mean(dim=0) for c, name in names.items()}
    means = {name: means[(under or {}).get(name, name)] for name in means if np.any(scene.labels)}
    scale_B = values.flatten(0, 1).std(dim=0)

    class Fitted(NamesByTruth):
        @classmethod
        def fit(cls, _: ReadableScene, classes: Sequence[ClassName], *, text: str = "words") -> NamesByTruth:
            assert text == "words"
            known = {name: mean_B for name, mean_B in means.items() if mean_B.isfinite().all()}
            return NamesByTruth(classes, known, scale_B, sharp)

    monkeypatch.setattr(names_prior, "NameClassifier", Fitted)


def run(scene: Scene, text: str, shots: tuple[int, ...], seeds: int = SEEDS) -> Outcome:
    encoder = BandsOnly([ModalitySchema.of(one) for one in scene.record.modalities])
    return run_task(scene, encoder, Task(shots, seeds, "random", text), CONFIG)


def mean_oa(outcome: Outcome, shots: int) -> float:
    return float(np.mean([run.scores.oa for run in outcome.of_shots(shots)]))


def test_right_names_help_most_where_shots_are_fewest(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    told_by_truth(monkeypatch, scene, sharp=2.0)
    named, shots_alone = run(scene, "words", (0, 1, 5)), run(scene, "scratch", (1, 5))
    gains = [mean_oa(named, shots) - mean_oa(shots_alone, shots) for shots in (1, 5)]
    assert gains[0] > gains[1]
    assert gains[0] > 1
    assert mean_oa(named, 0) > 2 * 100 / 15
    assert len(named.of_shots(0)) == 1
    weights = [named.of_shots(shots)[0].fitted.prior.weight for shots in (1, 5)]  # type: ignore[union-attr]
    assert weights[0] == 5 * weights[1]


@pytest.mark.parametrize("sharp", [1.0, 10.0])
def test_shuffled_names_cost_no_point(monkeypatch: pytest.MonkeyPatch, scene: Scene, sharp: float) -> None:
    names = list(scene.record.classes.values())
    told_by_truth(monkeypatch, scene, dict(zip(names, [*names[4:], *names[:4]], strict=True)), sharp)
    named, shots_alone = run(scene, "words", (1, 2, 5)), run(scene, "scratch", (1, 2, 5))
    for shots in (1, 2, 5):
        assert mean_oa(named, shots) > mean_oa(shots_alone, shots) - 1


def test_a_class_without_shots_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    told_by_truth(monkeypatch, scene, sharp=3.0)
    assert scene.labels is not None
    water = next(c for c, name in scene.record.classes.items() if name == "water")
    hidden = np.where(scene.labels == water, 0, scene.labels).astype(np.uint16)
    without = replace(scene, labels=hidden)
    for text, found in (("words", True), ("scratch", False)):
        outcome = run(without, text, (2,), seeds=1)
        is_water = outcome.maps[2] == water
        assert (water in outcome.class_ids) is found
        assert bool(np.mean(is_water[scene.labels == water]) > 0.8) is found
        assert np.mean(is_water[(scene.labels > 0) & (scene.labels != water)]) < 0.05


def test_an_unknown_name_tells_nothing_of_its_class() -> None:
    near = (NearCaption("material", "caption", 0.1),)

    class Names:
        matches = (NameMatch("roof", near, True), NameMatch("tree", near, True), NameMatch("quux", near, False))

    classes = tuple(ClassName(match.name) for match in Names.matches)
    told = ToldByName(Names(), classes)  # type: ignore[arg-type]
    log_QC = torch.log_softmax(torch.tensor([[6.0, 0.0, 3.0], [0.0, 6.0, 3.0], [3.0, 3.0, 3.0]]), dim=1)
    prior = NamesPrior.fit(told, log_QC, torch.arange(3))
    sure, unsure = prior.added_scores(log_QC)[0], prior.added_scores(log_QC)[2]
    assert sure[0] > sure[1]
    assert sure[2] > sure[1]
    assert unsure[0] == pytest.approx(float(unsure[1]), abs=1e-5)


def test_names_alone_learn_which_pixels_of_the_scene_are_alike(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    """Names that are unsure of each pixel by itself are surer of it among its like."""
    told_by_truth(monkeypatch, scene, sharp=0.5)
    assert scene.labels is not None
    tested = scene.labels > 0
    classes = [ClassName(name) for name in scene.record.classes.values()]
    names = names_prior.NameClassifier.fit(scene, classes)
    values = torch.from_numpy(scene.values["hsi"][tested].astype(np.float32))
    by_itself = 1 + names.log_probabilities({"hsi": values}).argmax(dim=1).numpy()
    ids = np.array(list(scene.record.classes))
    alone = 100.0 * float(np.mean(ids[by_itself - 1] == scene.labels[tested]))
    assert mean_oa(run(scene, "words", (0,)), 0) > alone + 2


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("generated") / "archive"
    spec = GeneratedSceneSpec(name="small", height=64, width=80, bands=24, seed=6)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings())
    return Archive.open(str(folder))


@pytest.fixture(scope="module")
def study(generated: Archive, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """No shots, and one, with the real name classifier."""
    out = tmp_path_factory.mktemp("study") / "study"
    arguments = ("--archive", generated.location, "--encoder", "none", "--shots", "0,1", "--seeds", 2, "--out", out)
    return Study(out, arguments, command("fewshot.py", *arguments))


def test_names_alone_give_figures_a_map_a_model_and_a_report(study: Study, generated: Archive, tmp_path: Path) -> None:
    assert study.ended.status == 0, study.ended.errors
    results = json.loads((study.folder / "results.json").read_text())
    alone, one = results["shots"]["0"], results["shots"]["1"]
    assert results["text"] == "words"
    assert len(alone["oa"]["per_seed"]) == 1
    assert alone["oa"]["ci95"] is None
    assert alone["oa"]["mean"] > 1.5 * 100 / len(results["classes"])
    assert alone["support_pixels"] == [0]
    assert alone["names"]["changed"] is None
    assert 0 <= one["names"]["changed"]["mean"] <= 100
    assert 0 <= one["names"]["right_on_shots"]["mean"] <= 100
    assert list(results["names"]) == list(results["classes"].values())
    for match in results["names"].values():
        assert -1 <= match["nearest"][0]["similarity"] <= 1
    page = (study.folder / "report.html").read_text()
    assert "Class names" in page
    assert results["names"]["water"]["nearest"][0]["caption"] in page
    model = study.folder / "model-0shot"
    arguments = ("--archive", generated.location, "--scene", "small", "--out", tmp_path / "map.tif")
    ended = command("predict.py", "--model", model, *arguments)
    assert ended.status == 0, ended.errors
    with rasterio.open(tmp_path / "map.tif") as read, rasterio.open(study.folder / "maps" / "0shot.tif") as kept:
        assert np.array_equal(read.read(1), kept.read(1))


def test_a_map_with_one_more_class_by_its_name(study: Study, generated: Archive, tmp_path: Path) -> None:
    file = tmp_path / "map.tif"
    arguments = ("--model", study.folder / "model-1shot", "--archive", generated.location, "--scene", "small")
    ended = command("predict.py", *arguments, "--out", file, "--also", "snow")
    assert ended.status == 0, ended.errors
    with rasterio.open(file) as read:
        tags, found = read.tags(), read.read(1)
        new = next(int(key.removeprefix("CLASS_")) for key, name in tags.items() if name == "snow")
        assert new not in load_classifier(study.folder / "model-1shot").config.classes
        assert read.colormap(1)[new][:3] != read.colormap(1)[0][:3]
    with rasterio.open(study.folder / "maps" / "1shot.tif") as kept:
        # class shares are estimated anew, with the new class among them
        assert np.mean((found != kept.read(1)) & (found != new)) < 0.01
    for names, said in (
        ("water", "names of other classes"),
        ("qwertyuiop", "far from every caption"),
        ("conncrete", "did you mean concrete?"),
    ):
        ended = command("predict.py", *arguments, "--out", file, "--force", "--also", names)
        assert ended.status == 2
        assert said in ended.errors
        assert ended.errors.count("\n") == 1


def test_a_classifier_of_the_format_before_names_still_loads(study: Study, tmp_path: Path) -> None:
    older = shutil.copytree(study.folder / "model-1shot", tmp_path / "older")
    content = json.loads((older / "config.json").read_text())
    content["format_version"] = 6
    del content["names"], content["weights_sha256"]
    (older / "config.json").write_text(json.dumps(content))
    kept = {key: value for key, value in load_file(older / "model.safetensors").items() if not key.startswith("names/")}
    save_file(kept, older / "model.safetensors")
    loaded = load_classifier(older)
    assert loaded.fitted.prior is None
    assert loaded.config.classes == load_classifier(study.folder / "model-1shot").config.classes


def test_one_more_class_joins_those_that_names_alone_tell(study: Study, generated: Archive, tmp_path: Path) -> None:
    file = tmp_path / "map.tif"
    arguments = ("--model", study.folder / "model-0shot", "--archive", generated.location, "--scene", "small")
    ended = command("predict.py", *arguments, "--out", file, "--also", "snow")
    assert ended.status == 0, ended.errors
    with rasterio.open(file) as read, rasterio.open(study.folder / "maps" / "0shot.tif") as kept:
        assert len(np.intersect1d(np.unique(read.read(1)), np.unique(kept.read(1)))) > 3


def test_without_wavelengths_names_are_off_and_the_study_says_so(
    archive: Archive, encoder: Path, tmp_path: Path
) -> None:
    arguments = (
        "--archive",
        archive.location,
        "--encoder",
        encoder,
        "--seeds",
        1,
        "--quick",
        "--out",
        tmp_path / "out",
    )
    ended = command("fewshot.py", *arguments, "--shots", "0,1")
    assert ended.status == 2
    assert "--shots 0: " in ended.errors
    assert len(ended.errors.strip().splitlines()) == 1
    ended = command("fewshot.py", *arguments, "--shots", 1)
    assert ended.status == 0, ended.errors
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["text"] == "scratch"
    assert results["names"] is None
    assert [note for note in results["notes"] if note.startswith("names do not act: ")]
    ended = command("fewshot.py", *arguments, "--force", "--text", "scratch", "--shots", "0")
    assert ended.status == 2
    assert "expected --text words" in ended.errors


def test_a_classifier_in_python_from_names_alone(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    told_by_truth(monkeypatch, scene, sharp=3.0)
    assert scene.labels is not None
    classifier = dc.FewShotClassifier(class_names=scene.record.classes)
    class_map = classifier.fit(scene, np.zeros_like(scene.labels)).predict(scene)
    assert classifier.classifier_.config.shots == 0
    tested = scene.labels > 0
    assert np.mean(class_map[tested] == scene.labels[tested]) > 2 / len(scene.record.classes)
    with pytest.raises(BadInput, match="expected at least one pixel with a class id of 1 or more"):
        dc.FewShotClassifier(text="scratch").fit(scene, np.zeros_like(scene.labels))
