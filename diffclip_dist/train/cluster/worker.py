"""What each Ray Train worker runs: one rank of the run, on the device and cores that Ray has assigned."""

import os
from pathlib import Path

import ray
import ray.train.torch
import torch

from diffclip_dist.train.checkpoint.manager import CheckpointManager
from diffclip_dist.train.loop import run_rank
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.stop import AgreedStop, StopFile


def pretrain_worker(plan: TrainPlan, attempt: str) -> None:
    """Pretrains on this rank; every rank runs the same steps.

    Args:
        plan: the run's.
        attempt: the Ray run's name, which is its folder below the run's checkpoints.
    """
    _use_assigned_cores()
    device = ray.train.torch.get_device()
    stop = AgreedStop(StopFile(Path(plan.config.run_dir)).asked, device)
    run_rank(plan, device, CheckpointManager(attempt), stop)


def _use_assigned_cores() -> None:
    """As many threads as Ray has given this worker cores, and never more than the machine has."""
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    torch.set_num_threads(max(1, min(int(assigned), os.cpu_count() or 1)))
