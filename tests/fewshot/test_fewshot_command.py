"""launch/fewshot.py from an archive to figures, classifiers, maps and a report."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file, save_file
from small_study import CLASSES, HEIGHT, WIDTH, Study, build, command, write_encoder, write_small_scene

from diffclip_dist.fewshot.calibration import UNCALIBRATED
from diffclip_dist.fewshot.classifier import FORMAT_VERSION, load_classifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.mapping.predict import predict_map
from diffclip_dist.model.saved_encoder import load_encoder
from shards.archive.archive import Archive
from shards.errors import BadInput

SUMMARY = {"mean", "std", "ci95", "per_seed"}


def results_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


def test_the_command_ends_well_and_says_where_things_lie(study: Study) -> None:
    assert study.ended.status == 0, study.ended.errors
    assert "mean [95 % interval]" in study.ended.output
    assert str(study.folder / "report.html") in study.ended.output
    assert {path.name for path in study.folder.iterdir()} == {
        "results.json", "supports.json", "report.html", "maps", "model-1shot", "model-4shot",
    }  # fmt: skip


def test_results_are_as_the_contract_says(study: Study, encoder: Path) -> None:
    results = results_of(study.folder)
    assert (results["scene"], results["protocol"], results["text"]) == ("town", "random", "scratch")
    assert results["encoder"] == str(encoder)
    assert list(results["shots"]) == ["1", "4"]
    for figures in results["shots"].values():
        for name in ("oa", "aa", "kappa"):
            assert set(figures[name]) == SUMMARY
            assert len(figures[name]["per_seed"]) == 3
            assert figures[name]["mean"] == pytest.approx(np.mean(figures[name]["per_seed"]))
            low, high = figures[name]["ci95"]
            assert low <= figures[name]["mean"] <= high
        assert 1 < figures["oa"]["mean"] <= 100
        assert -1 <= figures["kappa"]["mean"] <= 1
        assert list(figures["per_class"]) == list(CLASSES.values())
        assert sum(map(sum, figures["confusion"])) == sum(figures["query_pixels"])
    assert [note for note in results["notes"] if "water" in note and "4 shots" in note]


def test_the_chosen_pixels_are_saved_and_nested(study: Study, archive: Archive) -> None:
    chosen = json.loads((study.folder / "supports.json").read_text())["shots"]
    labels = archive.read_scene("town").labels
    assert labels is not None
    for seed in ("0", "1", "2"):
        for class_id, name in CLASSES.items():
            few, many = chosen["1"][seed][name], chosen["4"][seed][name]
            assert len(few) == 1
            assert few == many[:1]
            assert len(many) == (3 if name == "water" else 4)
            assert {int(labels[row, col]) for row, col in many} == {class_id}


def test_the_report_needs_no_other_file_and_says_how_it_was_done(study: Study) -> None:
    page = (study.folder / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    # the accuracy over shots, the calibration, the reference; for each count of shots: labels, map, right and wrong
    assert page.count("data:image/png;base64,") == 3 + 2 * 3
    for text in ("pretrained for 7 steps on town", "scratch", "water", "GENERATED"):
        assert (text in page) is (text != "GENERATED")


def test_maps_and_classifiers_are_there_for_every_count_of_shots(study: Study) -> None:
    for shots in (1, 4):
        assert (study.folder / "maps" / f"{shots}shot.png").stat().st_size > 5000
        with rasterio.open(study.folder / "maps" / f"{shots}shot.tif") as read:
            assert read.shape == (HEIGHT, WIDTH)
            assert set(np.unique(read.read(1)).tolist()) <= {*CLASSES}
        classifier = load_classifier(study.folder / f"model-{shots}shot")
        assert (classifier.config.shots, classifier.config.seed) == (shots, 0)
        assert [known.name for known in classifier.config.classes] == list(CLASSES.values())


def test_every_json_file_is_strict_json(study: Study) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    files = list(study.folder.rglob("*.json"))
    assert len(files) == 6
    for file in files:
        json.loads(file.read_text(), parse_constant=refuse)


def test_a_map_of_the_kept_classifier_is_the_studys_own_map(study: Study, archive: Archive, tmp_path: Path) -> None:
    out = tmp_path / "maps" / "town.tif"
    arguments = ("--archive", archive.location, "--scene", "town", "--out", out)
    ended = command("predict.py", "--model", study.folder / "model-4shot", *arguments)
    assert ended.status == 0, ended.errors
    with rasterio.open(out) as mine, rasterio.open(study.folder / "maps" / "4shot.tif") as theirs:
        assert np.array_equal(mine.read(1), theirs.read(1))


def test_the_same_seed_gives_the_same_figures_and_weights_whatever_else_is_asked(
    study: Study, archive: Archive, encoder: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    arguments = ("--archive", archive.location, "--scene", "town", "--encoder", encoder, "--shots", 4, "--seeds", 1)
    assert command("fewshot.py", *arguments, "--out", again).status == 0
    one, other = results_of(study.folder)["shots"]["4"], results_of(again)["shots"]["4"]
    assert one["oa"]["per_seed"][:1] == other["oa"]["per_seed"]
    for kept in ("model-4shot/model.safetensors", "maps/4shot.tif", "maps/4shot.png"):
        assert (study.folder / kept).read_bytes() == (again / kept).read_bytes()


def test_an_earlier_study_is_replaced_by_force_alone_and_anything_else_is_not_touched(
    study: Study, archive: Archive, encoder: Path, tmp_path: Path
) -> None:
    arguments = ("--archive", archive.location, "--encoder", f"none:{encoder}", "--shots", "2", "--seeds", 1, "--quick")
    earlier = shutil.copytree(study.folder, tmp_path / "earlier")
    before = contents(earlier)
    ended = command("fewshot.py", *arguments, "--out", earlier)
    assert ended.status == 2
    assert ended.errors.splitlines() == [
        f"error: --out {earlier}: holds a few-shot study already; give --force to replace it, or another --out"
    ]
    (tmp_path / "link").symlink_to(earlier)
    failed = command("fewshot.py", *arguments, "--scene", "village", "--out", earlier, "--force")
    assert failed.status == 2
    assert contents(earlier) == before
    assert command("fewshot.py", *arguments, "--out", tmp_path / "link", "--force").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "link"]
    assert not (earlier / "model-1shot").exists()
    results = results_of(earlier)
    assert (results["quick"], results["shots"]["2"]["oa"]["ci95"]) == (True, None)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    ended = command("fewshot.py", *arguments, "--out", precious, "--force")
    assert ended.status == 2
    assert "name another folder" in ended.errors
    assert [path.name for path in precious.iterdir()] == ["thesis.txt"]


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder."""
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_a_killed_run_leaves_does_not_block_the_next(
    study: Study, archive: Archive, encoder: Path, tmp_path: Path
) -> None:
    arguments = ("--archive", archive.location, "--encoder", f"none:{encoder}", "--shots", "2", "--seeds", 1, "--quick")
    out = tmp_path / "study"
    killed_while_writing = shutil.copytree(study.folder / "maps", tmp_path / ".study.partial" / "maps")
    assert command("fewshot.py", *arguments, "--out", out).status == 0
    assert not killed_while_writing.exists()
    before = contents(out)
    out.rename(tmp_path / ".study.earlier")  # killed between the two renames of a run with --force
    ended = command("fewshot.py", *arguments, "--out", out)
    assert "holds a few-shot study already" in ended.errors
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_a_generated_scene_is_called_one_everywhere(tmp_path: Path) -> None:
    made = build(["synthetic"], tmp_path / "made")
    small = write_encoder(made, "synthetic", tmp_path / "encoder")
    out = tmp_path / "study"
    arguments = ("--archive", made.location, "--encoder", f"none:{small}", "--shots", "1,2", "--seeds", 2, "--quick")
    ended = command("fewshot.py", *arguments, "--out", out)
    assert ended.status == 0, ended.errors
    assert "synthetic (generated)" in ended.output
    assert results_of(out)["generated"] is True
    page = (out / "report.html").read_text()
    assert "GENERATED SCENE" in page
    assert "RANDOM ENCODER" in page
    with rasterio.open(out / "maps" / "2shot.tif") as read:
        assert read.tags()["GENERATED"] == "true"
    assert load_classifier(out / "model-2shot").config.generated


def test_random_weights_of_an_encoders_configuration_are_a_control(
    archive: Archive, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "control"
    arguments = ("--archive", archive.location, "--encoder", f"none:{encoder}", "--shots", "1", "--seeds", 1)
    assert command("fewshot.py", *arguments, "--out", out).status == 0
    control = load_classifier(out / "model-1shot").fitted.encoder
    pretrained = load_encoder(encoder)
    assert control.config == pretrained.config
    weight = "transformer.blocks.0.mlp.0.weight"
    assert not (control.state_dict()[weight] == pretrained.state_dict()[weight]).any()


def test_ctrl_c_leaves_nothing_and_says_so(
    archive: Archive, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffclip_dist.study.run_study.run_task", interrupted)
    out = tmp_path / "out"
    arguments = ("--archive", archive.location, "--encoder", encoder, "--shots", "1", "--out", out)
    ended = command("fewshot.py", *arguments)
    assert ended.status == 130
    assert ended.errors.splitlines()[-1] == f"interrupted: {out}: as it was before; the same command begins anew"
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--shots", "0"], "--shots"),
        (["--fit", "--shots", "1,2"], "--fit --shots 1,2: --fit learns from every label and draws none"),
        (["--fit", "--seeds", "3"], "--fit --seeds 3: --fit learns from every label and draws none"),
        (["--fit", "--protocol", "official"], "no official split"),
        (["--shots", "two"], "--shots two: expected numbers"),
        (["--shots", "1", "--seeds", "0"], "--seeds"),
        (["--shots", "1", "--scene", "village"], "no scene 'village'"),
        (["--shots", "1", "--scene", "plain"], "--scene plain: has no labels"),
        (["--shots", "1", "--protocol", "official"], "no official split"),
        (["--shots", "1", "--text", "bank:absent.npy"], "absent.npy"),
        (["--shots", "1", "--text", "clip"], "expected words, scratch, bank:FILE or open_clip"),
        (["--shots", "1", "--scene", "twon"], "it holds: plain, town; did you mean town?"),
        (["--shots", "1", "--archive", __file__], "a file, expected an archive's folder; shard.py SCENE --out ARCHIVE"),
        (["--shots", "1", "--encoder", "absent"], "absent: expected an encoder's"),
        (["--shots", "1", "--encoder", "none:absent"], "absent: expected an encoder's"),
        (["--shots", "1", "--archive", "absent"], "absent"),
        (["--shots", "1", "--class-shares", "equal"], "--class-shares: is now called --class-priors"),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(
    archive: Archive, tmp_path: Path, arguments: list[str], fault: str
) -> None:
    out = tmp_path / "out"
    given = ["--archive", archive.location, "--encoder", "none", *arguments]
    ended = command("fewshot.py", *given, "--out", out)
    assert ended.status == 2
    assert fault in ended.errors
    assert len([line for line in ended.errors.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in ended.errors
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_what_is_meant_is_answered_with_it(study: Study, archive: Archive, tmp_path: Path) -> None:
    places = ("--archive", archive.location, "--scene", "town", "--out")
    classifier = study.folder / "model-1shot"
    ended = command("fewshot.py", *places, tmp_path / "out", "--shots", "1", "--encoder", classifier)
    assert ended.status == 2
    assert ended.errors.rstrip().endswith(f"did you mean the encoder {classifier / 'encoder'}?")
    ended = command("predict.py", *places, tmp_path / "map.tif", "--model", study.folder)
    assert ended.status == 2
    assert ended.errors.rstrip().endswith(f"did you mean {classifier} or {study.folder / 'model-4shot'}?")
    ended = command("predict.py", *places, tmp_path / "map.tif", "--model", classifier / "encoder")
    assert "an encoder, expected a classifier; fewshot.py --encoder" in ended.errors


def test_several_labelled_scenes_want_a_name(archive: Archive, tmp_path: Path) -> None:
    del archive
    two = build(["synthetic", "synthetic-vnir"], tmp_path / "two")
    ended = command(
        "fewshot.py", "--archive", two.location, "--encoder", "none", "--shots", "1", "--out", tmp_path / "o"
    )
    assert ended.status == 2
    assert "synthetic, synthetic-vnir" in ended.errors


def test_a_damaged_classifier_is_refused_by_name(study: Study, tmp_path: Path) -> None:
    broken = tmp_path / "broken"

    def copied() -> Path:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(study.folder / "model-1shot", broken)
        return broken

    weights = copied() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"model\.safetensors: not a classifier's weights"):
        load_classifier(broken)
    (copied() / "config.json").unlink()
    with pytest.raises(BadInput, match=r"config\.json"):
        load_classifier(broken)
    config = copied() / "config.json"
    config.write_text(config.read_text().replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 9', 1))
    with pytest.raises(BadInput, match=f"format_version: expected {FORMAT_VERSION}, found 9"):
        load_classifier(broken)
    shutil.rmtree(copied() / "encoder")
    with pytest.raises(BadInput, match="encoder"):
        load_classifier(broken)


def as_version_4(folder: Path) -> Path:
    """Gives a classifier's folder the names that version 4 of the format had."""
    older = {"bilateral_bandwidth_S": "unlike_S", "variance_S": "spread_S", "dual_coef_GQE": "answers_GQE"}
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        owner, dot, own = name.rpartition(".")
        weights[owner.replace("extractor", "describer") + dot + older.get(own, own)] = tensor
    save_file(weights, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    content["format_version"] = 4
    del content["weights_sha256"]
    content["fewshot"]["class_shares"] = content["fewshot"].pop("class_priors")
    content["fewshot"]["spreading"] = False
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_classifier_of_the_older_format_still_maps(study: Study, archive: Archive, tmp_path: Path) -> None:
    older = as_version_4(shutil.copytree(study.folder / "model-4shot", tmp_path / "older"))
    with rasterio.open(study.folder / "maps" / "4shot.tif") as read:
        assert np.array_equal(predict_map(load_classifier(older), archive["town"]), read.read(1))
    config = older / "config.json"
    config.write_text(config.read_text().replace('"spreading": false', '"spreading": true'))
    with pytest.raises(BadInput, match=r"config\.json: fewshot\.spreading: expected false"):
        load_classifier(older)


def without_components(folder: Path, kept: bool) -> Path:
    """Gives a classifier's folder no weight for the fourth feature set, and leaves the set out unless it is kept."""
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        own = name.rpartition("/")[2].rpartition(".")[2]
        if own == "weight_G":
            tensor[9:] = 0.0
            tensor /= tensor.sum()
        if own == "metric_direction_KE":
            tensor.zero_()
        fewer = {"bilateral_bandwidth_S": 3, "support_SQK": 3, "variance_S": 3, "weight_G": 9, "dual_coef_GQE": 9}
        if kept or own != "metric_direction_KE":
            weights[name] = tensor if kept else tensor[: fewer.get(own)].clone()
    save_file(weights, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    del content["weights_sha256"]
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_classifier_from_before_components_were_a_feature_set_maps_by_what_it_has(
    study: Study, archive: Archive, tmp_path: Path
) -> None:
    maps = [
        predict_map(load_classifier(without_components(copied, kept)), archive["town"])
        for kept in (True, False)
        for copied in [shutil.copytree(study.folder / "model-4shot", tmp_path / f"kept {kept}")]
    ]
    assert np.array_equal(*maps)


def test_figures_say_how_well_probabilities_hold(study: Study) -> None:
    figures = json.loads((study.folder / "results.json").read_text())["shots"]
    for shots in ("1", "4"):
        found = figures[shots]["calibration"]
        assert found.keys() >= {"temperature", "held_out_pixels", "query_pixels", "ece_before", "ece_after", "bins"}
        assert sum(one["pixels"] for one in found["bins"]) == sum(found["query_pixels"])
        assert all(a <= b for a, b in zip(found["held_out_pixels"], figures[shots]["support_pixels"], strict=True))
        kept = load_classifier(study.folder / f"model-{shots}shot")
        assert kept.fitted.calibration.temperature == found["temperature"][0]
        assert kept.fitted.calibration.held_out_pixels == found["held_out_pixels"][0]
    assert figures["1"]["calibration"]["held_out_pixels"] == [0, 0, 0]
    assert min(figures["4"]["calibration"]["held_out_pixels"]) > 0


def test_a_classifier_without_calibration_is_read(study: Study, tmp_path: Path) -> None:
    older = shutil.copytree(study.folder / "model-4shot", tmp_path / "older")
    content = json.loads((older / "config.json").read_text())
    content["format_version"] = 5
    del content["calibration"], content["weights_sha256"]
    (older / "config.json").write_text(json.dumps(content))
    assert load_classifier(older).fitted.calibration == UNCALIBRATED


def test_the_published_second_stage_is_one_switch(archive: Archive, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ("--archive", archive.location, "--scene", "town", "--encoder", encoder, "--shots", 1, "--seeds", 1)
    ended = command("fewshot.py", *arguments, "--preset", "published", "--out", out)
    assert ended.status == 0, ended.errors
    used = load_classifier(out / "model-1shot").config.fewshot
    assert (used.readout, used.head, used.tune_encoder, used.stride, used.steps) == ("class", "cosine", True, 1, 150)
    assert not torch.equal(
        load_encoder(out / "model-1shot" / "encoder").inputs["hsi-6"].class_token_D,
        load_encoder(encoder).inputs["hsi-6"].class_token_D,
    )


def test_fit_learns_from_both_of_two_labels_a_class_and_says_how_it_was_tested(encoder: Path, tmp_path: Path) -> None:
    """The case of a user with two labelled pixels a class, of which one used to be held back."""
    scene = write_small_scene(tmp_path / "scene", "village")
    reference = np.load(scene / "gt.npy")
    few = np.zeros_like(reference)
    for class_id, count in {2: 2, 5: 2, 7: 1}.items():
        few.ravel()[np.flatnonzero(reference == class_id)[[3, 40][:count]]] = class_id
    np.save(scene / "gt.npy", few)
    village = build([str(scene)], tmp_path / "archive")
    out = tmp_path / "fit"
    ended = command("fewshot.py", "--archive", village.location, "--encoder", encoder, "--fit", "--out", out)
    assert ended.status == 0, ended.errors
    flat = " ".join(ended.output.split())
    assert "by cross-validation over the labels, 4 folds (leave-one-out) [95 % interval]" in flat
    assert "labels that lie beside each other are alike, so these figures are optimistic" in flat
    assert "water: not tested, for its only label is learned from" in flat
    results = results_of(out)
    fit = results["all_labels"]
    assert results["shots"] == {}
    assert fit["labels"] == fit["learned_from"] == {"roof": 2, "tree": 2, "water": 1}
    assert fit["tested"] == {"roof": 2, "tree": 2, "water": 0}
    assert (fit["folds"], fit["fold_kind"]) == (4, "leave-one-out")
    assert fit["oa"]["mean"] == pytest.approx(25 * np.trace(fit["confusion"]))
    assert 0 <= fit["oa"]["ci95"][0] < fit["oa"]["ci95"][1] <= 100
    assert fit["per_class"]["water"] == {"mean": None, "std": None, "ci95": None, "per_fold": []}
    classifier = load_classifier(out / "model")
    assert isinstance(classifier.fitted.head, KernelHead)
    assert classifier.fitted.head.support_SQK.shape[1] == 5
    page = (out / "report.html").read_text()
    assert "by cross-validation over the labels, 4 folds (leave-one-out)" in page
    with rasterio.open(out / "maps" / "all-labels.tif") as read:
        study_map = read.read(1)
    cover = np.repeat(np.array([2, 5, 7])[np.arange(WIDTH) // 5 % 3][None], HEIGHT, axis=0)
    assert np.mean(study_map == cover) > 0.9
    arguments = ("--archive", village.location, "--scene", "village", "--out", tmp_path / "map.tif")
    assert command("predict.py", "--model", out / "model", *arguments).status == 0
    with rasterio.open(tmp_path / "map.tif") as read:
        assert np.array_equal(read.read(1), study_map)


def test_fit_by_blocks_and_by_the_official_split(archive: Archive, encoder: Path, tmp_path: Path) -> None:
    reference = archive.read_scene("town").labels
    assert reference is not None
    scene = write_small_scene(tmp_path / "scene", "split", split={"train": "train.npy", "test": "test.npy"})
    upper = np.arange(HEIGHT)[:, None] < HEIGHT // 2
    np.save(scene / "train.npy", np.where(upper, reference, 0).astype(np.uint8))
    np.save(scene / "test.npy", np.where(upper, 0, reference).astype(np.uint8))
    split = build([str(scene)], tmp_path / "archive")
    arguments = ("--archive", split.location, "--encoder", encoder, "--fit", "--quick")
    ended = command("fewshot.py", *arguments, "--protocol", "official", "--out", tmp_path / "official")
    assert ended.status == 0, ended.errors
    fit = results_of(tmp_path / "official")["all_labels"]
    assert (fit["figures"], fit["fold_kind"]) == ("on the official test map", "official")
    assert sum(fit["labels"].values()) == np.count_nonzero(reference[: HEIGHT // 2])
    learned = json.loads((tmp_path / "official" / "supports.json").read_text())["all_labels"]
    assert max(row for places in learned.values() for row, _ in places) < HEIGHT // 2
    assert fit["oa"]["mean"] > 80
    ended = command("fewshot.py", *arguments, "--protocol", "blocks", "--out", tmp_path / "blocks")
    assert ended.status == 0, ended.errors
    fit = results_of(tmp_path / "blocks")["all_labels"]
    assert "of whole blocks" in fit["figures"]
    assert sum(fit["labels"].values()) == np.count_nonzero(reference)
    assert [note for note in results_of(tmp_path / "blocks")["notes"] if "learned from 150 of" in note]
