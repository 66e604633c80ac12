"""Builds the DeepSpeed engine of a run: ZeRO stage, precision, clipping and accumulation."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.transformer import compile_blocks, recompute_blocks
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine, deepspeed
from diffclip_dist.train.backend.offload import offload_settings
from diffclip_dist.train.backend.weight_average import keep_average
from diffclip_dist.train.pretrain_config import OptimiserConfig, PretrainConfig

# most numbers in one collective: DeepSpeed's default
BUCKET: Final = 500_000_000
_LINEAR = functional.linear


def join_process_group(device: torch.device) -> None:
    """Hands DeepSpeed the process group that Ray Train has set up: NCCL on GPUs, gloo on CPUs."""
    # DeepSpeed would compile a shared-memory helper (25 s, and a lock that a killed process leaves behind); it serves
    # inference alone, training's collectives are torch's own
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo", auto_mpi_discovery=False, verbose=False
    )


def deepspeed_settings(config: PretrainConfig, world_size: int, model: nn.Module) -> dict[str, Any]:
    """The run's settings as DeepSpeed's.

    They leave out the learning rate, which `train_step` sets at each step.
    """
    sizes = [parameter.numel() for parameter in model.parameters()]
    share = config.global_batch // world_size
    micro_batch = min(config.micro_batch, share)
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation_steps(config, world_size),
        "zero_optimization": {
            "stage": config.zero_stage,
            # DeepSpeed reserves a whole bucket, 2 GB by default, however small the model
            "reduce_bucket_size": min(BUCKET, sum(sizes)),
            # by default stage 3 keeps tensors under 1e5 numbers whole on every worker: most of a small model
            "stage3_param_persistence_threshold": 0,
            **offload_settings(config.offload, max(sizes)),
        },
        # torch's AdamW updates weights on the host as well; DeepSpeed would compile its own at first use
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bfloat16"},
        "gradient_clipping": config.optimiser.clip_norm,
        "steps_per_print": 10**9,
    }


def accumulation_steps(config: PretrainConfig, world_size: int) -> int:
    """Micro-batches of a rank's share of the global batch; the last may be smaller."""
    return -(-(config.global_batch // world_size) // config.micro_batch)


def build_model(config: PretrainConfig, modalities: Sequence[ModalitySchema]) -> MaskDiffusion:
    """The model with its initial weights, the same on every rank: they depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = MaskDiffusion(config.model, modalities)
    if config.activation_checkpointing:
        recompute_blocks(model)
    if config.compile:
        compile_blocks(model)
    return model


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices alone, not on tokens, norms and biases.

    The optimizer keeps the moving average of the weights if the run asks for it.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )
    if config.ema_decay > 0.0:
        keep_average(optimiser, config.ema_decay)
    return optimiser


def start_engine(
    config: PretrainConfig,
    modalities: Sequence[ModalitySchema],
    device: torch.device,
    world_size: int,
) -> DeepSpeedEngine:
    """Builds the model and its engine."""
    model = build_model(config, modalities).to(device)
    engine: DeepSpeedEngine
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=build_optimiser(model, config.optimiser),
        config=deepspeed_settings(config, world_size, model),
        dist_init_required=False,
    )
    return engine


def end_engine(engine: DeepSpeedEngine) -> None:
    """Frees the engine's buffers, and gives the process torch's own functions back."""
    engine.destroy()
    # stage 3 of DeepSpeed replaces torch's function by one that rounds otherwise, and does not undo it
    functional.linear = _LINEAR
