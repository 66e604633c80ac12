"""A modality that covers a part of the scene: each pixel is classified by what it has."""

from dataclasses import replace

import numpy as np
import pytest

from diffclip_dist.feature_extraction.encoder_source import open_encoder
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Archive, Scene
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

HEAD_ALONE = FewshotConfig(class_priors="equal", discriminant=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("coverage") / "archive"
    spec = GeneratedSceneSpec(name="covered", height=64, width=64, bands=12)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings(tile_size=32, halo=3))
    return Archive.open(folder)


def covered(archive: Archive, share: float, blocks: bool, labels_everywhere: bool = False) -> Scene:
    """The generated scene with spectra at a share of its places, and labels there alone or everywhere."""
    scene = archive.read_scene("covered")
    assert scene.labels is not None
    random = np.random.default_rng(0)
    if blocks:
        kept = np.kron(random.random((8, 8)) < share, np.ones((8, 8), dtype=bool))
    else:
        kept = random.random(scene.labels.shape) < share
    labels = scene.labels if labels_everywhere else scene.labels * kept
    return replace(scene, valid={**scene.valid, "hsi": scene.valid["hsi"] & kept}, labels=labels)


@pytest.mark.parametrize("blocks", [False, True], ids=["random", "blocks"])
@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("labels_everywhere", [False, True], ids=["labels there", "labels everywhere"])
def test_what_unlabelled_pixels_say_does_not_cost_more_than_a_point(
    archive: Archive, share: float, labels_everywhere: bool, blocks: bool
) -> None:
    scene = covered(archive, share, blocks, labels_everywhere)
    encoder = open_encoder("none", scene.record).encoder
    task = Task((1, 5), 4, "random", "scratch")
    means = [
        np.mean([run.scores.oa for run in run_task(scene, encoder, task, config).runs])
        for config in (HEAD_ALONE, FewshotConfig())
    ]
    assert means[1] > means[0] - 1.0


def test_pixels_of_one_pattern_do_not_depend_on_how_many_the_others_are(archive: Archive) -> None:
    """The classes of pixels with spectra stay, whether the others have heights or nothing."""
    scene = covered(archive, 0.5, blocks=True)
    bare = replace(scene, valid={**scene.valid, "height": scene.valid["height"] & scene.valid["hsi"]})
    encoder = open_encoder("none", scene.record).encoder
    task = Task((2,), 1, "random", "scratch")
    # without smoothing and with windows of their own, no pixel sees another pattern's pixels
    config = FewshotConfig(smoothing=0, readout="pixel")
    whole, alone = (run_task(one, encoder, task, config).maps[2] for one in (scene, bare))
    inside = scene.valid["hsi"] & scene.valid["height"]
    assert np.mean(whole[inside] == alone[inside]) > 0.9
    assert (whole[scene.valid["height"] & ~scene.valid["hsi"]] > 0).all()
