"""Pretrains in this process alone, for studies that pretrain dozens of small models one after the other."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from diffclip_dist.train.backend.deepspeed_engine import start_engine
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine, deepspeed
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.loop import run_rank
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.precision import with_chosen_precision
from diffclip_dist.train.pretrain_config import OffloadConfig, PretrainConfig
from diffclip_dist.train.run_files import STOPPED_FILE
from shards.errors import FailedRun


def pretrain_single_process(config: PretrainConfig) -> Path:
    """Pretrains with one worker and ZeRO stage 0, to the same losses as under Ray.

    Unlike `cluster.driver.pretrain`, this starts no Ray and keeps no checkpoint, so a killed run starts from step 0. It
    ignores ``workers``, ``zero_stage``, ``offload``, ``keep_checkpoints`` and ``max_failures``; ``checkpoint_every``
    only sets when windows are reconstructed. It writes no ``RUN/config.yaml``, prints no progress, and writes over the
    log of an earlier run in the same folder. It uses as many threads as torch has now.

    Args:
        config: the run's settings.

    Returns:
        The folder of the exported encoder.

    Raises:
        BadInput: the archive or the settings do not allow this run.
        FailedRun: the loss became non-finite.
    """
    alone = replace(config, workers=1, zero_stage=0, offload=OffloadConfig())
    plan = open_plan(with_chosen_precision(alone, on_gpus=torch.cuda.is_available()))
    run_dir = Path(plan.config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / STOPPED_FILE).unlink(missing_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with world_of_one(device):
        run_rank(plan, device, NoCheckpoints())
    if (run_dir / STOPPED_FILE).exists():
        raise FailedRun(f"{run_dir}: {(run_dir / STOPPED_FILE).read_text()}")
    return run_dir / "encoder"


class NoCheckpoints:
    """A fresh engine, and no checkpoints."""

    def start(self, context: TrainContext) -> tuple[DeepSpeedEngine, int]:
        return start_engine(
            context.config, context.modalities, context.device, world_size=1, sometimes_absent=context.sometimes_absent
        ), 0

    def save(self, engine: DeepSpeedEngine, step: int) -> None:
        pass


@contextmanager
def world_of_one(device: torch.device) -> Iterator[None]:
    """A process group of this process alone; DeepSpeed reads its rank from the environment."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    before = {name: os.environ.get(name) for name in rank}
    os.environ.update(rank)
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        deepspeed.comm.destroy_process_group()
        gc.collect()  # the engine refers to itself; without this its buffers and threads would last into the next run
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
