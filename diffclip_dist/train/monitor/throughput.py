"""Measures throughput, waiting and utilisation between logged steps, by wall clock."""

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import LOSS_KINDS, weighted_loss
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.monitor.matrix_rate import matrix_rate
from diffclip_dist.train.monitor.run_log import StepMetrics
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.step import StepResult


class Meter:
    """Measures one rank's run; all ranks measure together, since the loss is a sum over them.

    The clock covers everything between two logged steps, checkpoints included.
    """

    def __init__(self, config: PretrainConfig, device: torch.device, start: int) -> None:
        self._config = config
        self._device = device
        self._matrix_rate = matrix_rate(device, torch.bfloat16 if config.precision == "bfloat16" else torch.float32)
        self._waited = 0.0
        self._flops = 0
        self._last_step = start
        self._since = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures the block as a wait for samples."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count(self, schemas: Sequence[ModalitySchema]) -> None:
        """Counts a step's model FLOPs on this worker; steps of different sensors cost differently."""
        share = self._config.global_batch // dist.get_world_size()
        self._flops += share * training_flops(self._config.model, schemas)

    def measure(
        self, engine: DeepSpeedEngine, result: StepResult, schemas: Sequence[ModalitySchema], done: int
    ) -> StepMetrics:
        """Metrics of a step and of the time since the last measured one; every rank must call."""
        terms_LM = result.terms_LM.clone()
        dist.all_reduce(terms_LM)
        terms_by_kind = terms_LM.tolist()  # waits for the device, so that the clock below covers the whole step
        loss = float(weighted_loss(terms_LM, self._config.model))
        now = time.perf_counter()
        elapsed = now - self._since
        rate = (done - self._last_step) * self._config.global_batch / elapsed
        norm = engine.get_global_grad_norm()
        metrics = StepMetrics(
            step=done,
            loss=loss,
            lr=result.learning_rate,
            samples_per_s=rate,
            samples_per_s_per_worker=rate / dist.get_world_size(),
            data_wait_fraction=self._waited / elapsed,
            mfu=self._flops / elapsed / self._matrix_rate,
            grad_norm=None if norm is None else float(norm),
            memory_bytes=_most_memory(self._device),
            loss_by_modality={
                f"{kind}/{schema.name}": value
                for kind, values in zip(LOSS_KINDS, terms_by_kind, strict=False)  # not every run has every kind
                for schema, value in zip(schemas, values, strict=True)
            },
        )
        self._since, self._last_step, self._waited, self._flops = now, done, 0.0, 0
        return metrics


def _most_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
