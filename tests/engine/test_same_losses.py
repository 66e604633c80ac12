"""Settings that change where and how a run is computed, on real engines of two ranks: the losses stay the same."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from engines import STAGES, rank_inputs, train
from small_runs import SMALL_MODEL

from diffclip_dist.config import PretrainConfig, resolve_config
from diffclip_dist.engine.deepspeed_engine import start_engine

STEPS = 4
VARIANTS = {
    "plain": {},
    "checkpointing": {"activation_checkpointing": True},
}


def train_each(rank: int, config: PretrainConfig, folder: Path) -> None:
    with rank_inputs(config, rank, 2, folder) as inputs:
        batches = list(inputs.stream.batches(0, STEPS))
        for stage, (name, settings) in itertools.product(STAGES, VARIANTS.items()):
            engine = start_engine(replace(config, zero_stage=stage, **settings), inputs.modalities, inputs.device, 2)
            curve = train(engine, batches, config, 0)
            (folder / f"{name}-{stage}.json").write_text(json.dumps(curve))
            engine.destroy()


@pytest.fixture(scope="module")
def losses(generated_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], torch.Tensor]:
    """Loss of each step by variant and ZeRO stage."""
    folder = tmp_path_factory.mktemp("losses")
    given = {"archive": str(generated_archive), "run_dir": str(folder), "global_batch": 24, "steps": STEPS}
    config = resolve_config(None, given, [*SMALL_MODEL, "micro_batch=5", "optimiser.clip_norm=0.5"])
    torch.multiprocessing.spawn(train_each, args=(config, folder), nprocs=2)
    found = {}
    for name, stage in itertools.product(VARIANTS, STAGES):
        curve = json.loads((folder / f"{name}-{stage}.json").read_text())
        found[name, stage] = torch.tensor(curve, dtype=torch.float64)[:, 0]
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", STAGES)
def test_recomputed_activations_give_the_very_same_losses(
    losses: dict[tuple[str, int], torch.Tensor], stage: int
) -> None:
    assert torch.equal(losses["checkpointing", stage], losses["plain", stage])
