"""Settings that change where and how a run is computed, on real engines of two ranks: the losses stay the same."""

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from engines import STAGES, train, train_context
from small_runs import SMALL_MODEL
from torch.nn import functional

from diffclip_dist.train.backend.deepspeed_engine import end_engine, start_engine
from diffclip_dist.train.backend.offload import reaches_disk
from diffclip_dist.train.backend.sharded_state import read_state, write_state
from diffclip_dist.train.pretrain_config import OffloadConfig, PretrainConfig, resolve_config
from diffclip_dist.train.step import train_step

pytestmark = pytest.mark.slow
SAVED, STEPS = 2, 4
Losses = dict[tuple[str, int], torch.Tensor]
HOST = OffloadConfig(optimizer="host")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"activation_checkpointing": True},
    "host": {"offload": HOST},
    "all on host": {"offload": replace(HOST, parameters="host")},
    # workers run below the test's own folder
    "all on disk": {"offload": OffloadConfig(optimizer="disk", parameters="disk", folder="disk")},
}


def stages(name: str) -> Iterable[int]:
    """ZeRO stages that allow for a variant."""
    return {"host": range(1, 4), "all on host": (3,), "all on disk": (3,)}.get(name, STAGES)


RUNS = [(name, stage) for name in VARIANTS for stage in stages(name)]
OFF_DEVICE = [(name, stage) for name, stage in RUNS if name.endswith(("host", "disk"))]


def train_each(rank: int, config: PretrainConfig, folder: Path) -> None:
    os.chdir(folder)
    with train_context(config, rank, 2, folder) as context:
        batches = list(context.stream.batches(0, STEPS))
        linear = functional.linear
        for name, stage in RUNS:
            if name == "all on disk" and not reaches_disk():
                continue
            staged = replace(config, zero_stage=stage, **VARIANTS[name])
            engine = start_engine(staged, context.modalities, context.device, 2)
            curve = train(engine, batches[:SAVED], config, 0)
            (folder / f"state-{name}-{stage}").mkdir(exist_ok=True)
            write_state(engine, folder / f"state-{name}-{stage}")
            curve += train(engine, batches[SAVED:], config, SAVED)
            (folder / f"{name}-{stage}.json").write_text(json.dumps(curve))
            end_engine(engine)
            assert functional.linear is linear, "what is computed next would be rounded otherwise"
            if (name, stage) in OFF_DEVICE:
                engine = start_engine(staged, context.modalities, context.device, 2)
                train_step(engine, batches[0], config, 0)
                read_state(engine, folder / f"state-{name}-{stage}", SAVED)
                (folder / f"resumed-{name}-{stage}.json").write_text(
                    json.dumps(train(engine, batches[SAVED:], config, SAVED))
                )
                end_engine(engine)


@pytest.fixture(scope="module")
def losses(generated_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Loss of each step by variant and ZeRO stage; by ``resumed-`` and the variant, where it was loaded."""
    folder = tmp_path_factory.mktemp("losses")
    given = {"archive": str(generated_archive), "run_dir": str(folder), "global_batch": 24, "steps": STEPS}
    settings = ["micro_batch=5", "optimiser.clip_norm=0.5", "optimiser.ema_decay=0.5"]
    config = resolve_config(None, given, [*SMALL_MODEL, *settings])
    torch.multiprocessing.spawn(train_each, args=(config, folder), nprocs=2)
    found = {}
    for file in folder.glob("*.json"):
        name, _, stage = file.stem.rpartition("-")
        found[name, int(stage)] = torch.tensor(json.loads(file.read_text()), dtype=torch.float64)[:, 0]
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", STAGES)
def test_recomputed_activations_give_the_very_same_losses(losses: Losses, stage: int) -> None:
    assert torch.equal(losses["checkpointing", stage], losses["plain", stage])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "stage"), OFF_DEVICE)
def test_state_off_the_device_changes_no_loss_and_is_resumed_from_there(losses: Losses, name: str, stage: int) -> None:
    if name == "all on disk" and not reaches_disk():
        pytest.skip("DeepSpeed needs libaio and its headers to keep state on disk")
    torch.testing.assert_close(losses[name, stage], losses["plain", stage], rtol=1e-5, atol=0.0)
    assert torch.equal(losses[f"resumed-{name}", stage], losses[name, stage][SAVED:])
