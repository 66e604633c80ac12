"""The encoder that comes with the package: what it is, when it is taken, and that it tells more than random weights."""

import json
from pathlib import Path

import pytest
from small_study import command

from diffclip_dist.feature_extraction.encoder_source import CONTROL, SHIPPED, SHIPPED_FOLDER, open_encoder
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.model.saved_encoder import read_config
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Scene
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.build.load_scene import load_scene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

# of no sensor and no place that it was pretrained on
UNSEEN = GeneratedScene(GeneratedSceneSpec("unseen", 48, 48, 32, 390, 1050, seed=303, labelled=1.0, overlap=0.4))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return load_scene(UNSEEN)


def test_it_was_pretrained_on_generated_scenes_alone_and_is_small() -> None:
    training = read_config(SHIPPED_FOLDER).training
    assert training.steps > 0
    assert training.scenes == training.generated_scenes
    assert (SHIPPED_FOLDER / "model.safetensors").stat().st_size < 10e6


def test_it_tells_classes_of_a_sensor_that_it_never_saw_better_than_random_weights(scene: Scene) -> None:
    config = FewshotConfig(head="cosine", tune_encoder=False)
    oa = {}
    for spec in (SHIPPED, CONTROL):
        encoder = open_encoder(spec, scene.record).encoder
        runs = run_task(scene, encoder, Task((2,), 3, "random", "scratch"), config).runs
        oa[spec] = sum(run.scores.oa for run in runs) / len(runs)
    assert oa[SHIPPED] > oa[CONTROL] + 1


def test_a_study_without_an_encoder_of_its_own_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no run lies here
    build_archive([UNSEEN], tmp_path / "archive", ArchiveSettings())
    ended = command("fewshot.py", "--archive", "archive", "--shots", "1", "--seeds", "1", "--quick", "--out", "out")
    assert ended.status == 0, ended.errors
    assert "28 scenes (28 of them generated), without labels" in ended.output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["encoder"] == SHIPPED
