"""What a planned run needs: memory, operations and time, estimated without starting any of it."""

import os
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any, Final

import torch
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from diffclip_dist.model.flops import training_flops
from diffclip_dist.train.memory import StateBytes, activation_bytes, sharding_stage, state_bytes
from diffclip_dist.train.monitor.matrix_rate import matrix_rate
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.pretrain_config import OffloadConfig, Place, PretrainConfig

# of the matrix rate, where waiting, collectives and everything but matrix products take the rest
ASSUMED_UTILISATION: Final = 0.4
_OFF_DEVICE: Final[dict[Place, str]] = {"none": "", "host": " (host)", "disk": " (disk)"}


@dataclass(frozen=True)
class RunEstimate:
    """A run in figures.

    Attributes:
        plan: the run.
        states: what a worker holds under each ZeRO stage.
        micro_batch: windows that a worker takes through the model at once.
        activations: bytes that a worker's largest micro-batch keeps for the backward pass.
        sample_flops: operations of one window, forward and backward, averaged over the archive's sensors.
        device: what the matrix rate was measured on.
        matrix_rate: FLOP/s of all workers together, if each has such a device or, on a CPU, a share of it.
    """

    plan: TrainPlan
    states: tuple[StateBytes, ...]
    micro_batch: int
    activations: int
    sample_flops: float
    device: str
    matrix_rate: float

    @property
    def epochs(self) -> float:
        """How often the run sees each valid pixel."""
        return self.plan.config.steps / self.plan.data.order.steps_per_epoch

    @property
    def seconds(self) -> float:
        """How long the steps take at the assumed utilisation."""
        config = self.plan.config
        passes = 4 / 3 if config.activation_checkpointing else 1  # forward twice, and backward, which is two
        flops = config.steps * config.global_batch * self.sample_flops * passes
        return flops / (self.matrix_rate * ASSUMED_UTILISATION)


def estimate_run(plan: TrainPlan) -> RunEstimate:
    """Estimates what a run needs; multiplies matrices for a moment to learn how fast this machine is."""
    config, groups = plan.config, plan.data.groups
    pixels = [int(group.tiles.valid_pixels.sum()) for group in groups]
    flops = [training_flops(config.model, group.schemas) for group in groups]
    micro_batch = min(config.micro_batch, config.global_batch // config.workers)
    averaged = config.optimiser.ema_decay > 0.0
    device, rate = _matrix_rate(config)
    return RunEstimate(
        plan=plan,
        states=tuple(
            state_bytes(
                plan.parameters,
                sharding_stage(stage, config.workers, config.offload),
                config.workers,
                config.precision,
                averaged=averaged,
            )
            for stage in range(4)
        ),
        micro_batch=micro_batch,
        activations=max(activation_bytes(config, group.schemas, micro_batch) for group in groups),
        sample_flops=sum(each * count for each, count in zip(flops, pixels, strict=True)) / sum(pixels),
        device=device,
        matrix_rate=rate,
    )


def _matrix_rate(config: PretrainConfig) -> tuple[str, float]:
    dtype = getattr(torch, config.precision)
    if torch.cuda.is_available():
        return f"{config.workers} x {torch.cuda.get_device_name()}", config.workers * matrix_rate(
            torch.device("cuda"), dtype
        )
    return f"this machine's {torch.get_num_threads()} of {os.cpu_count()} cores, shared by the workers", matrix_rate(
        torch.device("cpu"), dtype
    )


def figures(estimate: RunEstimate) -> dict[str, Any]:
    """The estimate as values that JSON can hold."""
    plan, config = estimate.plan, estimate.plan.config
    return {
        "scenes": [{"name": scene.name, "generated": scene.generated} for scene in plan.manifest.scenes],
        "parameters": plan.parameters,
        "encoder_parameters": plan.encoder_parameters,
        "steps": config.steps,
        "steps_per_epoch": plan.data.order.steps_per_epoch,
        "flop_per_window": estimate.sample_flops,
        "seconds": estimate.seconds,
        "assumed_utilisation": ASSUMED_UTILISATION,
        "precision": config.precision,
        "matrix_flop_per_s": estimate.matrix_rate,
        "device": estimate.device,
        "workers": config.workers,
        "zero_stage": config.chosen_stage,
        "bytes_by_zero_stage": [asdict(state) for state in estimate.states],
        "micro_batch": estimate.micro_batch,
        "activation_bytes": estimate.activations,
    }


def describe(estimate: RunEstimate) -> str:
    """The estimate as text for a terminal."""
    plan, config = estimate.plan, estimate.plan.config
    scenes = (f"{scene.name} (generated)" if scene.generated else scene.name for scene in plan.manifest.scenes)
    out = Console(file=StringIO(), width=110, highlight=False)
    out.print(f"scenes           {', '.join(scenes)}")
    out.print(f"parameters       {plan.parameters:,}, of which {plan.encoder_parameters:,} in the exported encoder")
    out.print(
        f"steps            {config.steps:,} of {config.global_batch:,} windows; "
        f"{plan.data.order.steps_per_epoch:,} steps are an epoch, so {estimate.epochs:,.2f} epochs"
    )
    out.print(
        f"operations       {estimate.sample_flops / 1e9:,.2f} GFLOP a window, forward and backward; "
        f"{estimate.sample_flops * config.steps * config.global_batch / 1e12:,.1f} TFLOP in all"
    )
    out.print(
        f"time             about {_duration(estimate.seconds)}, at {ASSUMED_UTILISATION:.0%} (assumed) of "
        f"{estimate.matrix_rate / 1e9:,.0f} GFLOP/s in {config.precision},\n"
        f"                 measured just now on {estimate.device}"
    )
    out.print(f"\nbytes that each of {config.workers} workers holds, by ZeRO stage (this run: {config.zero_stage})")
    table = Table(box=box.SIMPLE)
    for heading in ("stage", "parameters", "gradients", "optimizer", "together", "with activations"):
        table.add_column(heading, justify="right")
    for stage, state in enumerate(estimate.states):
        places, sizes = config.offload.places(stage), (state.parameters, state.gradients, state.optimizer)
        parts = (decimal(size) + _OFF_DEVICE[place] for size, place in zip(sizes, places, strict=True))
        device = sum(size for size, place in zip(sizes, places, strict=True) if place == "none")
        sums = (decimal(device), decimal(device + estimate.activations))
        table.add_row(f"{stage}{' *' if stage == config.zero_stage else ''}", *parts, *sums)
    out.print(table)
    if config.offload != OffloadConfig():
        out.print("What is marked lies in the node's memory (host) or on its disk; the sums are what the device holds.")
    out.print(
        f"Activations are {decimal(estimate.activations)} for {estimate.micro_batch} windows at once (micro_batch)"
        f"{', and one block computed anew at a time' * config.activation_checkpointing}.\n"
        "Collectives' buffers, the stream's tiles and the libraries come on top."
    )
    text = out.file
    assert isinstance(text, StringIO)
    return text.getvalue()


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
