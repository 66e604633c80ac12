"""Projects the presets onto 8 to 1,024 GPUs with the cost model, from assumptions that it prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
import torch
from collectives import Kind, traffic_of_step
from cost_model import Cluster, Link, WorkerStep, step_seconds, weak_efficiency
from report import Value

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.presets import preset_model
from diffclip_dist.train.memory import activation_bytes, state_bytes
from diffclip_dist.train.pretrain_config import PretrainConfig

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

GPUS: Final = tuple(8 << doubling for doubling in range(8))
STAGES: Final = (1, 3)
_KINDS: Final[tuple[Kind, ...]] = ("all_reduce", "all_gather", "reduce_scatter")


@dataclass(frozen=True)
class Assumptions:
    """A cluster of 80-GB A100 GPUs, from its data sheets; whoever has another changes these.

    Attributes:
        peak_flops_per_s: bfloat16 matrix rate of a GPU.
        utilisation: share of it that a preset reaches, waiting left out; small matrices reach little.
        memory_bytes: of a GPU.
        gpus_per_node: joined by NVLink.
        near: link of a GPU within its node.
        far: link of a GPU to other nodes, 200 Gb/s at four fifths of its rate.
        overlap: ZeRO stage to the share of the backward pass that collectives hide behind, as DeepSpeed is set:
            ZeRO 3 gathers ahead, the stages below it reduce after the backward pass.
        windows: that a GPU takes in a step, in one micro-batch.
    """

    peak_flops_per_s: float = 312e12
    utilisation: tuple[tuple[str, float], ...] = (("published", 0.1), ("base", 0.35), ("large", 0.4), ("huge", 0.45))
    memory_bytes: float = 80e9
    gpus_per_node: int = 8
    near: Link = Link(bytes_per_s=230e9, call_s=10e-6)  # noqa: RUF009 frozen
    far: Link = Link(bytes_per_s=20e9, call_s=20e-6)  # noqa: RUF009 frozen
    overlap: tuple[tuple[int, float], ...] = ((1, 0.0), (3, 1.0))
    windows: int = 256

    def lines(self, read_bytes_per_s: float) -> list[str]:
        """What a reader has to know to judge the figures."""
        reached = ", ".join(f"{name} {share:.0%}" for name, share in self.utilisation)
        hidden = ", ".join(f"ZeRO {stage}: {share:.0%}" for stage, share in self.overlap)
        return [
            f"assumed: {self.peak_flops_per_s / 1e12:g} bfloat16 TFLOP/s a GPU, of which the model reaches: {reached}",
            f"assumed: {_described(self.near)} in a node of {self.gpus_per_node} GPUs; {_described(self.far)} beyond",
            f"assumed: share of the backward pass that collectives hide behind: {hidden}",
            f"assumed: {self.windows} windows a GPU and step, of 11x11 pixels and 144 + 1 bands; no accumulation, so "
            "that the global batch grows with the GPUs",
            "left out: the update, buffers for collectives, and the small parameters that ZeRO 3 leaves whole",
            f"measured here: {read_bytes_per_s / 1e6:.3g} MB/s of tiles that one process reads; one reads ahead a GPU",
        ]


def _described(link: Link) -> str:
    return f"{link.bytes_per_s / 1e9:g} GB/s, {link.call_s * 1e6:g} us a call and doubling"


def project(
    schemas: Sequence[ModalitySchema], bytes_per_window: float, read_bytes_per_s: float, assumed: Assumptions
) -> list[dict[str, Value]]:
    """A row for each preset whose utilisation is assumed, ZeRO stage and number of GPUs."""
    rows: list[dict[str, Value]] = []
    for preset, utilisation in assumed.utilisation:
        config = PretrainConfig(model=preset_model(preset), precision="bfloat16")
        with torch.device("meta"):
            model = MaskDiffusion(config.model, schemas)
        tensors = [parameter.numel() for parameter in model.parameters()]
        activations = activation_bytes(config, schemas, assumed.windows)
        flops = training_flops(config.model, schemas) * assumed.windows
        for stage in STAGES:
            step = WorkerStep(
                flops, bytes_per_window * assumed.windows, traffic_of_step(sum(tensors), len(tensors), 2, stage, 1)
            )
            cluster = Cluster(
                flops_per_s=assumed.peak_flops_per_s * utilisation,
                near=dict.fromkeys(_KINDS, assumed.near),
                far=dict.fromkeys(_KINDS, assumed.far),
                workers_per_node=assumed.gpus_per_node,
                read_bytes_per_s=read_bytes_per_s,
                reads_ahead=True,
                overlap=dict(assumed.overlap)[stage],
            )
            for gpus in GPUS:
                seconds = step_seconds(step, gpus, cluster)
                held = state_bytes(sum(tensors), stage, gpus, "bfloat16").total
                rows.append(
                    {
                        "measurement": "projection, not measured",
                        "preset": preset,
                        "parameters": sum(tensors),
                        "zero_stage": str(stage),
                        "gpus": gpus,
                        "samples_per_s": gpus * assumed.windows / seconds.total,
                        "efficiency_percent": 100.0 * weak_efficiency(step, gpus, cluster),
                        "communication_percent": 100.0 * seconds.communication_share,
                        "data_wait_percent": 100.0 * seconds.data / seconds.total,
                        "state_gb_per_gpu": held / 1e9,
                        "activations_gb_per_gpu": activations / 1e9,
                        "fits": held + activations <= assumed.memory_bytes,
                    }
                )
    return rows


def draw(
    rows: Sequence[dict[str, Value]], checks: Sequence[dict[str, Value]], notes: Sequence[str], file: Path
) -> None:
    """Draws the projection beside the check of the model that it comes from."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 9.5), layout="constrained")
    panels = (
        (axes[0, 0], "efficiency_percent", "weak-scaling efficiency (%)"),
        (axes[0, 1], "samples_per_s", "windows / s, all GPUs"),
        (axes[1, 0], "state_gb_per_gpu", "parameters, gradients, optimizer state (GB a GPU)"),
    )
    presets = dict.fromkeys(row["preset"] for row in rows)
    colours = dict(zip(presets, ("tab:blue", "tab:green", "tab:orange", "tab:red"), strict=True))
    styles = dict(zip(map(str, STAGES), ("-", "--"), strict=True))
    for axis, key, label in panels:
        for preset, colour in colours.items():
            for stage, style in styles.items():
                line = [row for row in rows if row["preset"] == preset and row["zero_stage"] == stage]
                axis.plot(
                    [row["gpus"] for row in line], [row[key] for row in line],
                    style, color=colour, marker=".", label=f"{preset}, ZeRO {stage}",
                )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xticks(GPUS, [f"{gpus:,}" for gpus in GPUS])
        axis.set_xlabel("GPUs")
        axis.set_title("projected, not measured", fontsize=10)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylim(0, 105)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    axes[0, 1].set_yscale("log")
    axes[1, 0].set_yscale("log")
    _draw_check(axes[1, 1], checks)
    figure.supxlabel("\n".join(notes), fontsize=8, ha="left", x=0.02)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def _draw_check(axis: Axes, checks: Sequence[dict[str, Value]]) -> None:
    places = range(len(checks))
    for offset, key, label in ((-0.2, "step_s", "measured"), (0.2, "predicted_step_s", "predicted")):
        heights = [float(row[key] or 0.0) for row in checks]
        axis.bar([place + offset for place in places], heights, 0.4, label=label)
    axis.set_xticks(places, [f"ZeRO {row['zero_stage']}\n{row['workers']}" for row in checks], fontsize=8)
    axis.set_xlabel("workers, one thread each")
    axis.set_ylabel("step on this machine (s)")
    axis.set_title("the same model beside measurements", fontsize=10)
    axis.legend()
    axis.grid(axis="y", alpha=0.3)
