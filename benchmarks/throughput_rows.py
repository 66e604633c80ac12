"""Measures the rows of throughput.py: each is a real run through Ray Train and DeepSpeed."""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
from generated_archive import build_generated
from report import (
    HIGHEST,
    LOWEST,
    Row,
    Value,
    check_destination,
    median_row,
    print_table,
    write_json,
)

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.presets import PUBLISHED
from diffclip_dist.train.cluster.driver import pretrain
from diffclip_dist.train.monitor.matrix_rate import matrix_rate
from diffclip_dist.train.monitor.new_lines import NewLines
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.pretrain_config import PretrainConfig, StreamConfig
from diffclip_dist.train.run_files import METRICS_FILE
from shards.archive.archive import Archive
from shards.errors import BadInput


@dataclass(frozen=True)
class Setup:
    """What a row measures; the defaults are the published configuration."""

    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int = 128
    window: int = 11
    workers: int = 1

    def __str__(self) -> str:
        return f"{self.precision}, micro-batch {self.micro_batch}, window {self.window}, workers {self.workers}"


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        tile_size: side of the generated scene's tiles in pixels.
        repeats: stretches of steps that count; one more before them warms up.
        samples: a worker's windows in one stretch; at least a tile's, so that reading tiles is part of it.
    """

    tile_size: int
    repeats: int
    samples: int


QUICK: Final = Effort(tile_size=8, repeats=2, samples=128)
CPU: Final = Effort(tile_size=32, repeats=3, samples=1024)
GPU: Final = Effort(tile_size=64, repeats=5, samples=65536)


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    effort = QUICK if arguments.quick else GPU if torch.cuda.is_available() else CPU
    with tempfile.TemporaryDirectory(prefix="diffclip-throughput-") as scratch:
        archive = arguments.archive or build_generated(Path(scratch) / "archive", effort.tile_size)
        wanted = [Setup()] if arguments.quick else setups(computes_in_bfloat16())
        runs = [(setup, run_config(archive, setup, effort)) for setup in wanted]
        for _, config in runs:
            open_plan(config)  # refuses bad input before the first run
        scenes, schemas = described(archive)
        load = os.getloadavg()[0]
        rows = []
        for number, (setup, config) in enumerate(runs, 1):
            print(f"run {number} of {len(runs)}: {setup}", flush=True)
            rows.append(measured(setup, replace(config, run_dir=f"{scratch}/run-{number}"), schemas))
    worker = (
        f"a worker is one {rows[0]['device']}" if torch.cuda.is_available() else "a worker is one process on the CPU"
    )
    print_table(f"Pretraining on {scenes}; {worker}; medians (lowest to highest)", [shown(row) for row in rows])
    if arguments.json is not None:
        busy = {"processes_waiting_to_run_before": load}
        bands = {schema.name: schema.bands for schema in schemas}
        write_json(arguments.json, {"scenes": scenes, "bands": bands, **busy}, [{"scenes": scenes, **r} for r in rows])
    return EXIT_DONE


def computes_in_bfloat16() -> bool:
    """Whether this machine is no slower in bfloat16: a processor without its instructions takes ten times as long."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return matrix_rate(device, torch.bfloat16) >= matrix_rate(device, torch.float32)


def setups(bfloat16: bool) -> list[Setup]:
    """The rows: the published configuration, then one change each."""
    published = Setup()
    varied = [replace(published, precision="bfloat16")] if bfloat16 else []
    varied += [replace(published, micro_batch=size) for size in (32, 512)]
    varied += [replace(published, window=side) for side in (7, 15)]
    gpus = torch.cuda.device_count()
    varied += [replace(published, workers=count) for count in ((2,) if gpus == 0 else (2, 4, 8)) if gpus in (0, count)]
    return [published, *varied]


def described(archive: str) -> tuple[str, tuple[ModalitySchema, ...]]:
    """The archive's scenes in words, and the modalities that they have in common.

    Raises:
        BadInput: they have not the same, so that no figure of operations holds for every sample.
    """
    scenes = Archive.open(archive).manifest.scenes
    schemas = {tuple(ModalitySchema.of(modality) for modality in scene.modalities) for scene in scenes}
    if len(schemas) != 1:
        raise BadInput(f"--archive {archive}: expected scenes of one combination of modalities, found {len(schemas)}")
    names = ", ".join(f"{scene.name} (generated)" if scene.generated else scene.name for scene in scenes)
    return names, schemas.pop()


def run_config(archive: str, setup: Setup, effort: Effort) -> PretrainConfig:
    """A run of one stretch to warm up and the stretches to measure, each of which is one logged step."""
    steps = max(1, effort.samples // setup.micro_batch)
    total = steps * (effort.repeats + 1)
    return PretrainConfig(
        archive=archive,
        workers=setup.workers,
        steps=total,
        global_batch=setup.micro_batch * setup.workers,
        micro_batch=setup.micro_batch,
        precision=setup.precision,
        log_every=steps,
        checkpoint_every=total,  # after the last measured step
        reconstruct_windows=0,
        max_failures=0,
        # each worker walks through tiles of its own one by one, so that every stretch reads its share of them
        stream=StreamConfig(shuffle_streams=setup.workers, shuffle_buffer=1),
        model=replace(PUBLISHED, window=setup.window),
    )


def measured(setup: Setup, config: PretrainConfig, schemas: Sequence[ModalitySchema]) -> dict[str, Value]:
    """Runs a row's pretraining and reads its figures."""
    pretrain(config)
    lines = list(NewLines(Path(config.run_dir) / METRICS_FILE).read())
    return median_row([figures(setup, json.loads(line), training_flops(config.model, schemas)) for line in lines[1:]])


def figures(setup: Setup, logged: dict[str, float], flops: int) -> Row:
    """A row's figures from one line of the run's metrics and the operations of a sample."""
    rate = logged["samples_per_s_per_worker"]
    return {
        "device": "GPU" if torch.cuda.device_count() >= setup.workers else "CPU",
        "precision": setup.precision,
        "micro_batch_windows": setup.micro_batch,
        "window_pixels": setup.window,
        "workers": setup.workers,
        "samples_per_s_per_worker": rate,
        "samples_per_s": logged["samples_per_s"],
        "data_wait_percent": 100.0 * logged["data_wait_fraction"],
        "model_gflop_per_sample": flops / 1e9,
        "mfu_percent": 100.0 * logged["mfu"],
        # what the run divided by to get its utilisation
        "matrix_gflop_per_s_per_worker": round(rate * flops / logged["mfu"] / 1e9, 3),
        "memory_mib_per_worker": logged["memory_bytes"] / 2**20,
    }


_SHOWN: Final = {
    "precision": "precision",
    "micro_batch_windows": "micro batch",
    "window_pixels": "window",
    "workers": "workers",
    "samples_per_s_per_worker": "samples/s a worker",
    LOWEST + "samples_per_s_per_worker": LOWEST + "samples/s a worker",
    HIGHEST + "samples_per_s_per_worker": HIGHEST + "samples/s a worker",
    "data_wait_percent": "data wait %",
    "model_gflop_per_sample": "GFLOP a sample",
    "mfu_percent": "MFU %",
    "matrix_gflop_per_s_per_worker": "matrix GFLOP/s",
}


def shown(row: Row) -> Row:
    """What of a row fits a terminal; the JSON has all of it."""
    return {short: row[key] for key, short in _SHOWN.items() if key in row}
