"""Measures the rows of fewshot_sizes.py."""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from map_sizes import BANDS, TILE, TILE_COLS, TILE_ROWS
from repeated_scene import RepeatedScene
from report import Row, check_destination, print_table, write_json
from watched_process import watch

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.feature_extraction.encoder_source import CONTROL
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.scene.source import SceneSource
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

FEWSHOT: Final = Path(__file__).resolve().parents[1] / "launch" / "fewshot.py"
HOUSTON: Final = GeneratedSceneSpec("houston2013-size", 349, 1905, 144, 380.0, 1050.0)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        scene: the scene that is not repeated.
        shots: as the command takes them.
        seeds: draws of each.
        megapixels: of the repeated scenes, unless others are asked for.
        options: further ones of the command.
    """

    scene: GeneratedSceneSpec
    shots: str
    seeds: int
    megapixels: tuple[float, ...]
    options: tuple[str, ...]


QUICK: Final = Effort(GeneratedSceneSpec("small", 96, 96, 24, 420.0, 960.0), "1,2", 1, (0.2,), ("--quick",))
FULL: Final = Effort(HOUSTON, "1,2,5", 10, (20.0, 120.0), ())


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the table and writes ``--json``."""
    check_destination(arguments.json)
    effort = QUICK if arguments.quick else FULL
    load = os.getloadavg()[0]
    sizes = effort.megapixels if arguments.megapixels is None else arguments.megapixels
    tile = GeneratedScene(GeneratedSceneSpec(TILE, TILE_ROWS, TILE_COLS, BANDS, 490.0, 840.0))
    rows = [_measured(GeneratedScene(effort.scene), effort)]
    for size in sizes:
        side = round(math.sqrt(size * 1e6))
        rows.append(_measured(RepeatedScene("repeated", tile, side, side), effort))
    print_table("The command fewshot on generated scenes, an encoder of random weights", rows)
    if arguments.json is not None:
        command = "python benchmarks/fewshot_sizes.py" + " --quick" * arguments.quick
        config = {
            "command": command + f" --megapixels {','.join(f'{size:g}' for size in sizes)}",
            "scenes": "generated",
            "weights": "random",
            "shots": effort.shots,
            "seeds": effort.seeds,
            "processes_waiting_to_run_before": load,
        }
        write_json(arguments.json, config, rows)
    return EXIT_DONE


def _measured(scene: SceneSource, effort: Effort) -> Row:
    with tempfile.TemporaryDirectory(prefix="diffclip-fewshot-") as scratch:
        archive, out = Path(scratch) / "archive", Path(scratch) / "out"
        build_archive([scene], archive, ArchiveSettings())
        took = watch(_command(archive, out, effort))
        mapped = any((out / "maps").glob("*.tif"))
    return {
        "height_pixels": scene.height,
        "width_pixels": scene.width,
        "bands": sum(one.bands for one in scene.modalities),
        "models": len(effort.shots.split(",")) * effort.seeds,
        "mapped": mapped,
        "seconds": took.seconds,
        "cpu_seconds": took.cpu_seconds,
        "peak_memory_mib": took.peak_memory_mib,
    }


def _command(archive: Path, out: Path, effort: Effort) -> Sequence[str]:
    return (
        sys.executable, str(FEWSHOT), "--archive", str(archive), "--shots", effort.shots, "--seeds", str(effort.seeds),
        "--encoder", CONTROL, "--out", str(out), *effort.options,
    )  # fmt: skip
