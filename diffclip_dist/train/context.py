"""What one rank of a run works with."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from diffclip_dist.data.batches import RankShare, WindowBatch, WindowStream
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.pretrain_config import PretrainConfig


@dataclass(frozen=True)
class TrainContext:
    """A run's plan on one rank.

    Attributes:
        plan: the run's, the same on every rank.
        device: of this rank.
        stream: this rank's share of every global batch.
    """

    plan: TrainPlan
    device: torch.device
    stream: WindowStream

    @classmethod
    def of(cls, plan: TrainPlan, device: torch.device) -> "TrainContext":
        """The context of this rank of the process group; reads no file."""
        share = RankShare(dist.get_rank(), dist.get_world_size())
        stream = plan.config.stream
        cache_bytes = int(stream.gpu_cache_gib * 2**30) if device.type == "cuda" else 0
        return cls(plan, device, WindowStream(plan.data, share, device, stream.loader_processes, cache_bytes))

    @property
    def config(self) -> PretrainConfig:
        """The run's settings."""
        return self.plan.config

    @property
    def modalities(self) -> tuple[ModalitySchema, ...]:
        """What the model is built for."""
        return self.plan.modalities

    @property
    def sometimes_absent(self) -> tuple[str, ...]:
        """Keys of the modalities that the windows of some steps lack."""
        sensors = [set(group.schemas) for group in self.plan.data.groups]
        return tuple(schema.key for schema in self.modalities if not all(schema in sensor for sensor in sensors))

    def batches(self, start: int) -> Generator[WindowBatch]:
        """This rank's share of the steps from ``start`` to the run's last."""
        return self.stream.batches(start, self.config.steps)
