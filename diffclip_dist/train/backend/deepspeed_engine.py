"""Builds the DeepSpeed engine of a run: ZeRO stage, precision, clipping and accumulation."""

import logging
from collections.abc import Collection, Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion, compile_model
from diffclip_dist.model.transformer import recompute_blocks
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine, deepspeed
from diffclip_dist.train.backend.offload import offload_settings
from diffclip_dist.train.backend.weight_average import keep_average
from diffclip_dist.train.memory import sharding_stage
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
    stage = sharding_stage(config.chosen_stage, world_size, config.offload)
    share = config.global_batch // world_size
    micro_batch = min(config.micro_batch, share)
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation_steps(config, world_size),
        "zero_optimization": {
            "stage": stage,
            # DeepSpeed reserves a whole bucket, 2 GB by default, however small the model
            "reduce_bucket_size": min(BUCKET, sum(sizes)),
            # by default stage 3 keeps tensors under 1e5 numbers whole on every worker: most of a small model
            "stage3_param_persistence_threshold": 0,
            **offload_settings(config.offload, max(sizes)),
        },
        # torch's AdamW updates weights on the host as well; DeepSpeed would compile its own at first use
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bfloat16" and not config.autocasts},
        "data_types": {"grad_accum_dtype": "fp32"},  # of several micro-batches, also where they are bfloat16
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
    model.autocasts = config.autocasts
    if config.activation_checkpointing:
        recompute_blocks(model)
    return model


def build_optimiser(
    model: nn.Module, config: OptimiserConfig, sometimes_absent: Collection[str] = ()
) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices alone, not on tokens, norms and biases.

    The optimizer keeps the moving average of the weights if the run asks for it.

    Args:
        model: whose parameters are updated.
        config: the settings.
        sometimes_absent: keys of the modalities that some steps lack. Their parameters form groups of their own, which
            carry the key as ``modality``.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        owner = next((key for key in sometimes_absent if key in name.split(".")), "")
        groups.setdefault((owner, parameter.ndim >= 2), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": config.weight_decay if matrices else 0.0, "modality": owner}
            for (owner, matrices), parameters in sorted(
                groups.items(), key=lambda group: (group[0][0], not group[0][1])
            )
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )
    if config.ema_decay > 0.0:
        keep_average(optimiser, config.ema_decay)
    return optimiser


def set_learning_rate(engine: DeepSpeedEngine, rate: float, present: Collection[str]) -> None:
    """Sets a step's learning rate; it is 0 for the parameters of absent modalities, which then neither decay nor drift.

    Args:
        engine: whose optimizer is set.
        rate: of the step.
        present: keys of the modalities that the step's windows have.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = rate if not group["modality"] or group["modality"] in present else 0.0


def start_engine(
    config: PretrainConfig,
    modalities: Sequence[ModalitySchema],
    device: torch.device,
    world_size: int,
    sometimes_absent: Collection[str] = (),
) -> DeepSpeedEngine:
    """Builds the model and its engine.

    Args:
        config: the run's settings.
        modalities: that the model is built for.
        device: of this rank.
        world_size: number of ranks.
        sometimes_absent: keys of the modalities that some steps lack.
    """
    model = build_model(config, modalities).to(device)
    if config.compiles(device.type):
        compile_model(model, device, cuda_graphs=config.compile == "graphs")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    optimiser = build_optimiser(model, config.optimiser, sometimes_absent)
    engine: DeepSpeedEngine
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimiser,
        config=deepspeed_settings(config, world_size, model),
        dist_init_required=False,
    )
    if sharding_stage(config.chosen_stage, world_size, config.offload) == 0:
        _clip_at_once(engine)
        if world_size == 1:
            engine.enable_backward_allreduce = False
            optimiser.register_step_pre_hook(_fill_absent_gradients)
    return engine


def _clip_at_once(engine: DeepSpeedEngine) -> None:
    """Replaces stage 0's clipping, a loop of Python over the parameters, by torch's, which also gives the norm."""
    parameters = list(engine.module.parameters())

    def clip() -> None:
        engine._global_grad_norm = nn.utils.clip_grad_norm_(parameters, engine.gradient_clipping())

    engine.clip_fp32_gradients = clip


def _fill_absent_gradients(optimiser: torch.optim.Optimizer, *_: object) -> None:
    """Gives parameters without a gradient one of zeros, as DeepSpeed's reduction over several ranks does."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def end_engine(engine: DeepSpeedEngine) -> None:
    """Frees the engine's buffers, and gives the process torch's own functions back."""
    engine.destroy()
    # stage 3 of DeepSpeed replaces torch's function by one that rounds otherwise, and does not undo it
    functional.linear = _LINEAR
