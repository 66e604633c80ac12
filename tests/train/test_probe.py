"""What a run shows of its encoder on a labelled scene, and that showing it changes nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import SMALL_MODEL, Pretrain, Refused, read_lines
from small_study import write_small_scene
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config, same_run
from diffclip_dist.train.run_files import METRICS_FILE
from diffclip_dist.train.single_process import pretrain_single_process
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import FailedRun
from shards.open_scene import open_scene
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Classes

PROBED = ("probe.scene=small", "probe.pixels=400", "checkpoint_every=20", "log_every=15")


def settings(archive: Path, folder: Path, steps: int, *more: str) -> PretrainConfig:
    given = {"archive": str(archive), "run_dir": str(folder), "global_batch": 24, "steps": steps}
    return resolve_config(None, given, [*SMALL_MODEL, *more])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_lines(folder / METRICS_FILE)]


@pytest.fixture(scope="module")
def probed(generated_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    pretrain_single_process(settings(generated_archive, folder, 60, *PROBED))
    return folder


def test_accuracy_is_logged_with_every_checkpoint(probed: Path) -> None:
    accuracy = {line["step"]: line["probe"] for line in metrics(probed) if "probe" in line}
    assert [*accuracy] == [20, 40, 60]
    assert [line["step"] for line in metrics(probed)] == [15, 20, 30, 40, 45, 60]
    events = EventAccumulator(str(probed / "tensorboard"))
    events.Reload()
    for name in ("knn", "linear"):
        shown = events.Scalars(f"probe/{name}")
        assert [one.step for one in shown] == [20, 40, 60]
        assert [one.value for one in shown] == pytest.approx([each[name] for each in accuracy.values()], rel=1e-6)


def test_figures_to_compare_with_stand_beside_it(probed: Path) -> None:
    report = json.loads((probed / "probe.json").read_text())
    assert report["scene"] == "small"
    assert report["generated"]
    assert report["modalities"] == ["hsi", "height"]
    assert 300 < report["fit_pixels"] + report["test_pixels"] <= 400
    assert abs(report["fit_pixels"] - report["test_pixels"]) <= len(report["classes"])
    last = metrics(probed)[-1]["probe"]
    for name in ("knn", "linear"):
        assert report["chance"] < report["untrained"][name] <= 100.0
        assert report["chance"] < report["bands_alone"][name] <= 100.0
        assert report["chance"] < last[name] <= 100.0


def test_losses_and_encoder_are_the_same_to_the_bit_without_it(
    generated_archive: Path, probed: Path, tmp_path: Path
) -> None:
    pretrain_single_process(settings(generated_archive, tmp_path, 60, "checkpoint_every=20", "log_every=5"))
    without = {line["step"]: line["loss"] for line in metrics(tmp_path)}
    for line in metrics(probed):
        assert line["loss"] == without[line["step"]]
        assert line["lr"] > 0.0
    weights = "encoder/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (probed / weights).read_bytes()
    assert not (tmp_path / "probe.json").exists()


def test_the_same_seed_probes_the_same(generated_archive: Path, probed: Path, tmp_path: Path) -> None:
    pretrain_single_process(settings(generated_archive, tmp_path, 1, *PROBED))
    ours, theirs = (json.loads((folder / "probe.json").read_text()) for folder in (tmp_path, probed))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def striped(folder: Path, class_ids: list[int]) -> Path:
    """An archive of a scene in which each band alone tells a class, with a hole in the one modality."""
    cover = np.repeat(np.array(class_ids)[np.arange(40) // 4 % len(class_ids)][None], 40, axis=0).astype(np.uint16)
    values = np.stack([(cover == 1) * 6.0, (cover == 2) * 6.0, (cover == 3) * 6.0], axis=2).astype(np.float32)
    values += np.random.default_rng(0).normal(size=values.shape).astype(np.float32) * 0.1
    values[5:9, 5:9] = np.nan
    scene = ArrayScene("striped", {"msi": values}, classes=Classes({1: "a", 2: "b", 3: "c"}), labels=cover)
    build_archive([scene], folder, ArchiveSettings(tile_size=16, halo=3))
    return folder


def test_a_scene_of_another_archive_whose_classes_each_band_tells(tmp_path: Path) -> None:
    labelled = striped(tmp_path / "labelled", [1, 2, 3])
    unlabelled = np.random.default_rng(1).normal(size=(40, 40, 3)).astype(np.float32)
    build_archive([ArrayScene("plain", {"msi": unlabelled})], tmp_path / "archive", ArchiveSettings(16, 3))
    asked = ("probe.scene=striped", f"probe.archive={labelled}", "probe.pixels=120")
    pretrain_single_process(settings(tmp_path / "archive", tmp_path / "run", 2, *asked))
    report = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert report["classes"] == ["a", "b", "c"]
    assert report["bands_alone"] == {"knn": 100.0, "linear": 100.0}
    assert report["untrained"]["linear"] > 90.0


def test_a_scene_with_one_class_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    archive = striped(tmp_path / "archive", [0, 2])
    with pytest.raises(FailedRun, match=r"probe\.scene striped: expected two or more classes"):
        pretrain_single_process(settings(archive, tmp_path / "run", 2, "probe.scene=striped"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (("probe.scene=smal",), "no scene 'smal'; it holds: small; did you mean small?"),
        (("probe.scene=small", "probe.archive=/nowhere"), "no archive here"),
        (("probe.archive=/nowhere",), "expected the name of a labelled scene in probe.scene as well"),
        (("probe.scene=small", "probe.pixels=1"), "probe.pixels: expected at least 4, found 1"),
        (("probe.scen=small",), "no such setting; did you mean probe.scene?"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_the_run(
    refused: Refused, tmp_path: Path, setting: tuple[str, ...], said: str
) -> None:
    assert said in refused(tmp_path / "run", settings=setting)
    assert not (tmp_path / "run").exists()


def test_a_scene_without_labels_or_of_another_sensor_is_refused(refused: Refused, tmp_path: Path) -> None:
    scene = write_small_scene(tmp_path / "scene", "bare", labels=False)
    build_archive([open_scene(str(scene))], tmp_path / "other", ArchiveSettings(16, 3))
    asked = ("probe.scene=bare", f"probe.archive={tmp_path / 'other'}")
    assert "bare" in refused(tmp_path / "run", settings=asked)
    asked = ("probe.scene=striped", f"probe.archive={striped(tmp_path / 'third', [1, 2])}")
    said = refused(tmp_path / "run", settings=asked)
    assert "expected a modality that the run's scenes have, with the same bands; it has msi (3 bands)" in said


@pytest.mark.slow
def test_workers_of_sharded_parameters_probe_too_and_a_resumed_run_goes_on(pretrain: Pretrain, tmp_path: Path) -> None:
    arguments = ("--zero-stage", "3", "--workers", "2")
    more = ("probe.scene=small", "probe.pixels=200", "checkpoint_every=5", "log_every=5", "optimiser.ema_decay=0.5")
    begun = pretrain(tmp_path / "run", *arguments, "--steps", "10", settings=more)
    assert begun.status == 0, begun.err
    resumed = pretrain(tmp_path / "run", *arguments, "--steps", "15", "--resume", settings=more)
    assert resumed.status == 0, resumed.err
    assert [line["step"] for line in metrics(tmp_path / "run") if "probe" in line] == [5, 10, 15]


def test_settings_of_the_probe_may_change_on_resume() -> None:
    probed = resolve_config(None, {}, ["probe.scene=small"])
    assert same_run(probed, PretrainConfig()) == ()
