"""Pretrains the encoder that comes with the package."""

from pathlib import Path
from typing import Final

import torch
from many_scenes_rows import FIRST_SEED, generated_place

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.model.presets import preset_model
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.single_process import pretrain_single_process
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.coarse_scene import CoarseScene, CoarseSceneSpec

PLACES: Final = 24
FROM_ORBIT: Final = 4
FIRST_ORBIT_SEED: Final = 50
SIDE: Final = 64  # of a scene, in pixels
STEPS: Final = 450
WINDOWS: Final = 128  # a step


def pretrain(folder: Path) -> int:
    """Builds an archive of generated scenes in a folder, and pretrains over it."""
    torch.set_num_threads(1)  # the same order of sums on any machine
    places = [generated_place(f"place-{number:02d}", FIRST_SEED + number, SIDE) for number in range(PLACES)]
    from_orbit = [
        CoarseScene(CoarseSceneSpec(f"orbit-{number}", SIDE, SIDE, seed=FIRST_ORBIT_SEED + number))
        for number in range(FROM_ORBIT)
    ]
    archive = folder / "archive"
    build_archive([*places, *from_orbit], archive, ArchiveSettings())
    config = PretrainConfig(
        archive=str(archive), run_dir=str(folder), steps=STEPS, global_batch=WINDOWS, micro_batch=WINDOWS,
        model=preset_model("contrast"), checkpoint_every=STEPS, log_every=10, reconstruct_windows=0,
    )  # fmt: skip
    pretrain_single_process(config)
    return EXIT_DONE
