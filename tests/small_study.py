"""A small labelled scene whose classes can be told apart, and what tests of few-shot and mapping build from it."""

import contextlib
import io
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from diffclip_dist.data.modality_statistics import statistics_of
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import FORMAT_VERSION, EncoderConfig, Training, new_encoder, save_encoder
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
HEIGHT, WIDTH = 44, 38
CLASSES = {2: "roof", 5: "tree", 7: "water"}
MODEL = ModelConfig(window=5, width=16, depth=1, heads=2, decoder_depth=1)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Study:
    """A study's folder, the command's arguments, and how it ended."""

    folder: Path
    arguments: tuple[object, ...]
    ended: Ended


def command(name: str, *arguments: object) -> Ended:
    """Runs launch/NAME with these arguments, in this process."""
    given, sys.argv = sys.argv, [name, *map(str, arguments)]
    output, errors = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as ended,
        ):
            runpy.run_path(str(LAUNCH / name), run_name="__main__")
    finally:
        sys.argv = given
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, output.getvalue(), errors.getvalue())


def write_small_scene(folder: Path, name: str, labels: bool = True, **extra: object) -> Path:
    """Stripes of three classes, each with a spectrum and a height of its own; the lidar has a hole."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    cover = np.repeat(np.array([2, 5, 7])[np.arange(WIDTH) // 5 % 3][None], HEIGHT, axis=0)
    spectra = {2: [9, 8, 7, 6, 5, 4], 5: [1, 2, 1, 9, 9, 8], 7: [4, 3, 2, 1, 0, 0]}
    heights = {2: 8.0, 5: 12.0, 7: 0.0}
    hsi = np.zeros((HEIGHT, WIDTH, 6), np.float32)
    lidar = np.zeros((HEIGHT, WIDTH), np.float32)
    for class_id in CLASSES:
        hsi[cover == class_id] = spectra[class_id]
        lidar[cover == class_id] = heights[class_id]
    hsi += random.normal(0, 0.6, hsi.shape).astype(np.float32)
    lidar += random.normal(0, 0.6, lidar.shape).astype(np.float32)
    lidar[30:40, 4:16] = np.nan
    np.save(folder / "hsi.npy", hsi)
    np.save(folder / "lidar.npy", lidar)
    # every third row is unlabelled, and there are but four pixels of water in the reference
    reference = np.where(np.arange(HEIGHT)[:, None] % 3 == 0, 0, cover).astype(np.uint8)
    water = np.flatnonzero(reference == 7)
    reference.ravel()[np.setdiff1d(water, water[[5, 60, 120, 200]])] = 0
    np.save(folder / "gt.npy", reference)
    scene: dict[str, object] = {
        "name": name,
        "modalities": {"hsi": {"files": "hsi.npy"}, "lidar": {"files": "lidar.npy"}},
    }
    if labels:
        scene["labels"] = {"files": "gt.npy", "ignore": [0], "classes": CLASSES, **extra}
    (folder / "scene.yaml").write_text(yaml.safe_dump(scene))
    return folder


def build(scenes: list[str], out: Path) -> Archive:
    """An archive of these scenes, with tiles small enough that there are several."""
    build_archive([open_scene(scene) for scene in scenes], out, ArchiveSettings(tile_size=16, halo=3))
    return Archive.open(out)


def write_encoder(archive: Archive, scene: str, folder: Path, steps: int = 7) -> Path:
    """An encoder for a scene, with random weights that claim to be pretrained."""
    schemas = tuple(ModalitySchema.of(modality) for modality in archive.scene(scene).modalities)
    encoder = new_encoder(MODEL, schemas, seed=3)
    training = Training(steps, 3, archive.fingerprint, (scene,), ())
    statistics = statistics_of((archive.scene(scene),))
    save_encoder(folder, encoder.state_dict(), EncoderConfig(FORMAT_VERSION, MODEL, schemas, training, statistics))
    return folder
