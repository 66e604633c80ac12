"""What a run would be, worked out without starting any of it: no Ray, no engine, no file."""

import os
from dataclasses import dataclass
from io import StringIO
from typing import Final

import torch
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from diffclip_dist.data.order import GlobalOrder
from diffclip_dist.data.sensors import all_modalities, group_scenes
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.train.memory import StateBytes, activation_bytes, state_bytes
from diffclip_dist.train.monitor.matrix_rate import matrix_rate
from diffclip_dist.train.pretrain_config import OffloadConfig, Place, PretrainConfig
from shards.build.default_archive import known_manifest

# of the matrix rate, where waiting, collectives and everything but matrix products take the rest
ASSUMED_UTILISATION: Final = 0.4
_OFF_DEVICE: Final[dict[Place, str]] = {"none": "", "host": " (host)", "disk": " (disk)"}


@dataclass(frozen=True)
class RunPlan:
    """A run in figures.

    Attributes:
        config: its settings.
        scenes: what it reads; made-up scenes are called generated.
        parameters: of the whole model.
        encoder_parameters: of the part that is exported.
        states: what a worker holds under each ZeRO stage.
        micro_batch: windows that a worker takes through the model at once.
        activations: bytes that a worker's largest micro-batch keeps for the backward pass.
        steps_per_epoch: global batches that the archive's valid pixels fill.
        sample_flops: operations of one window, forward and backward, averaged over the archive's sensors.
        device: what the matrix rate was measured on.
        matrix_rate: FLOP/s of all workers together, if each has such a device or, on a CPU, a share of it.
    """

    config: PretrainConfig
    scenes: tuple[str, ...]
    parameters: int
    encoder_parameters: int
    states: tuple[StateBytes, ...]
    micro_batch: int
    activations: int
    steps_per_epoch: int
    sample_flops: float
    device: str
    matrix_rate: float

    @property
    def epochs(self) -> float:
        """How often the run sees each valid pixel."""
        return self.config.steps / self.steps_per_epoch

    @property
    def seconds(self) -> float:
        """How long the steps take at the assumed utilisation."""
        passes = 4 / 3 if self.config.activation_checkpointing else 1  # forward twice, and backward, which is two
        flops = self.config.steps * self.config.global_batch * self.sample_flops * passes
        return flops / (self.matrix_rate * ASSUMED_UTILISATION)


def plan_run(config: PretrainConfig) -> RunPlan:
    """Works a run out.

    Raises:
        BadInput: the archive or the settings do not allow this run.
    """
    manifest = known_manifest(config.archive)
    groups = group_scenes(manifest, config.model.window)
    order = GlobalOrder([group.tile_pixels for group in groups], config.order)
    modalities = all_modalities(groups)
    with torch.device("meta"):
        model = MaskDiffusion(config.model, modalities)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    pixels = [sum(group.tile_pixels) for group in groups]
    flops = [training_flops(config.model, group.schemas) for group in groups]
    micro_batch = min(config.micro_batch, config.global_batch // config.workers)
    averaged = config.optimiser.ema_decay > 0.0
    device, rate = _matrix_rate(config)
    return RunPlan(
        config=config,
        scenes=tuple(f"{scene.name} (generated)" if scene.generated else scene.name for scene in manifest.scenes),
        parameters=parameters,
        encoder_parameters=sum(parameter.numel() for parameter in model.encoder.parameters()),
        states=tuple(
            state_bytes(parameters, stage, config.workers, config.precision, averaged=averaged) for stage in range(4)
        ),
        micro_batch=micro_batch,
        activations=max(activation_bytes(config, group.schemas, micro_batch) for group in groups),
        steps_per_epoch=order.steps_per_epoch,
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


def describe(plan: RunPlan) -> str:
    """The plan as a person reads it."""
    config = plan.config
    out = Console(file=StringIO(), width=110, highlight=False)
    out.print(f"scenes           {', '.join(plan.scenes)}")
    out.print(f"parameters       {plan.parameters:,}, of which {plan.encoder_parameters:,} in the exported encoder")
    out.print(
        f"steps            {config.steps:,} of {config.global_batch:,} windows; "
        f"{plan.steps_per_epoch:,} steps are an epoch, so {plan.epochs:,.2f} epochs"
    )
    out.print(
        f"operations       {plan.sample_flops / 1e9:,.2f} GFLOP a window, forward and backward; "
        f"{plan.sample_flops * config.steps * config.global_batch / 1e12:,.1f} TFLOP in all"
    )
    out.print(
        f"time             about {_duration(plan.seconds)}, at {ASSUMED_UTILISATION:.0%} (assumed) of "
        f"{plan.matrix_rate / 1e9:,.0f} GFLOP/s in {config.precision},\n"
        f"                 measured just now on {plan.device}"
    )
    out.print(f"\nbytes that each of {config.workers} workers holds, by ZeRO stage (this run: {config.zero_stage})")
    table = Table(box=box.SIMPLE)
    for heading in ("stage", "parameters", "gradients", "optimizer", "together", "with activations"):
        table.add_column(heading, justify="right")
    for stage, state in enumerate(plan.states):
        places, sizes = config.offload.places(stage), (state.parameters, state.gradients, state.optimizer)
        parts = (decimal(size) + _OFF_DEVICE[place] for size, place in zip(sizes, places, strict=True))
        device = sum(size for size, place in zip(sizes, places, strict=True) if place == "none")
        sums = (decimal(device), decimal(device + plan.activations))
        table.add_row(f"{stage}{' *' if stage == config.zero_stage else ''}", *parts, *sums)
    out.print(table)
    if config.offload != OffloadConfig():
        out.print("What is marked lies in the node's memory (host) or on its disk; the sums are what the device holds.")
    out.print(
        f"Activations are {decimal(plan.activations)} for {plan.micro_batch} windows at once (micro_batch)"
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
