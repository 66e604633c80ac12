"""The fourth description of a pixel, noise-whitened components, on a generated scene most of whose bands are noise."""

import numpy as np

from diffclip_dist.feature_extraction.encoder_source import without_encoder
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.scene.array_scene import ArrayScene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

NOISE_BANDS = 48


def scene_with_noise_bands() -> Scene:
    """A generated scene of 16 bands and heights, with bands of noise beside; classes of few labels are out."""
    source = GeneratedScene(GeneratedSceneSpec(height=64, width=64, bands=16))
    scene = load_scene(source)
    assert scene.labels is not None
    noise = 1000.0 * np.random.default_rng(0).normal(size=(64, 64, NOISE_BANDS))
    values = {"hsi": np.concatenate([scene.values["hsi"], noise], axis=2), "height": scene.values["height"]}
    missing = {name: np.where(scene.valid[name][..., None], held, np.nan) for name, held in values.items()}
    few = np.isin(scene.labels, np.flatnonzero(np.bincount(scene.labels.ravel()) < 6))
    labels = np.where(few, 0, scene.labels).astype(scene.labels.dtype)
    as_stored = {name: held.astype(np.float32) for name, held in missing.items()}
    return load_scene(ArrayScene("noisy", as_stored, classes=source.classes, labels=labels, generated=True))


def test_bands_of_noise_hide_classes_from_few_shots_less() -> None:
    # 67.1 % here, and 61.2 % with the three descriptions that there were before, the first preferred
    scene = scene_with_noise_bands()
    task = Task((2,), 6, "random", "scratch")
    outcome = run_task(scene, without_encoder(scene.record).encoder, task, FewshotConfig())
    assert np.mean([run.scores.oa for run in outcome.runs]) > 64.0
