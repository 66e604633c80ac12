"""Time and memory of maps of scenes of several sizes, each made by the command in a process of its own."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from repeated_scene import RepeatedScene
from report import Row
from watched_process import watch

import diffclip_dist as dc
from diffclip_dist.mapping.map_files import probabilities_file
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

PREDICT: Final = Path(__file__).resolve().parents[1] / "launch" / "predict.py"
TILE: Final = "tile"
TILE_ROWS, TILE_COLS = 288, 352
BANDS: Final = 4
SHOTS: Final = 2


def size_rows(scratch: Path, megapixels: Sequence[float], workers: int) -> list[Row]:
    """One row a size: a generated tile repeated, mapped by bands alone with probabilities.

    Args:
        scratch: an empty folder, for archives and maps.
        megapixels: of each scene.
        workers: processes of the command.
    """
    tile = GeneratedScene(GeneratedSceneSpec(TILE, TILE_ROWS, TILE_COLS, BANDS, 490.0, 840.0))
    build_archive([tile], scratch / TILE, ArchiveSettings())
    model = scratch / "model"
    _fit(Archive.open(scratch / TILE), model)
    return [_size_row(scratch / f"{size:g}", tile, model, size, workers) for size in megapixels]


def _fit(archive: Archive, model: Path) -> None:
    """A classifier of bands alone from a few labels a class."""
    scene = archive.read_scene(TILE)
    assert scene.labels is not None
    shots = np.zeros_like(scene.labels)
    for class_id in scene.record.classes:
        rows, cols = np.nonzero(scene.labels == class_id)
        chosen = np.random.default_rng(class_id).permutation(len(rows))[:SHOTS]
        shots[rows[chosen], cols[chosen]] = class_id
    dc.FewShotClassifier().fit(scene, shots).save(model)


def _size_row(folder: Path, tile: GeneratedScene, model: Path, megapixels: float, workers: int) -> Row:
    side = round(math.sqrt(megapixels * 1e6))
    build_archive([RepeatedScene("repeated", tile, side, side)], folder / "archive", ArchiveSettings())
    out = folder / "map.tif"
    command = [
        sys.executable, str(PREDICT), "--model", str(model), "--archive", str(folder / "archive"),
        "--scene", "repeated", "--out", str(out), "--probabilities", "--workers", str(workers),
    ]  # fmt: skip
    took = watch(command)
    return {
        "part": "sizes",
        "height_pixels": side,
        "width_pixels": side,
        "bands": BANDS + 1,
        "workers": workers,
        "seconds": took.seconds,
        "cpu_seconds": took.cpu_seconds,
        "pixels_per_s": side**2 / took.seconds,
        "peak_memory_mib": took.peak_memory_mib,
        "map_mb": out.stat().st_size / 1e6,
        "probabilities_mb": probabilities_file(out).stat().st_size / 1e6,
    }
