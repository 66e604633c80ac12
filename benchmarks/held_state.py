"""Counts the memory behind the tensors of a worker's engine, to compare with the formula in `memory`."""

import gc
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.memory import StateBytes

_Storages = dict[int, int]  # address to bytes: views of one storage count once


@dataclass(frozen=True)
class HeldState:
    """Bytes on one worker.

    Attributes:
        state: parameters, gradients and optimizer state.
        buffers: every other tensor of the process: DeepSpeed's buffers for collectives, windows, tiles.
    """

    state: StateBytes
    buffers: int


def held_state(engine: DeepSpeedEngine) -> HeldState:
    """Counts what this worker holds; call between the backward pass and the step, when gradients exist."""
    parameters = list(engine.module.parameters())
    partitions = [parameter.ds_tensor for parameter in parameters if hasattr(parameter, "ds_tensor")]
    own = _storages([*(parameter.data for parameter in parameters), *partitions])
    gradients = _storages(parameter.grad for parameter in parameters if parameter.grad is not None)
    optimizer: _Storages = {}
    for name, held in _attributes(engine.optimizer):
        # DeepSpeed keeps reduced gradients in attributes of its optimizer that say so
        (gradients if "grad" in name else optimizer).update(_storages(_tensors(held)))
    gradients = {address: size for address, size in gradients.items() if address not in own}
    optimizer = {key: size for key, size in optimizer.items() if key not in own and key not in gradients}
    everything = _storages(_living())
    state = StateBytes(sum(own.values()), sum(gradients.values()), sum(optimizer.values()))
    return HeldState(state, sum(everything.values()) - state.total)


def _attributes(optimizer: object) -> Iterator[tuple[str, object]]:
    """Attributes of DeepSpeed's optimizer, and of the one that it wraps where it wraps one."""
    yield from vars(optimizer).items()
    inner = getattr(optimizer, "optimizer", None)
    if inner is not None:
        yield "state", inner.state


def _tensors(held: object) -> Iterator[Tensor]:
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from _tensors(value)
    elif isinstance(held, list | tuple | set):
        for value in held:
            yield from _tensors(value)


def _living() -> Iterator[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asking an object for its class makes deprecated ones complain
        yield from (found for found in gc.get_objects() if torch.is_tensor(found))


def _storages(tensors: Iterable[Tensor]) -> _Storages:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
