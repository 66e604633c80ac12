"""Measures the rows of scaling.py on real engines, beside the cost model's."""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from archive_size_rows import archive_size_rows
from collectives import traffic_of_step
from cost_model import Cluster, StepSeconds, WorkerStep, step_seconds
from generated_archive import build_generated
from projection import Assumptions, draw, project
from report import Row, Value, check_destination, median_row, print_table, write_json
from scaling_probe import Probe, ProbePlan, StageProbe, ZeroStage, probe

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import PUBLISHED
from diffclip_dist.train.cluster.driver import ray_cluster
from diffclip_dist.train.memory import state_bytes
from diffclip_dist.train.pretrain_config import PretrainConfig, StreamConfig
from shards.archive.archive import Archive
from shards.errors import BadInput

_MIB: Final = 2**20
SIZES_TITLE: Final = "By the archive's size, one process: a step's samples, opening a manifest, sending it"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        timed: ZeRO stages that are timed on 1 and 2 workers.
        held: number of workers to the ZeRO stages whose memory is counted on as many.
        held_width: of the model whose memory is counted: the larger, the less weigh the small parameters, which ZeRO 3
            leaves whole on every worker.
        windows: of a worker in a step.
        steps: that are timed for each stage, in each turn.
        turns: that one worker and two take, so that a machine that slows down slows both.
        tile_size: side of the generated scene's tiles in pixels.
        tiles: of generated archives of different sizes, whose order is timed.
        opened: those whose manifest is opened as well.
    """

    timed: tuple[ZeroStage, ...]
    held: tuple[tuple[int, tuple[ZeroStage, ...]], ...]
    held_width: int
    windows: int
    steps: int
    tile_size: int
    tiles: tuple[int, ...]
    opened: tuple[int, ...]
    turns: int = 1


QUICK: Final = Effort(
    (1,), ((1, ()), (2, (3,))), held_width=256, windows=4, steps=2, tile_size=8, tiles=(1_000, 10_000), opened=(1_000,)
)
FULL: Final = Effort(
    (0, 1, 2, 3),
    tuple((workers, (0, 1, 2, 3)) for workers in (1, 2, 4)),
    held_width=512,
    windows=32,
    steps=9,
    tile_size=32,
    tiles=(1_000, 10_000, 25_000, 100_000, 1_000_000),
    opened=(1_000, 25_000, 100_000, 1_000_000),  # of 25,000 tiles in as many files, the largest without tables
)
WEAK: Final = replace(FULL, timed=(0, 1), held=((1, ()), (2, ())), steps=6, turns=3)
WEAK_TITLE: Final = "Weak scaling on a generated scene, one thread a worker: medians (lowest to highest)"


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    if arguments.project is not None and not arguments.project.parent.is_dir():
        raise BadInput(f"--project {arguments.project}: expected a file in a folder that exists")
    effort = QUICK if arguments.quick else FULL
    busy = os.getloadavg()[0]
    if (arguments.project is not None) + arguments.sizes + arguments.weak > 1:
        raise BadInput("expected at most one of --project, --sizes and --weak")
    if arguments.weak:
        effort = replace(WEAK, windows=effort.windows, steps=effort.steps, turns=1) if arguments.quick else WEAK
    if arguments.sizes:
        sizes = archive_size_rows(effort.tiles, effort.opened)
        print_table(SIZES_TITLE, [*map(_short, sizes)])
        if arguments.json is not None:
            write_json(arguments.json, config_of(arguments, busy), sizes)
        return EXIT_DONE
    with tempfile.TemporaryDirectory(prefix="diffclip-scaling-") as scratch, ray_cluster():
        archive = build_generated(Path(scratch) / "archive", effort.tile_size)
        found: dict[int, list[Probe]] = {workers: [] for workers, _ in effort.held}
        for turn in range(effort.turns):
            for workers, held in effort.held:
                print(f"measuring {workers} worker{'s' * (workers > 1)}", flush=True)
                timed = effort.timed if workers <= 2 else ()
                plan = probe_plan(archive, f"{scratch}/{workers}-{turn}", workers, timed, held, effort)
                found[workers].append(probe(plan))
        probes = [pooled(turns) for turns in found.values()]
        sample = Sample.of(archive)
    if arguments.weak:
        timing = scaling_rows(probes, sample, effort.windows)
        print_table(WEAK_TITLE, [*map(_short, timing)])
        if arguments.json is not None:
            write_json(arguments.json, config_of(arguments, busy), timing)
        return EXIT_DONE
    sizes = archive_size_rows(effort.tiles, effort.opened)
    timing = scaling_rows(probes, sample, effort.windows)
    traffic, memory = traffic_rows(probes, sample), memory_rows(probes)
    print_table(WEAK_TITLE, [*map(_short, timing)])
    print_table("A worker's collectives in a step: logged by DeepSpeed, and as modelled", [*map(_short, traffic)])
    print_table(
        f"MiB a worker holds, {probes[-1].held_parameters:,} parameters in float32: measured (formula)",
        shown_memory(memory),
    )
    print_table(SIZES_TITLE, [*map(_short, sizes)])
    projected = []
    if arguments.project is not None:
        read_rate = effort.windows * sample.bytes / statistics.fmean(probes[0].read_s)
        assumed = Assumptions()
        projected = project(sample.schemas, sample.bytes, read_rate, assumed)
        notes = assumed.lines(read_rate)
        draw(projected, timing, notes, arguments.project)
        print_table("Projected, not measured", [_short(row) for row in projected if row["gpus"] in (8, 64, 1024)])
        print("\n".join(notes))
        print(f"drawn: {arguments.project}")
    if arguments.json is not None:
        write_json(arguments.json, config_of(arguments, busy), [*timing, *traffic, *memory, *sizes, *projected])
    return EXIT_DONE


def config_of(arguments: argparse.Namespace, busy: float) -> dict[str, Value]:
    """What a reader needs to know of the run."""
    parts = " --sizes" * arguments.sizes + " --weak" * arguments.weak
    command = "python benchmarks/scaling.py" + parts + " --quick" * arguments.quick
    return {
        "command": command, "scene": "generated", "threads_per_worker": 1, "processes_waiting_to_run_before": busy,
    }  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What the cost model needs to know of a window.

    Attributes:
        schemas: its modalities.
        bytes: of tiles that are read for it.
    """

    schemas: tuple[ModalitySchema, ...]
    bytes: float

    @classmethod
    def of(cls, archive: str) -> "Sample":
        (scene,) = Archive.open(archive).manifest.scenes
        pixels = sum(tile.valid_pixels for tile in scene.tiles)
        return cls(tuple(map(ModalitySchema.of, scene.modalities)), sum(tile.bytes for tile in scene.tiles) / pixels)


def probe_plan(
    archive: str, run_dir: str, workers: int, timed: tuple[ZeroStage, ...], held: tuple[ZeroStage, ...], effort: Effort
) -> ProbePlan:
    """The measurements to make on a number of workers."""

    def run(windows: int, model: ModelConfig) -> PretrainConfig:
        return PretrainConfig(
            archive=archive, run_dir=run_dir, workers=workers, global_batch=windows * workers, micro_batch=windows,
            stream=StreamConfig(shuffle_streams=workers, shuffle_buffer=1), model=model,
        )  # fmt: skip

    holding = ModelConfig(window=3, width=effort.held_width, mlp_ratio=4.0)
    return ProbePlan(run(effort.windows, PUBLISHED), run(2, holding), timed, held, effort.steps, threads=1)


def pooled(turns: Sequence[Probe]) -> Probe:
    """The measurements of several turns as one, what is measured once from the last."""
    stages = tuple(
        replace(
            same[-1],
            step_s=tuple(seconds for stage in same for seconds in stage.step_s),
            wait_s=tuple(seconds for stage in same for seconds in stage.wait_s),
            communication_share=statistics.fmean(stage.communication_share for stage in same),
        )
        for same in zip(*(turn.stages for turn in turns), strict=True)
    )
    return replace(
        turns[-1],
        bare_s=tuple(seconds for turn in turns for seconds in turn.bare_s),
        read_s=tuple(seconds for turn in turns for seconds in turn.read_s),
        stages=stages,
    )


def scaling_rows(probes: Sequence[Probe], sample: Sample, windows: int) -> list[dict[str, Value]]:
    """A row for each number of workers and ZeRO stage that was timed."""
    alone = {stage.zero_stage: statistics.median(stage.step_s) for found in probes[:1] for stage in found.stages}
    rows = []
    for found in probes:
        for stage in found.stages:
            predicted = prediction(found, stage, sample, windows)
            row = median_row([{"step_s": seconds} for seconds in stage.step_s])
            step_s = row["step_s"]
            assert isinstance(step_s, float)
            rows.append(
                {
                    "measurement": "weak scaling",
                    "zero_stage": str(stage.zero_stage),
                    "workers": found.workers,
                    "windows_per_worker": windows,
                    **row,
                    "samples_per_s_per_worker": windows / step_s,
                    "efficiency_percent": 100.0 * alone[stage.zero_stage] / step_s,
                    "communication_percent": 100.0 * stage.communication_share,
                    "data_wait_percent": 100.0 * sum(stage.wait_s) / sum(stage.step_s),
                    "predicted_step_s": predicted.total,
                    "predicted_communication_percent": 100.0 * predicted.communication_share,
                    "prediction_error_percent": 100.0 * (predicted.total / step_s - 1.0),
                }
            )
    return rows


def prediction(found: Probe, stage: StageProbe, sample: Sample, windows: int) -> StepSeconds:
    """The cost model's step, from parts that were measured apart from it."""
    flops = float(windows * training_flops(PUBLISHED, sample.schemas))
    with torch.device("meta"):
        tensors = [parameter.numel() for parameter in MaskDiffusion(PUBLISHED, sample.schemas).parameters()]
    cluster = Cluster(
        flops_per_s=flops / statistics.median(found.bare_s),
        near=found.links,
        far=found.links,
        workers_per_node=found.workers,
        read_bytes_per_s=windows * sample.bytes / statistics.fmean(found.read_s),
        reads_ahead=False,
        overlap=0.0,  # a worker's one thread computes and communicates
    )
    traffic = traffic_of_step(sum(tensors), len(tensors), 4, stage.zero_stage, 1)
    return step_seconds(WorkerStep(flops, windows * sample.bytes, traffic), found.workers, cluster)


def traffic_rows(probes: Sequence[Probe], sample: Sample) -> list[dict[str, Value]]:
    """Collectives that DeepSpeed logged, beside those that the cost model counts."""
    with torch.device("meta"):
        tensors = [parameter.numel() for parameter in MaskDiffusion(PUBLISHED, sample.schemas).parameters()]
    return [
        {
            "measurement": "collectives",
            "zero_stage": str(stage.zero_stage),
            "workers": found.workers,
            "kind": modelled.kind,
            "logged_mb": sum(logged.bytes for logged in stage.traffic if logged.kind == modelled.kind) / 1e6,
            "modelled_mb": modelled.bytes / 1e6,
            "logged_calls": sum(logged.calls for logged in stage.traffic if logged.kind == modelled.kind),
            "modelled_calls": modelled.calls,
        }
        for found in probes
        if found.workers > 1
        for stage in found.stages
        for modelled in traffic_of_step(sum(tensors), len(tensors), 4, stage.zero_stage, 1)
    ]


def memory_rows(probes: Sequence[Probe]) -> list[dict[str, Value]]:
    """Bytes that a worker holds, and the formula's."""
    rows: list[dict[str, Value]] = []
    for found in probes:
        for stage, held in found.held.items():
            formula = state_bytes(found.held_parameters, stage, found.workers, "float32")
            row: dict[str, Value] = {
                "measurement": "memory of a worker", "zero_stage": str(stage), "workers": found.workers,
            }  # fmt: skip
            for name in ("parameters", "gradients", "optimizer"):
                row[f"{name}_mib"] = getattr(held.state, name) / _MIB
                row[f"{name}_formula_mib"] = getattr(formula, name) / _MIB
            row["measured_over_formula_ratio"] = held.state.total / formula.total
            row["buffers_mib"] = held.buffers / _MIB
            rows.append(row)
    return rows


def shown_memory(rows: Sequence[Row]) -> list[Row]:
    """The rows as they fit a terminal."""
    return [
        {
            "ZeRO": row["zero_stage"],
            "workers": row["workers"],
            **{
                name: f"{row[f'{name}_mib']:,.1f} ({row[f'{name}_formula_mib']:,.1f})"
                for name in ("parameters", "gradients", "optimizer")
            },
            "measured / formula": row["measured_over_formula_ratio"],
            "buffers": row["buffers_mib"],
        }
        for row in rows
    ]


def _short(row: Row) -> Row:
    names = {
        "zero_stage": "ZeRO", "samples_per_s_per_worker": "samples/s a worker", "efficiency_percent": "efficiency %",
        "communication_percent": "communication %", "data_wait_percent": "data wait %",
        "predicted_step_s": "predicted step s", "prediction_error_percent": "error %",
        "predicted_communication_percent": "predicted communication %",
    }  # fmt: skip
    return {
        names.get(key, key): value for key, value in row.items() if key not in ("measurement", "windows_per_worker")
    }
