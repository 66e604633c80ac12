"""What each Ray Train worker runs: one rank of the run, on the device and cores that Ray has assigned."""

import os
import socket
from pathlib import Path

import ray
import ray.train
import ray.train.torch
import torch

from diffclip_dist.train.checkpoint.manager import CheckpointManager
from diffclip_dist.train.loop import run_rank
from diffclip_dist.train.monitor.rank_log import log_of_rank, rank_log
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.stop import AgreedStop, StopFile


def pretrain_worker(plan: TrainPlan, attempt: str) -> None:
    """Pretrains on this rank; every rank runs the same steps.

    Args:
        plan: the run's.
        attempt: the Ray run's name, which is its folder below the run's checkpoints.
    """
    run_dir = Path(plan.config.run_dir)
    with rank_log(run_dir, ray.train.get_context().get_world_rank(), plan.config.log_format):
        _use_assigned_cores()
        device = ray.train.torch.get_device()
        log_of_rank(f"{attempt} on {socket.gethostname()}: {device}, {torch.get_num_threads()} threads")
        run_rank(plan, device, CheckpointManager(attempt), AgreedStop(StopFile(run_dir).asked, device))
        log_of_rank("ended")


def _use_assigned_cores() -> None:
    """As many threads as Ray has given this worker cores, and never more than the machine has."""
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    torch.set_num_threads(max(1, min(int(assigned), os.cpu_count() or 1)))
