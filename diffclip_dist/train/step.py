"""One optimizer step, read from top to bottom.

Shapes: L kinds of loss, M modalities.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.model.mask_diffusion import loss_terms, sample_keys, weighted_loss
from diffclip_dist.train.backend.deepspeed_engine import set_learning_rate
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.schedule import learning_rate


@dataclass(frozen=True)
class StepResult:
    """The result of a step, still on the device.

    Attributes:
        terms_LM: this rank's part of the global batch's mean losses.
        learning_rate: that the step used.
    """

    terms_LM: Tensor
    learning_rate: float


def probe_loss(engine: DeepSpeedEngine, batch: WindowBatch, config: PretrainConfig) -> float:
    """The loss on a batch with the noise and masks of step 0; the weights stay. Every rank must call."""
    model = engine.module
    counts_LM = model.count(batch, sample_keys(batch, config.seed, 0))
    dist.all_reduce(counts_LM)
    terms_LM = torch.zeros_like(counts_LM, dtype=torch.float32)
    with torch.no_grad():
        for micro_batch in batch.split(config.micro_batch):
            drawn = model.draw(micro_batch, sample_keys(micro_batch, config.seed, 0))
            terms_LM += loss_terms(engine(micro_batch, drawn), counts_LM)
    dist.all_reduce(terms_LM)
    return float(weighted_loss(terms_LM, config.model))


def train_step(engine: DeepSpeedEngine, batch: WindowBatch, config: PretrainConfig, step: int) -> StepResult:
    """Trains on this rank's share of a global batch and updates the weights.

    Losses are divided by the token counts of the whole global batch, so that neither the number of workers nor holes
    in a footprint change the gradient.
    """
    rate = learning_rate(step, config.steps, config.optimiser)
    set_learning_rate(engine, rate, [schema.key for schema in batch.schemas])

    model = engine.module
    counts_LM = model.count(batch, sample_keys(batch, config.seed, step))
    dist.all_reduce(counts_LM)

    micro_batches = list(batch.split(config.micro_batch))
    # DeepSpeed divides by the number of micro-batches and averages over ranks; our loss is a sum over both
    unscale = len(micro_batches) * dist.get_world_size()
    terms_LM = torch.zeros_like(counts_LM, dtype=torch.float32)
    for micro_batch in micro_batches:
        sums_LM = engine(micro_batch, model.draw(micro_batch, sample_keys(micro_batch, config.seed, step)))
        part_LM = loss_terms(sums_LM, counts_LM)
        engine.backward(weighted_loss(part_LM, config.model) * unscale)
        engine.step()
        terms_LM += part_LM.detach()
    return StepResult(terms_LM, rate)
