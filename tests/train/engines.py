"""DeepSpeed engines on ranks that a test has spawned."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.model.mask_diffusion import weighted_loss
from diffclip_dist.train.backend.deepspeed_engine import join_process_group
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.step import train_step

STAGES = range(4)


@contextmanager
def train_context(config: PretrainConfig, rank: int, world_size: int, folder: Path) -> Iterator[TrainContext]:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    address = f"file://{folder / f'rendezvous-{world_size}'}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    join_process_group(torch.device("cpu"))
    yield TrainContext.of(open_plan(config), torch.device("cpu"))
    end_rank()


def end_rank() -> None:
    """Leaves the process group, and the process at once."""
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # after stage 3 DeepSpeed holds on to the group, and now and then Python's own way out aborts over its threads
    os._exit(0)


def train(engine: DeepSpeedEngine, batches: list[WindowBatch], config: PretrainConfig, start: int) -> list[list[float]]:
    """Loss and global gradient norm of the steps from ``start``."""
    seen = []
    for step in range(start, start + len(batches)):
        terms_LM = train_step(engine, batches[step - start], config, step).terms_LM
        dist.all_reduce(terms_LM)
        seen.append([float(weighted_loss(terms_LM, config.model)), float(engine.get_global_grad_norm() or 0.0)])
    return seen
