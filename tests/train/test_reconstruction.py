"""What a run shows of its masked windows, and that showing it changes nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from small_runs import SHARDED, SMALL_MODEL, STEPS, Pretrain, Run, read_lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffclip_dist.model.diffusion_config import DiffusionConfig
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from diffclip_dist.train.run_files import METRICS_FILE
from diffclip_dist.train.single_process import pretrain_single_process
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput, FailedRun
from shards.scene.array_scene import ArrayScene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

SHOWN = ("reconstruct_windows=8", "checkpoint_every=20")


def settings(archive: Path, folder: Path, steps: int, *more: str) -> PretrainConfig:
    given = {"archive": str(archive), "run_dir": str(folder), "global_batch": 24, "steps": steps}
    return resolve_config(None, given, [*SMALL_MODEL, *more])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in read_lines(folder / METRICS_FILE)]


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reconstruction.json").read_text())
    return found


def skills(folder: Path) -> dict[str, float]:
    return {modality["name"]: modality["all_bands"]["skill"] for modality in figures(folder)["modalities"]}


@pytest.fixture(scope="module")
def trained(generated_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    pretrain_single_process(settings(generated_archive, folder, 60, *SHOWN))
    return folder


def test_it_learns_to_reconstruct(generated_archive: Path, trained: Path, tmp_path: Path) -> None:
    # a step that moves nothing: the weights that a run begins with
    pretrain_single_process(settings(generated_archive, tmp_path, 1, *SHOWN, "optimiser.learning_rate=1e-12"))
    before, after = skills(tmp_path), skills(trained)
    assert set(after) == {"hsi", "height"}
    for name, skill in after.items():
        assert skill > 0.0, name
        assert skill > before[name], name


def test_figures_are_of_every_band_of_every_modality(trained: Path) -> None:
    report = figures(trained)
    assert report["step"] == 60
    assert report["generated_scenes"] == ["small"]
    bands = {modality["name"]: modality["bands"] for modality in report["modalities"]}
    assert [band["band"] for band in bands["hsi"]] == list(range(1, 13))
    assert all(band["wavelength_nm"] > 300.0 for band in bands["hsi"])
    assert [band["wavelength_nm"] for band in bands["height"]] == [None]
    for modality in report["modalities"]:
        assert modality["windows"] == 8
        assert 0 < modality["masked_tokens"] <= 8 * 49
        assert [link["timestep"] for link in modality["skill_by_timestep"]][
            :: len(modality["skill_by_timestep"]) - 1
        ] == [DiffusionConfig().last_drawn, 0]
        mean_squares = [band["rmse"] ** 2 for band in modality["bands"]]
        assert modality["all_bands"]["rmse"] ** 2 == pytest.approx(np.mean(mean_squares))


def test_the_picture_is_in_the_run_and_in_tensorboard_at_every_checkpoint(trained: Path) -> None:
    picture = matplotlib.image.imread(trained / "reconstruction.png")
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    assert not list(trained.glob("*.partial*"))
    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    shown = events.Images("reconstruction")
    assert [image.step for image in shown] == [20, 40, 60]
    assert (shown[-1].height, shown[-1].width) == picture.shape[:2]
    for modality in figures(trained)["modalities"]:
        scalars = events.Scalars(f"reconstruction/skill/{modality['key']}")
        assert [scalar.step for scalar in scalars] == [20, 40, 60]
        assert scalars[-1].value == pytest.approx(modality["all_bands"]["skill"], rel=1e-5)


def test_losses_are_the_same_to_the_bit_without_it(generated_archive: Path, trained: Path, tmp_path: Path) -> None:
    pretrain_single_process(settings(generated_archive, tmp_path, 60, "reconstruct_windows=0", "checkpoint_every=20"))
    assert losses(tmp_path) == losses(trained)
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes() == (
        trained / "encoder" / "model.safetensors"
    ).read_bytes()
    assert not list(tmp_path.glob("reconstruction*"))


@pytest.mark.slow
def test_sharded_workers_show_what_one_shows_and_train_on_unchanged(
    pretrain: Pretrain, trained: Path, sharded: Run, tmp_path: Path
) -> None:
    arguments = ("--zero-stage", "3", "--workers", "2", "--steps", str(STEPS))
    shown = pretrain(tmp_path / "shown", *arguments, settings=(*SHARDED, *SHOWN))
    assert shown.status == 0, shown.err
    assert shown.losses == sharded.losses
    ours, theirs = figures(shown.folder), figures(trained)
    for here, there in zip(ours["modalities"], theirs["modalities"], strict=True):
        assert here["masked_tokens"] == there["masked_tokens"]
        assert here["all_bands"] == pytest.approx(there["all_bands"], rel=1e-2)


def test_sensors_that_share_no_batch_are_all_shown(tmp_path: Path) -> None:
    """Also what has no wavelengths, three modalities of one window, and a scene that nobody made up."""
    random = np.random.default_rng(0)
    sizes = {"msi": 4, "sar": 2, "height": 1}
    values: Mapping[str, Any] = {
        name: random.normal(size=(40, 40, bands)).astype(np.float32) for name, bands in sizes.items()
    }
    values["sar"][10:30, 10:30] = np.nan
    generated = GeneratedScene(GeneratedSceneSpec("made", 48, 48, 9))
    build_archive([ArrayScene("real", dict(values)), generated], tmp_path / "archive", ArchiveSettings(16, 5))
    pretrain_single_process(settings(tmp_path / "archive", tmp_path / "run", 2, *SHOWN))
    report = figures(tmp_path / "run")
    assert [modality["name"] for modality in report["modalities"]].count("height") == 2
    assert report["generated_scenes"] == ["made"]
    assert (tmp_path / "run" / "reconstruction.png").exists()


def test_weights_that_are_not_finite_stop_the_run_as_ever(generated_archive: Path, tmp_path: Path) -> None:
    more = (*SHOWN, "optimiser.learning_rate=1e30", "checkpoint_every=1")
    with pytest.raises(FailedRun, match="the loss is nan"):
        pretrain_single_process(settings(generated_archive, tmp_path, 30, *more))


def test_fewer_than_no_windows_are_refused(generated_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="reconstruct_windows: expected at least 0, found -1"):
        settings(generated_archive, tmp_path, 1, "reconstruct_windows=-1")
