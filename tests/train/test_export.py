"""The exported encoder against the engine that trained it and against the average of its weights, under every stage."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing
from deepspeed import DeepSpeedEngine
from engines import end_rank

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.model.saved_encoder import load_encoder, read_config
from diffclip_dist.train.backend.deepspeed_engine import end_engine, join_process_group, start_engine
from diffclip_dist.train.backend.sharded_state import whole_state
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.loop import export_encoder
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from diffclip_dist.train.step import train_step

WORLD_SIZE = 2
STEPS = 5
DECAY = 0.3  # reached at the third step: before that the step's own bound is the smaller


def features(encoder: torch.nn.Module, batch: WindowBatch) -> torch.Tensor:
    windows = {schema.name: batch.windows[schema.key] for schema in batch.schemas}
    valid = {schema.name: batch.valid[schema.key] for schema in batch.schemas}
    with torch.no_grad():
        read = encoder(windows, valid)
    return torch.cat([read.class_BMD.flatten(1), read.tokens_BMTD.flatten(1)], dim=1)


def masters(engine: DeepSpeedEngine) -> dict[str, torch.Tensor]:
    """The encoder's float32 weights, gathered without the optimizer's average."""
    named = engine.module.encoder.named_parameters()
    return {name: whole_state(engine, parameter).detach().double().clone() for name, parameter in named}


def train_and_export(rank: int, config: PretrainConfig, address: str) -> None:
    """One rank: a few steps with and without an average, the engine's features, every step's weights, the export."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD_SIZE))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD_SIZE)
    device = torch.device("cpu")
    join_process_group(device)
    context = TrainContext.of(open_plan(config), device)
    for zero_stage, decay in itertools.product(range(4), (0.0, DECAY)):
        optimiser = replace(config.optimiser, ema_decay=decay)
        run_dir = f"{config.run_dir}/{zero_stage}-{decay}"
        staged = replace(config, zero_stage=zero_stage, optimiser=optimiser, run_dir=run_dir)
        engine = start_engine(staged, context.modalities, device, WORLD_SIZE)
        history = []
        for step, batch in enumerate(context.stream.batches(0, STEPS)):
            train_step(engine, batch, staged, step)
            history.append(masters(engine))
        seen = features(engine.module.encoder, batch)
        export_encoder(engine, replace(context.plan, config=staged))
        if rank == 0:
            windows = {schema.name: batch.windows[schema.key] for schema in batch.schemas}
            valid = {schema.name: batch.valid[schema.key] for schema in batch.schemas}
            known = {"features": seen, "windows": windows, "valid": valid, "history": history}
            torch.save(known, f"{staged.run_dir}/seen.pt")
        end_engine(engine)
    end_rank()


@pytest.fixture(scope="module")
def exported(generated_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's folder for each ZeRO stage, with an average and without."""
    tmp_path = tmp_path_factory.mktemp("exported")
    settings = ["model.window=7", "model.width=32", "model.depth=2", "model.heads=2", "model.decoder_depth=1"]
    given = {"archive": str(generated_archive), "run_dir": str(tmp_path), "global_batch": 16, "workers": WORLD_SIZE}
    config = resolve_config(None, given, settings)
    address = f"file://{tmp_path / 'rendezvous'}"
    torch.multiprocessing.spawn(train_and_export, args=(config, address), nprocs=WORLD_SIZE)
    return tmp_path


@pytest.mark.timeout(600)
def test_exported_encoder_gives_the_engines_features(exported: Path) -> None:
    for zero_stage in range(4):
        folder = exported / f"{zero_stage}-0.0"
        seen = torch.load(folder / "seen.pt", weights_only=True)
        encoder = load_encoder(folder / "encoder")
        with torch.no_grad():
            read = encoder(seen["windows"], seen["valid"])
        ours = torch.cat([read.class_BMD.flatten(1), read.tokens_BMTD.flatten(1)], dim=1)
        torch.testing.assert_close(ours, seen["features"])
        assert ours.std() > 0.1


@pytest.mark.timeout(600)
def test_an_encoder_is_exported_with_the_average_that_was_kept_and_training_goes_on_without_it(exported: Path) -> None:
    for zero_stage in range(4):
        folder, without = exported / f"{zero_stage}-{DECAY}", exported / f"{zero_stage}-0.0"
        history = torch.load(folder / "seen.pt", weights_only=True)["history"]
        undisturbed = torch.load(without / "seen.pt", weights_only=True)["history"]
        average = history[0]
        for step, weights in enumerate(history[1:], start=2):
            kept = min(DECAY, (1 + step) / (10 + step))
            average = {name: kept * average[name] + (1 - kept) * weights[name] for name in weights}
        written = safetensors.torch.load_file(folder / "encoder" / "model.safetensors")
        assert written.keys() == average.keys()
        for name, weights in written.items():
            torch.testing.assert_close(weights.double(), average[name], rtol=1e-5, atol=1e-7)
            assert torch.equal(history[-1][name], undisturbed[-1][name])
        # far more than the tolerance above, so the last weights would not pass for the average
        assert max((average[name] - history[-1][name]).abs().max() for name in average) > 2e-5
        assert read_config(folder / "encoder").training.ema_decay == DECAY
        assert read_config(without / "encoder").training.ema_decay == 0.0
