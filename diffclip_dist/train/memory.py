"""Memory that a worker needs, counted before a run: weights, gradients, optimizer state and activations.

DeepSpeed's own estimates cover only 16-bit training under stages 2 and 3, so this module counts the bytes.

Shapes: B windows, N tokens of a window, K visible slots, C bands.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.contrast import part_size
from diffclip_dist.model.mask_diffusion import MaskDiffusion, NoiseAndMasks
from diffclip_dist.model.masking import TokenMask, slot_count
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.transformer import recompute_blocks
from diffclip_dist.train.pretrain_config import OffloadConfig, PretrainConfig

_FLOAT32: Final = 4
_MOMENTS: Final = 2 * _FLOAT32  # Adam's


@dataclass(frozen=True)
class StateBytes:
    """Bytes that one worker holds throughout a run.

    Attributes:
        parameters: float32; bfloat16 where stage 3 computes in it.
        gradients: float32, in which those of several micro-batches add up.
        optimizer: float32 master weights if they are separate from the parameters, Adam's two moments, and the average
            of the weights if the run keeps one.
    """

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.parameters + self.gradients + self.optimizer


def state_bytes(
    parameters: int, zero_stage: int, workers: int, precision: str, *, averaged: bool = False
) -> StateBytes:
    """Bytes that a worker holds under a ZeRO stage (Rajbhandari et al. 2020, section 5).

    DeepSpeed keeps separate master weights in every stage but 0, even in float32. Below stage 3, parameters are
    float32 in either precision.

    Args:
        parameters: number of the model's parameters.
        zero_stage: 0 to 3.
        workers: over which the stage shards.
        precision: ``float32`` or ``bfloat16``.
        averaged: whether an average of the weights is kept.
    """
    value = _FLOAT32 // 2 if precision == "bfloat16" and zero_stage == 3 else _FLOAT32
    master = 0 if zero_stage == 0 else _FLOAT32
    average = _FLOAT32 if averaged else 0

    def share(bytes_each: int, from_stage: int) -> int:
        return -(-parameters * bytes_each // (workers if zero_stage >= from_stage else 1))

    return StateBytes(share(value, 3), share(_FLOAT32, 2), share(master + _MOMENTS + average, 1))


def sharding_stage(zero_stage: int, workers: int, offload: OffloadConfig) -> int:
    """The ZeRO stage that a run's engine gets: stages 1 and 2 of a lone worker shard nothing and only take time."""
    alone = workers == 1 and offload.optimizer == "none"
    return 0 if alone and zero_stage < 3 else zero_stage


def held_bytes(config: PretrainConfig, parameters: int) -> int:
    """Bytes of state that a worker's device holds throughout a run whose stage is chosen.

    Args:
        config: the run's settings.
        parameters: number of the model's parameters.
    """
    stage = sharding_stage(config.chosen_stage, config.workers, config.offload)
    averaged = config.optimiser.ema_decay > 0.0
    state = state_bytes(parameters, stage, config.workers, config.precision, averaged=averaged)
    sizes = (state.parameters, state.gradients, state.optimizer)
    return sum(size for size, place in zip(sizes, config.offload.places(stage), strict=True) if place == "none")


def checkpoint_bytes(parameters: int, *, averaged: bool = False) -> int:
    """Bytes of a checkpoint, over all workers; everything is float32, whatever the run's precision.

    Args:
        parameters: number of the model's parameters.
        averaged: whether an average of the weights is kept.
    """
    return parameters * (_FLOAT32 + _MOMENTS + (_FLOAT32 if averaged else 0))


def activation_bytes(config: PretrainConfig, modalities: Sequence[ModalitySchema], windows: int) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of a micro-batch.

    With activation checkpointing, the backward pass computes one block at a time again; that block comes on top. The
    tensors have no memory behind them, so any machine can count any size. They count as on a CPU, where bfloat16 takes
    an attention that keeps its scores; a GPU's keeps none.

    Args:
        config: the run's settings.
        modalities: of the windows, each with all of its pixels.
        windows: B, of the micro-batch.
    """
    slots = slot_count(config.model.tokens, config.model.mask_ratio)
    with FakeTensorMode():
        kept_in_low_precision = config.precision == "bfloat16" and not config.autocasts
        # a model without memory cannot be converted
        with _default_dtype(torch.bfloat16 if kept_in_low_precision else torch.float32):
            model = MaskDiffusion(config.model, modalities)
        model.autocasts = config.autocasts
        if config.activation_checkpointing:
            recompute_blocks(model)
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        batch, drawn = _empty_batch(modalities, windows, config.model, slots)
        return _saved_bytes(lambda: model(batch, drawn), own)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _empty_batch(
    modalities: Sequence[ModalitySchema], windows: int, model: ModelConfig, slots: int
) -> tuple[WindowBatch, NoiseAndMasks]:
    tokens = model.tokens
    positions_B = torch.empty(windows, dtype=torch.int64)
    values = {schema.key: torch.empty(windows, tokens, schema.bands) for schema in modalities}
    valid = {schema.key: torch.empty(windows, tokens, dtype=torch.bool) for schema in modalities}
    masks = {
        schema.key: TokenMask(
            slots_BK=torch.empty(windows, slots, dtype=torch.int64),
            filled_BK=torch.empty(windows, slots, dtype=torch.bool),
            visible_BN=valid[schema.key],
            masked_BN=valid[schema.key],
        )
        for schema in modalities
    }
    batch = WindowBatch(tuple(modalities), positions_B, values, valid, all_valid=True)
    compares = model.contrast_weight > 0.0
    parts_B2K = torch.empty(windows, 2, part_size(model), dtype=torch.int64) if compares else None
    return batch, NoiseAndMasks(positions_B, values, masks, parts_B2K)


def _saved_bytes(forward: Callable[[], object], but: set[int]) -> int:
    """Bytes of the distinct storages that autograd saves in a forward pass, except the given ones."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage._cdata not in but:
            storages[storage._cdata] = storage  # holding it keeps its address from being used again
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        kept = forward()
    del kept
    return sum(storage.nbytes() for storage in storages.values())
