"""Measures the rows of training_step.py.

Shapes: B windows, M modalities.
"""

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
from published_step import PublishedModel
from report import Value, check_destination, print_table, write_json
from torch import Tensor

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import loss_terms, sample_keys, weighted_loss
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import preset_model
from diffclip_dist.train.backend.deepspeed_engine import end_engine, join_process_group, start_engine
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.monitor.matrix_rate import matrix_rate
from diffclip_dist.train.precision import faster_on_cpu
from diffclip_dist.train.pretrain_config import OptimiserConfig, PretrainConfig, StreamConfig
from diffclip_dist.train.single_process import world_of_one
from diffclip_dist.train.step import train_step
from shards.errors import BadInput, FailedRun

SCHEMAS: Final = (ModalitySchema("hsi", 144), ModalitySchema("height", 1))
PEER_BATCH: Final = 128
CPU_DRIFT_BATCH: Final = 16  # so that thousands of steps take minutes
MOST_WITH_GRAPHS: Final = 512  # windows: of larger batches, launches are a small part
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Setup:
    """One row of ours."""

    preset: str
    precision: Precision
    windows: int
    compiled: bool | Literal["graphs"]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: of each row, after steps that warm up.
        steps: that warm up, that are measured at least, and whose parts are timed.
        checked_steps: over which compiled and plain losses are held together; 0 leaves it out.
        presets: with the first and the last batch; each is four times the one before, until memory ends.
        compiled: whether rows are compiled.
    """

    seconds: float
    steps: int
    checked_steps: int
    presets: Mapping[str, tuple[int, int]]
    compiled: bool


QUICK: Final = Effort(1.0, 2, 0, {"published": (16, 16), "default": (16, 16)}, compiled=False)
CPU: Final = Effort(12.0, 2, 0, {"published": (128, 128), "default": (128, 128)}, compiled=False)
GPU: Final = Effort(
    3.0,
    5,
    5000,
    {"published": (128, 8192), "default": (128, 32768), "base": (128, 2048), "large": (128, 512)},
    compiled=True,
)


def measure(arguments: argparse.Namespace) -> int:
    """Checks, measures, prints the table and writes ``--json``, ``--trace`` and the comparison."""
    check_destination(arguments.json)
    check_destination(arguments.trace)
    earlier = {} if arguments.compare is None else read_rates(arguments.compare)
    load = os.getloadavg()[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    effort = QUICK if arguments.quick else GPU if device.type == "cuda" else CPU
    rates: dict[Precision, float] = {
        precision: matrix_rate(device, getattr(torch, precision)) for precision in ("float32", "bfloat16")
    }
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    rows: list[dict[str, Value]] = []
    with world_of_one(device):
        join_process_group(device)
        checks = check_losses(device, effort)
        peer_windows = 16 if arguments.quick else PEER_BATCH
        for windows in (peer_windows, 4096) if device.type == "cuda" else (peer_windows,):
            rows += [row for precision in precisions if (row := measure_peer(device, effort, precision, windows))]
        base = next(float(row["windows_per_s"] or 0.0) for row in rows)  # float32 at the published batch
        for preset, (smallest, largest) in effort.presets.items():
            for precision in precisions:
                windows = smallest
                while windows <= largest:
                    setup = Setup(preset, precision, windows, effort.compiled)
                    row = measure_ours(device, effort, setup, rates[precision], arguments.trace)
                    if row is None:
                        break
                    rows.append(row)
                    if effort.compiled and windows <= MOST_WITH_GRAPHS:
                        setup = replace(setup, compiled="graphs")
                        row = measure_ours(device, effort, setup, rates[precision], arguments.trace)
                        rows += [row] if row is not None else []
                    windows *= 4
    for row in rows:
        row["times_published_ratio"] = float(row["windows_per_s"] or 0.0) / base
        if (before := earlier.get(name_of(row))) is not None:
            row["times_earlier_ratio"] = float(row["windows_per_s"] or 0.0) / before
    print_table(f"one {device.type} process, windows of random numbers on the device", rows)
    auto = "bfloat16" if device.type == "cuda" else faster_on_cpu(preset_model("published"))
    print(f"precision=auto takes {auto} here; checks: {checks or 'none'}")
    if arguments.json is not None:
        command = "python benchmarks/training_step.py" + " --quick" * arguments.quick
        matrix = {f"matrix_{precision}_gflop_per_s": rate / 1e9 for precision, rate in rates.items()}
        write_json(
            arguments.json,
            {"command": command, "processes_waiting_to_run_before": load, "auto": auto, **matrix, **checks},
            rows,
        )
    return EXIT_DONE


def name_of(row: Mapping[str, Value]) -> str:
    """What tells a row from the others of its file."""
    return f"{row['model']} {row['precision']} {row['windows']} {row['compiled']}"


def read_rates(file: Path) -> dict[str, float]:
    """Windows a second by row of an earlier ``--json``.

    Raises:
        BadInput: it is no such file.
    """
    try:
        return {name_of(row): float(row["windows_per_s"]) for row in json.loads(file.read_text())["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"--compare {file}: expected the --json of an earlier training_step.py, found {error!r}"
        ) from None


def model_of(preset: str) -> ModelConfig:
    """The preset's model; larger presets take the published window, so that their rates compare."""
    if preset == "default":
        return ModelConfig()
    model = preset_model(preset)
    return model if preset == "published" else ModelConfig(**{**vars(model), "window": 11})


def random_batch(model: ModelConfig, windows: int, device: torch.device) -> WindowBatch:
    """Whole windows of random numbers, the same on every device."""
    made = torch.Generator().manual_seed(0)
    values = {s.key: torch.randn(windows, model.tokens, s.bands, generator=made).to(device) for s in SCHEMAS}
    valid = {s.key: torch.ones(windows, model.tokens, dtype=torch.bool, device=device) for s in SCHEMAS}
    return WindowBatch(SCHEMAS, torch.arange(windows, device=device), values, valid, all_valid=True)


def run_config(setup: Setup, steps: int = 1_000_000, *, tf32: bool = True) -> PretrainConfig:
    """A run of one worker and ZeRO stage 0."""
    return PretrainConfig(
        steps=steps,
        global_batch=setup.windows,
        micro_batch=setup.windows,
        precision=setup.precision,
        compile=setup.compiled,
        tf32=tf32,
        zero_stage=0,
        stream=StreamConfig(shuffle_streams=1),
        optimiser=OptimiserConfig(learning_rate=1e-4),
        model=model_of(setup.preset),
    )


def losses(device: torch.device, config: PretrainConfig, steps: int) -> list[float]:
    """The loss of each step on eight batches of random numbers that take turns."""
    engine = start_engine(config, SCHEMAS, device, world_size=1)
    batch = random_batch(config.model, 8 * config.global_batch, device)
    parts = list(batch.split(config.global_batch))
    found = [
        weighted_loss(train_step(engine, parts[step % 8], config, step).terms_LM, config.model) for step in range(steps)
    ]
    end_engine(engine)
    return torch.stack(found).tolist()


def check_losses(device: torch.device, effort: Effort) -> dict[str, float]:
    """Relative differences of losses that should agree.

    Raises:
        FailedRun: losses of ten float32 steps differ from the CPU's, or compiled draws from plain ones.
    """
    if device.type == "cpu":
        return {}
    exact = run_config(Setup("default", "float32", 64, compiled=False), tf32=False)
    there = losses(device, exact, 10)
    here = losses(torch.device("cpu"), exact, 10)
    apart = max(abs(a / b - 1.0) for a, b in zip(there, here, strict=True))
    if apart > 1e-4:
        raise FailedRun(f"ten float32 steps: expected the CPU's losses to 1e-4, found a difference of {apart:g}")
    check_draws(device)
    return {"cpu_loss_difference_ratio": apart} | compiled_gaps(device, effort.checked_steps)


def compiled_gaps(device: torch.device, steps: int) -> dict[str, float]:
    """How far the mean loss over the last tenth of some steps lies from the plain one's, see `drift_rows`."""
    last = drift_rows(device, steps)[-1]
    gaps = {name.removesuffix("_gap_ratio"): gap for name, gap in last.items() if name.endswith("_gap_ratio")}
    return {f"{name}_loss_gap_after_{steps}_steps_ratio": gap for name, gap in gaps.items()}


def drift_rows(device: torch.device, steps: int) -> list[dict[str, float]]:
    """A row for each tenth of some steps: its mean loss, and how far those of other runs lie from it.

    The others are compiled, on GPUs with CUDA graphs too, or plain with another seed, which is the measure of what
    chance does.
    """
    on_gpu = device.type == "cuda"
    precision: Precision = "bfloat16" if on_gpu else "float32"
    part = max(steps // 10, 1)

    def means(compiled: bool | Literal["graphs"], seed: int = 0) -> list[float]:
        setup = Setup("default", precision, PEER_BATCH if on_gpu else CPU_DRIFT_BATCH, compiled)
        found = losses(device, replace(run_config(setup, steps), seed=seed), steps)
        return [statistics.mean(found[start : start + part]) for start in range(0, steps, part)]

    plain = means(compiled=False)
    others = {"compiled": means(compiled=True)} | ({"graphs": means(compiled="graphs")} if on_gpu else {})
    others["other_seed"] = means(compiled=False, seed=1)
    return [
        {"steps": min((number + 1) * part, steps), "plain_loss": loss}
        | {f"{name}_gap_ratio": curve[number] / loss - 1.0 for name, curve in others.items()}
        for number, loss in enumerate(plain)
    ]


def measure_drift(arguments: argparse.Namespace) -> int:
    """Measures ``--drift``, prints the table and writes ``--json``."""
    check_destination(arguments.json)
    if arguments.drift < 1:
        raise BadInput(f"--drift {arguments.drift}: expected 1 step or more")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with world_of_one(device):
        join_process_group(device)
        rows = drift_rows(device, arguments.drift)
    print_table(f"mean loss of each tenth of {arguments.drift:,} steps on {device.type}, and gaps of other runs", rows)
    if arguments.json is not None:
        command = f"python benchmarks/training_step.py --drift {arguments.drift}"
        write_json(arguments.json, {"command": command, "batch": "random numbers, the same in each run"}, rows)
    return EXIT_DONE


def check_draws(device: torch.device) -> None:
    """Compiled draws must be the plain ones.

    Raises:
        FailedRun: a mask or timestep differs, or the noise by more than rounding.
    """
    config = run_config(Setup("default", "float32", 64, compiled=True))
    engine = start_engine(config, SCHEMAS, device, world_size=1)
    plain = type(engine.module).draw
    batch = random_batch(config.model, 64, device)
    keys_B = sample_keys(batch, 3, 5)
    found, expected = engine.module.draw(batch, keys_B), plain(engine.module, batch, keys_B)
    same = torch.equal(found.t_B, expected.t_B) and all(
        torch.equal(found.masks[key].slots_BK, expected.masks[key].slots_BK)
        and torch.allclose(found.noise[key], expected.noise[key], atol=1e-5)
        for key in found.noise
    )
    end_engine(engine)
    if not same:
        raise FailedRun("compiled draws: expected the numbers of plain ones, found others; train with compile=false")


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate_of(step: Callable[[int], object], device: torch.device, effort: Effort) -> float:
    """Steps a second, after some that warm up."""
    for number in range(effort.steps):
        step(number)
    wait_for(device)
    start, done = time.perf_counter(), 0
    while done < effort.steps or time.perf_counter() - start < effort.seconds:
        step(effort.steps + done)
        done += 1
        if done % 8 == 0:
            wait_for(device)  # else a GPU's queue would run ahead of the clock
    wait_for(device)
    return done / (time.perf_counter() - start)


def memory_mib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None


def start_clean(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure_peer(device: torch.device, effort: Effort, precision: Precision, windows: int) -> dict[str, Value] | None:
    """The published step; None if it does not fit."""
    start_clean(device)
    torch.set_float32_matmul_precision("highest")  # torch's own setting
    torch.manual_seed(0)
    model = PublishedModel({schema.key: schema.bands for schema in SCHEMAS}).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    batch = random_batch(model_of("published"), windows, device)

    def step(_: int) -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(batch.windows)
        loss.backward()
        optimiser.step()

    try:
        rate = rate_of(step, device, effort)
    except torch.OutOfMemoryError:
        return None
    return {
        "model": "published, plain eager torch", "precision": precision, "windows": windows, "compiled": False,
        "windows_per_s": rate * windows, "memory_mib": memory_mib(device),
    }  # fmt: skip


def measure_ours(
    device: torch.device, effort: Effort, setup: Setup, matrix: float, trace: Path | None
) -> dict[str, Value] | None:
    """A row of ours with its time split; None if it does not fit."""
    start_clean(device)
    config = run_config(setup)
    engine = start_engine(config, SCHEMAS, device, world_size=1)
    batch = random_batch(config.model, setup.windows, device)
    try:
        rate = rate_of(lambda number: train_step(engine, batch, config, number), device, effort)
        split = split_of(engine, batch, config, device, effort.steps)
        if trace is not None:
            write_trace(trace, lambda: train_step(engine, batch, config, 0), device)
    except torch.OutOfMemoryError:
        return None
    finally:
        end_engine(engine)
    flops = training_flops(config.model, SCHEMAS)
    return {
        "model": setup.preset, "precision": setup.precision, "windows": setup.windows, "compiled": setup.compiled,
        "windows_per_s": rate * setup.windows, "memory_mib": memory_mib(device),
        "mfu_percent": 100.0 * rate * setup.windows * flops / matrix, **split,
    }  # fmt: skip


def split_of(
    engine: DeepSpeedEngine, batch: WindowBatch, config: PretrainConfig, device: torch.device, steps: int
) -> dict[str, float]:
    """Milliseconds of each part of a step, the median of some steps, waiting for the device after each."""
    taken: dict[str, list[float]] = {}
    for number in range(1 + steps):
        start = time.perf_counter()
        for name in parts_of(engine, batch, config, number):
            wait_for(device)
            now = time.perf_counter()
            taken.setdefault(f"{name}_ms", []).append(1e3 * (now - start))
            start = now
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def parts_of(engine: DeepSpeedEngine, batch: WindowBatch, config: PretrainConfig, number: int) -> Iterator[str]:
    """Takes one step (as `train_step` does) and names each part when it is done."""
    keys_B = sample_keys(batch, config.seed, number)
    counts_LM: Tensor = engine.module.count(batch, keys_B)
    yield "counts"
    drawn = engine.module.draw(batch, keys_B)
    yield "draw"
    loss = weighted_loss(loss_terms(engine(batch, drawn), counts_LM), config.model)
    yield "forward"
    engine.backward(loss)
    yield "backward"
    engine.step()
    yield "optimizer"


def write_trace(file: Path, step: Callable[[], object], device: torch.device) -> None:
    """A trace of one step in Chrome's format, which ui.perfetto.dev opens."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
        wait_for(device)
    profile.export_chrome_trace(str(file))
