"""Time and memory of maps of scenes of several sizes, each made by the command in a process of its own."""

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from process_memory import peak_mib
from repeated_scene import RepeatedScene
from report import Row

import diffclip_dist as dc
from diffclip_dist.mapping.map_files import probabilities_file
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import FailedRun
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

PREDICT: Final = Path(__file__).resolve().parents[1] / "launch" / "predict.py"
TILE: Final = "tile"
TILE_ROWS, TILE_COLS = 288, 352
BANDS: Final = 4
SHOTS: Final = 2
SAMPLING_S: Final = 0.1


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
    start = time.perf_counter()
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 our own arguments
        # what wait4 tells of a child's memory begins with this process's own
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            time.sleep(SAMPLING_S)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise FailedRun(f"predict.py ended with status {process.returncode} on {megapixels:g} megapixels")
    return {
        "part": "sizes",
        "height_pixels": side,
        "width_pixels": side,
        "bands": BANDS + 1,
        "workers": workers,
        "seconds": seconds,
        "pixels_per_s": side**2 / seconds,
        "peak_memory_mib": peak,
        "map_mb": out.stat().st_size / 1e6,
        "probabilities_mb": probabilities_file(out).stat().st_size / 1e6,
    }
