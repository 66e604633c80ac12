"""Measures the parts of a training step on real engines, to check the cost model.

All workers do the same at the same time, as in training.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
import ray.train.torch
import torch
import torch.distributed as dist
from collectives import Kind, Traffic, counted, start_counting
from cost_model import Link
from held_state import HeldState, held_state
from ray.train.v2.api.exceptions import TrainingFailedError

from diffclip_dist.model.mask_diffusion import (
    draw_noise_and_masks,
    loss_terms,
    sample_keys,
    token_counts,
    weighted_loss,
)
from diffclip_dist.train.backend.deepspeed_engine import (
    build_model,
    build_optimiser,
    end_engine,
    join_process_group,
    start_engine,
)
from diffclip_dist.train.cluster.driver import worker_resources
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.plan import plan_run
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.single_process import world_of_one
from diffclip_dist.train.step import train_step
from shards.archive.archive import Archive
from shards.errors import FailedRun

ZeroStage = Literal[0, 1, 2, 3]

_WARM_UP: Final = 2
_SMALL, _LARGE = 1 << 10, 1 << 22  # numbers in the collectives that a link is told from


@dataclass(frozen=True)
class StageProbe:
    """Training under one ZeRO stage.

    Attributes:
        zero_stage: 0 to 3.
        step_s: wall clock of a step, the wait for samples included, of each measured step.
        wait_s: of it, for samples.
        communication_share: of a step's wall clock in which a collective is under way, 0 to 1; a worker that waits
            for the others waits in a collective.
        traffic: of a step, as DeepSpeed logged it.
    """

    zero_stage: int
    step_s: tuple[float, ...]
    wait_s: tuple[float, ...]
    communication_share: float
    traffic: tuple[Traffic, ...]


@dataclass(frozen=True)
class Probe:
    """Measurements of one worker group.

    Attributes:
        workers: in the group.
        bare_s: a step of the bare model and optimizer, without engine and collectives, of each measured step.
        read_s: making a step's windows ready, of each measured step.
        links: kind of collective to what a worker reaches in it; empty for one worker.
        stages: training by ZeRO stage.
        held: ZeRO stage to the most that any worker holds, of the model that memory is measured with.
        held_parameters: of that model.
    """

    workers: int
    bare_s: tuple[float, ...]
    read_s: tuple[float, ...]
    links: dict[Kind, Link]
    stages: tuple[StageProbe, ...]
    held: dict[int, HeldState]
    held_parameters: int


_PROBES: Final = pydantic.TypeAdapter(Probe)
_PROBE_FILE: Final = "probe.json"


@dataclass(frozen=True)
class ProbePlan:
    """The measurements to make.

    Attributes:
        config: the run that is timed; its ZeRO stage is set by `timed_stages`.
        holding: the run whose memory is counted.
        timed_stages: ZeRO stages that are timed.
        held_stages: ZeRO stages whose memory is counted.
        steps: that are timed for each.
        threads: of each worker on a CPU.
    """

    config: PretrainConfig
    holding: PretrainConfig
    timed_stages: tuple[ZeroStage, ...]
    held_stages: tuple[ZeroStage, ...]
    steps: int
    threads: int


def probe(plan: ProbePlan) -> Probe:
    """Runs the measurements on Ray's cluster, or in this process for one worker.

    Raises:
        FailedRun: a worker failed.
    """
    if plan.config.workers == 1:
        return _probe_alone(plan)
    trainer = ray.train.torch.TorchTrainer(
        partial(_probe_worker, plan),
        scaling_config=worker_resources(plan.config),
        run_config=ray.train.RunConfig(name="probe", storage_path=plan.config.run_dir),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise FailedRun(f"{plan.config.workers} workers: {str(error).strip().splitlines()[-1]}") from error
    return _PROBES.validate_json((Path(plan.config.run_dir) / _PROBE_FILE).read_bytes())


def _probe_alone(plan: ProbePlan) -> Probe:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    try:
        with world_of_one(device):
            return _measured(plan, device)
    finally:
        torch.set_num_threads(threads)


def _probe_worker(plan: ProbePlan) -> None:
    found = _measured(plan, ray.train.torch.get_device())
    if dist.get_rank() == 0:
        (Path(plan.config.run_dir) / _PROBE_FILE).write_bytes(_PROBES.dump_json(found))


def _measured(plan: ProbePlan, device: torch.device) -> Probe:
    torch.set_num_threads(plan.threads)
    join_process_group(device)
    workers = dist.get_world_size()
    archive = Archive.open_unverified(plan.config.archive)  # this benchmark has just built it
    holding = TrainContext.of(plan_run(plan.holding, archive), device)
    timed = TrainContext.of(plan_run(plan.config, archive), device)
    held: dict[int, HeldState] = {}
    for stage in plan.held_stages:
        held[stage] = _held(_under(holding, stage))
    return Probe(
        workers=workers,
        bare_s=_bare_seconds(timed, plan.steps) if plan.timed_stages else (),
        read_s=_timed(partial(next, timed.stream.batches(0, plan.steps + _WARM_UP)), plan.steps, device),
        links=_links(device) if workers > 1 else {},
        stages=tuple(_train(_under(timed, stage), plan.steps) for stage in plan.timed_stages),
        held=held,
        held_parameters=holding.plan.parameters,
    )


def _under(context: TrainContext, stage: ZeroStage) -> TrainContext:
    """The same run under another ZeRO stage."""
    return replace(context, plan=replace(context.plan, config=replace(context.config, zero_stage=stage)))


def _bare_seconds(context: TrainContext, steps: int) -> tuple[float, ...]:
    """Forward, backward and update of this worker's windows alone, while the other workers do the same."""
    config = context.config
    model = build_model(config, context.modalities).to(context.device)
    optimiser = build_optimiser(model, config.optimiser)
    batch = next(context.stream.batches(0, 1))

    def step() -> None:
        terms = loss_terms(
            model(batch, draw_noise_and_masks(batch, config.model, config.seed, 0)),
            token_counts(batch, config.model, sample_keys(batch, config.seed, 0)),
        )
        weighted_loss(terms, config.model).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()

    return _timed(step, steps, context.device)


def _train(context: TrainContext, steps: int) -> StageProbe:
    engine = start_engine(context.config, context.modalities, context.device, dist.get_world_size())
    batches = context.stream.batches(0, 2 * steps + _WARM_UP + 1)
    waits: list[float] = []
    done = 0

    def step() -> None:
        nonlocal done
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        train_step(engine, batch, context.config, done)
        done += 1

    seconds = _timed(step, steps, context.device)
    waited = tuple(waits[_WARM_UP:])
    activities = [torch.profiler.ProfilerActivity.CPU]
    if context.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    start = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
        _finish(context.device)
        elapsed = time.perf_counter() - start
    under_way = covered(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.name.startswith(("gloo:", "ncclDevKernel"))
    )
    start_counting()
    step()
    traffic = counted(dist.get_world_size())
    end_engine(engine)
    return StageProbe(context.config.chosen_stage, seconds, waited, under_way * 1e-6 / elapsed, traffic)


def _held(context: TrainContext) -> HeldState:
    """The most that any worker holds."""
    engine = start_engine(context.config, context.modalities, context.device, dist.get_world_size())
    found = None
    # the first step makes the optimizer's state
    for number, batch in enumerate(context.stream.batches(0, 2)):
        counts = token_counts(batch, context.config.model, sample_keys(batch, context.config.seed, number))
        sums = engine(batch, draw_noise_and_masks(batch, context.config.model, context.config.seed, number))
        engine.backward(weighted_loss(loss_terms(sums, counts), context.config.model))
        found = held_state(engine)
        engine.step()
    end_engine(engine)
    del engine
    gc.collect()
    everyone: list[HeldState | Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, found)
    return max(everyone, key=lambda held: held.state.total)


def _links(device: torch.device) -> dict[Kind, Link]:
    """Measures a small and a large collective of each kind, and works out its link."""
    workers = dist.get_world_size()

    def all_reduce(numbers: int) -> Callable[[], object]:
        whole = torch.zeros(numbers, device=device)
        return lambda: dist.all_reduce(whole)

    def all_gather(numbers: int) -> Callable[[], object]:
        whole, part = torch.zeros(numbers, device=device), torch.zeros(numbers // workers, device=device)
        return lambda: dist.all_gather_into_tensor(whole, part)

    def reduce_scatter(numbers: int) -> Callable[[], object]:
        whole, part = torch.zeros(numbers, device=device), torch.zeros(numbers // workers, device=device)
        return lambda: dist.reduce_scatter_tensor(part, whole)

    makers: dict[Kind, Callable[[int], Callable[[], object]]] = {
        "all_reduce": all_reduce, "all_gather": all_gather, "reduce_scatter": reduce_scatter,
    }  # fmt: skip
    links: dict[Kind, Link] = {}
    for kind, make in makers.items():
        small, large = (
            statistics.median(_timed(make(size // workers * workers), 7, device)) for size in (_SMALL, _LARGE)
        )
        links[kind] = Link.told_from(kind, workers, (4 * _SMALL, small), (4 * _LARGE, large))
    return links


def _timed(act: Callable[[], object], times: int, device: torch.device) -> tuple[float, ...]:
    """Wall clock of each call, the warm-up left out; workers start together."""
    seconds = []
    dist.barrier()
    for _ in range(_WARM_UP + times):
        start = time.perf_counter()
        act()
        _finish(device)
        seconds.append(time.perf_counter() - start)
    return tuple(seconds[_WARM_UP:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of the intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
