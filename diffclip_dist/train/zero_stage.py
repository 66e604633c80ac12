"""Chooses the ZeRO stage of a run that leaves it to the memory of its workers (``zero_stage: auto``).

A higher stage holds less on a worker and takes more time: it has more to send, and works on slices of flat tensors.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from diffclip_dist.train.memory import held_bytes
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.pretrain_config import ZeroStage

_SHARE: Final = 4  # a quarter of the memory for the state; activations, buffers and tiles take the rest
_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


@dataclass(frozen=True)
class NodeMemory:
    """The memory of a node, whatever is free of it, so that every start of a run finds the same.

    Attributes:
        host: bytes of the machine, or of the container that it is.
        gpu: bytes of its smallest GPU; None where torch sees none.
    """

    host: int
    gpu: int | None

    @classmethod
    def here(cls) -> "NodeMemory":
        """That of this machine."""
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        for limit in _LIMITS:
            with suppress(OSError, ValueError):  # there is none, or it says that there is no limit
                host = min(host, int(Path(limit).read_text()))
        gpus = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
        return cls(host, min(gpus, default=None))


def with_chosen_stage(plan: TrainPlan, memory: int | None) -> TrainPlan:
    """The plan with ``auto`` resolved; any other stage stays.

    Args:
        plan: the run's.
        memory: bytes of the worker that has least; None where they are not known.
    """
    if plan.config.zero_stage != "auto":
        return plan
    return replace(plan, config=replace(plan.config, zero_stage=_lowest_stage(plan, memory)))


def with_stage_for_this_machine(plan: TrainPlan) -> TrainPlan:
    """The plan with ``auto`` resolved as if all workers were on this machine, or on others like it that have GPUs."""
    memory = NodeMemory.here()
    return with_chosen_stage(plan, memory.host // plan.config.workers if memory.gpu is None else memory.gpu)


def _lowest_stage(plan: TrainPlan, memory: int | None) -> ZeroStage:
    """The lowest stage whose state takes its share of the memory at most, or else the one that holds least."""
    possible = plan.config.possible_stages
    if memory is None:
        return next(stage for stage in possible if stage >= 1)  # what earlier versions took
    held = {stage: held_bytes(replace(plan.config, zero_stage=stage), plan.parameters) for stage in possible}
    fitting = [stage for stage in possible if held[stage] <= memory // _SHARE]
    return fitting[0] if fitting else min(possible, key=lambda stage: held[stage])
