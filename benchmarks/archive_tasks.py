"""What archive_process.py does in a process of its own: builds or streams an archive of a generated scene."""

import argparse
import json
import time
from typing import Final

import numpy as np
from process_memory import peak_mib

from diffclip_dist.cli.commandline import EXIT_DONE
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

BANDS: Final = 144
MANY_SHARDS: Final = ArchiveSettings(samples_per_shard=1)
WINDOW: Final = 11
BATCH: Final = 256


def houston_like(side: int) -> GeneratedScene:
    """A generated scene with the bands of Houston2013: 144 of a spectrometer and a height."""
    return GeneratedScene(GeneratedSceneSpec("generated-144", side, side, BANDS, 380.0, 1050.0))


def raw_mb(side: int) -> float:
    """Megabytes of its pixels: 144 bands of int16 and a height of float32."""
    return side * side * (BANDS * 2 + 4) / 1e6


def stream(out: str) -> int:
    """Reads and standardises every tile as pretraining does it, and cuts a batch of windows from each."""
    import torch  # here, so that building is measured without it

    from diffclip_dist.data.sensors import group_scenes
    from diffclip_dist.data.tiles import standardised_tile, stored_tile
    from diffclip_dist.data.windows import cut_windows, window_offsets

    torch.set_num_threads(1)
    archive = Archive.open(out)
    (group,) = group_scenes(archive.manifest, WINDOW)
    offsets_N = window_offsets(WINDOW, group.tile_side)
    rng, windows = np.random.default_rng(0), 0
    for index in rng.permutation(len(group.tiles)):
        tile = stored_tile(archive, group, (0, int(index)))
        tables, _ = standardised_tile(group, tile, torch.device("cpu"))
        centres_B = tile.centres_V[torch.from_numpy(rng.integers(0, len(tile.centres_V), BATCH))]
        cut = [cut_windows(values.flatten(0, 1), centres_B, offsets_N) for values in tables.values()]
        windows += len(cut[0])
    return windows


def run_task(arguments: argparse.Namespace) -> int:
    """Does the task; prints when it begins, and its seconds and memory as JSON when it is done."""
    print(f"{arguments.task} begins", flush=True)
    start, windows = time.perf_counter(), 0
    if arguments.task == "stream":
        windows = stream(arguments.out)
    else:
        settings = MANY_SHARDS if arguments.task == "shards" else ArchiveSettings()
        build_archive([houston_like(arguments.side)], arguments.out, settings)
    print(json.dumps({"wall_s": time.perf_counter() - start, "peak_mib": peak_mib(), "windows": windows}), flush=True)
    return EXIT_DONE
