"""Reads and writes an engine's state parameter by parameter, so that any ZeRO stage can load what another wrote.

Each parameter's master weights, moments and average (if the run keeps one) are gathered whole. So a checkpoint depends
neither on the ZeRO stage nor on the number of workers. DeepSpeed's accessors find the fragments of stages 1 to 3.
Stage 0 has no accessors; its optimizer keeps the whole state.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine, deepspeed
from diffclip_dist.train.backend.weight_average import AVERAGE, keeps_average

WEIGHTS: Final = "fp32"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


def write_state(engine: DeepSpeedEngine, folder: Path) -> None:
    """Writes the state of every n-th parameter, n being the number of workers; every rank must call."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    _link_moments(engine)
    own = {}
    for number, (name, parameter) in enumerate(engine.module.named_parameters()):
        for key in (WEIGHTS, *_kept_by(engine)):
            whole = whole_state(engine, parameter, key)  # gathers, so every rank takes part in each
            if number % world_size == rank:
                own[f"{key}/{name}"] = whole.detach().to("cpu", torch.float32, copy=True).contiguous()
    safetensors.torch.save_file(own, folder / f"rank-{rank:05d}.safetensors")


def read_state(engine: DeepSpeedEngine, folder: Path, step: int) -> None:
    """Loads a written state into an engine that has taken a step and so has moments; every rank must call."""
    stored = dict(_stored(folder))
    _link_moments(engine)
    for name, parameter in engine.module.named_parameters():
        for key in _kept_by(engine):
            _place(engine, parameter, key, _read(stored, f"{key}/{name}"))
        weights = _read(stored, f"{WEIGHTS}/{name}")
        _place(engine, parameter, WEIGHTS, weights)
        _place_working_copy(parameter, weights)
    for state in engine.basic_optimizer.state.values():
        state["step"].fill_(step)


def _kept_by(engine: DeepSpeedEngine) -> tuple[str, ...]:
    """Names of the tensors that the optimizer keeps for each parameter."""
    return (*_MOMENTS, AVERAGE) if keeps_average(engine.basic_optimizer) else _MOMENTS


def _link_moments(engine: DeepSpeedEngine) -> None:
    """Links each parameter to its optimizer state, in the stages that shard flat groups of parameters.

    DeepSpeed 0.19 does this after the first step of the first group, when the other groups have no moments yet.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _stored(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.glob("rank-*.safetensors")):
        with safetensors.safe_open(file, framework="pt") as tensors:
            yield from ((key, file) for key in tensors.keys())  # noqa: SIM118 not a mapping


def _read(stored: dict[str, Path], key: str) -> Tensor:
    with safetensors.safe_open(stored[key], framework="pt") as tensors:
        read: Tensor = tensors.get_tensor(key)
        return read


def differing_tensor(engine: DeepSpeedEngine, folder: Path) -> str | None:
    """The name of a tensor that is not, to the last bit, what a written state holds; ``None`` where all are.

    Reads every tensor of a just loaded engine back, whole; every rank must call and gets the same answer.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    stored = dict(_stored(folder))
    own = None
    for number, (name, parameter) in enumerate(engine.module.named_parameters()):
        for key in (WEIGHTS, *_kept_by(engine)):
            whole = whole_state(engine, parameter, key)  # gathers, so every rank takes part in each
            if number % world_size == rank and own is None:
                loaded = whole.detach().to("cpu", torch.float32)
                own = None if torch.equal(loaded, _read(stored, f"{key}/{name}")) else f"{key}/{name}"
    found: list[str | None] = [None] * world_size
    dist.all_gather_object(found, own)
    return next((name for name in found if name is not None), None)


def state_is_finite(engine: DeepSpeedEngine) -> bool:
    """Whether every parameter, and all that the optimizer keeps of it, is finite; state on disk is left out.

    An infinite second moment leaves the weight finite, but the weight would never change again. Every rank must call
    and gets the same answer.
    """
    # under stage 3 a rank holds its share of each parameter; one that lies on disk has another size in memory
    shares = [getattr(parameter, "ds_tensor", parameter).detach() for parameter in engine.module.parameters()]
    in_memory = [share for share in shares if share.numel() == getattr(share, "ds_numel", share.numel())]
    kept = [value for state in engine.basic_optimizer.state.values() for value in state.values()]
    tensors = [*in_memory, *(value for value in kept if isinstance(value, Tensor))]
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    answer = torch.tensor(int(finite), device=engine.device)
    dist.all_reduce(answer, op=dist.ReduceOp.MIN)
    return bool(answer)


def trained_weights(engine: DeepSpeedEngine, prefix: str) -> dict[str, Tensor]:
    """The trained parameters under a prefix: their average if the run keeps one, else their master weights.

    Gathers from all ranks; every rank must call, after one step or more.

    Returns:
        Name without the prefix to a float32 CPU tensor; empty on other ranks than 0.
    """
    key = AVERAGE if keeps_average(engine.basic_optimizer) else WEIGHTS
    _link_moments(engine)
    weights = {}
    for name, parameter in engine.module.named_parameters():
        if not name.startswith(prefix):
            continue
        whole = whole_state(engine, parameter, key).detach()
        if dist.get_rank() == 0:
            weights[name.removeprefix(prefix)] = whole.to("cpu", torch.float32, copy=True)
    return weights


def whole_state(engine: DeepSpeedEngine, parameter: nn.Parameter, key: str = WEIGHTS) -> Tensor:
    """A parameter's float32 master weights, or another tensor of its state, gathered; every rank must call."""
    whole: Tensor | None
    if key == WEIGHTS:
        whole = deepspeed.utils.safe_get_full_fp32_param(parameter)
        return _unsharded_master(engine, parameter) if whole is None else whole
    whole = deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
    return engine.basic_optimizer.state[_unsharded_master(engine, parameter)][key] if whole is None else whole


def _unsharded_master(engine: DeepSpeedEngine, parameter: nn.Parameter) -> Tensor:
    """The master weights of stage 0: the parameter itself, or its float32 copy if the model computes in bfloat16."""
    groups = zip(
        getattr(engine.optimizer, "fp16_groups", ()), getattr(engine.optimizer, "fp32_groups", ()), strict=True
    )
    masters = (master for low, high in groups for copy, master in zip(low, high, strict=True) if copy is parameter)
    return next(masters, parameter)


def _place(engine: DeepSpeedEngine, parameter: nn.Parameter, key: str, value: Tensor) -> None:
    if hasattr(parameter, "ds_id"):  # stage 3 shards each parameter, padded to equal parts
        part = _own_part(parameter, value)
        if key == WEIGHTS:
            deepspeed.utils.safe_set_local_fp32_param(parameter, part)
        else:
            deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)
    elif hasattr(parameter, "_hp_mapping"):
        if key == WEIGHTS:
            deepspeed.utils.safe_set_full_fp32_param(parameter, value)
        else:
            deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)
    else:
        master = _unsharded_master(engine, parameter)
        (master.data if key == WEIGHTS else engine.basic_optimizer.state[master][key]).copy_(value)


def _own_part(parameter: nn.Parameter, value: Tensor) -> Tensor:
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    padded = torch.zeros(size * dist.get_world_size())
    padded[: value.numel()] = value.flatten()
    return padded[size * dist.get_rank() :][:size]


def _place_working_copy(parameter: nn.Parameter, weights: Tensor) -> None:
    """Sets the weights that the model computes with; in most stages the master weights are separate."""
    if not hasattr(parameter, "ds_id"):
        parameter.data.copy_(weights)
        return
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        if dist.get_rank() == 0:
            parameter.data.copy_(weights)
