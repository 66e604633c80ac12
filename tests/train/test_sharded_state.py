"""An engine's state out of every ZeRO stage and into every other, at another number of workers too."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing
from deepspeed import DeepSpeedEngine
from engines import STAGES, train, train_context
from small_runs import SMALL_MODEL

from diffclip_dist.train.backend.deepspeed_engine import end_engine, start_engine
from diffclip_dist.train.backend.sharded_state import read_state, trained_weights, write_state
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from diffclip_dist.train.step import probe_loss, train_step

pytestmark = pytest.mark.slow
SAVED, LAST = 4, 8


def engine_of(context: TrainContext, stage: int) -> DeepSpeedEngine:
    staged = replace(context.config, zero_stage=stage)
    return start_engine(staged, context.modalities, context.device, dist.get_world_size())


def keep(folder: Path, name: str, curve: list[list[float]], engine: DeepSpeedEngine) -> None:
    """Leaves a curve, and the average of the weights at its end."""
    (folder / f"{name}.json").write_text(json.dumps(curve))
    averages = trained_weights(engine, "")
    if dist.get_rank() == 0:
        safetensors.torch.save_file(averages, folder / f"{name}.safetensors")


def save_from_each_stage(rank: int, config: PretrainConfig, folder: Path) -> None:
    with train_context(config, rank, 2, folder) as context:
        batches = list(context.stream.batches(0, LAST))
        for stage in STAGES:
            engine = engine_of(context, stage)
            probe_loss(engine, batches[0], config)  # as a run does before its first step
            before = train(engine, batches[:SAVED], config, 0)
            (folder / str(stage)).mkdir(exist_ok=True)
            write_state(engine, folder / str(stage))
            after = train(engine, batches[SAVED:], config, SAVED)
            keep(folder, f"undisturbed-{stage}", before + after, engine)
            end_engine(engine)


def load_into_each_stage(rank: int, config: PretrainConfig, folder: Path, world_size: int) -> None:
    with train_context(config, rank, world_size, folder / "loading") as context:
        batches = list(context.stream.batches(SAVED, LAST))
        for source, stage in itertools.product(STAGES, STAGES):
            engine = engine_of(context, stage)
            train_step(engine, batches[0], config, 0)
            read_state(engine, folder / str(source), SAVED)
            resumed = train(engine, batches, config, SAVED)
            keep(folder, f"resumed-{world_size}-{source}-{stage}", resumed, engine)
            end_engine(engine)


@pytest.fixture(scope="module")
def curves(generated_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the curves of every stage undisturbed, and of every stage resumed from every other."""
    folder = tmp_path_factory.mktemp("curves")
    (folder / "loading").mkdir()
    given = {"archive": str(generated_archive), "run_dir": str(folder), "global_batch": 24, "steps": LAST}
    # the gradient's norm is above the bound, so that clipping is at work
    settings = [*SMALL_MODEL, "micro_batch=5", "optimiser.clip_norm=0.5", "optimiser.ema_decay=0.5"]
    config = resolve_config(None, given, settings)
    torch.multiprocessing.spawn(save_from_each_stage, args=(config, folder), nprocs=2)
    for world_size in (1, 2):
        torch.multiprocessing.spawn(load_into_each_stage, args=(config, folder, world_size), nprocs=world_size)
    return folder


def curve(folder: Path, name: str) -> torch.Tensor:
    return torch.tensor(json.loads((folder / f"{name}.json").read_text()), dtype=torch.float64)


def apart(weights: torch.Tensor, expected: torch.Tensor) -> float:
    """Distance over length: Adam makes much of a lone weight's gradient that is near nothing, and of its rounding."""
    return float((weights - expected).norm() / expected.norm())


def average(folder: Path, name: str) -> torch.Tensor:
    tensors = safetensors.torch.load_file(folder / f"{name}.safetensors")
    return torch.cat([tensors[key].flatten() for key in sorted(tensors)])


@pytest.mark.timeout(600)
def test_a_run_goes_on_in_any_stage_and_world_as_if_nothing_had_happened(curves: Path) -> None:
    whole = {stage: curve(curves, f"undisturbed-{stage}") for stage in STAGES}
    for stage in STAGES:
        torch.testing.assert_close(whole[stage][:, 0], whole[0][:, 0], rtol=1e-5, atol=0.0)
    for source, stage in itertools.product(STAGES, STAGES):
        same_world = curve(curves, f"resumed-2-{source}-{stage}")
        if source == stage:
            assert torch.equal(same_world, whole[stage][SAVED:]), stage
        torch.testing.assert_close(same_world[:, 0], whole[stage][SAVED:, 0], rtol=1e-5, atol=0.0)
        alone = curve(curves, f"resumed-1-{source}-{stage}")
        torch.testing.assert_close(alone[:, 0], whole[stage][SAVED:, 0], rtol=1e-5, atol=0.0)


@pytest.mark.timeout(600)
def test_the_average_of_the_weights_goes_on_in_any_stage_and_world(curves: Path) -> None:
    averages = {stage: average(curves, f"undisturbed-{stage}") for stage in STAGES}
    for stage in STAGES:
        assert apart(averages[stage], averages[0]) < 1e-5
    for source, stage in itertools.product(STAGES, STAGES):
        same_world = average(curves, f"resumed-2-{source}-{stage}")
        if source == stage:
            assert torch.equal(same_world, averages[stage]), stage
        assert apart(same_world, averages[stage]) < 1e-5
        alone = average(curves, f"resumed-1-{source}-{stage}")
        assert apart(alone, averages[stage]) < 1e-5


@pytest.mark.timeout(600)
def test_the_gradients_norm_that_clips_is_the_same_under_every_stage(curves: Path) -> None:
    """DeepSpeed tells no norm under stage 0 in float32; its losses, held above to the others', show that it clips."""
    norms = {stage: curve(curves, f"undisturbed-{stage}")[:, 1] for stage in STAGES if stage > 0}
    for stage_norms in norms.values():
        assert stage_norms.min() > 0.5, "nothing is clipped, and the test shows nothing"
        torch.testing.assert_close(stage_norms, norms[1], rtol=1e-4, atol=0.0)
