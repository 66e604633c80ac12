"""``zero_stage: auto``: the lowest stage that the workers' memory allows, chosen once and kept by a resumed run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train.v2.api.config import ScalingConfig
from small_runs import SMALL_MODEL

from diffclip_dist.train.cluster.driver import with_recorded_choices, worker_memory
from diffclip_dist.train.plan import TrainPlan, open_plan
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.run_files import CONFIG_FILE
from diffclip_dist.train.zero_stage import NodeMemory, with_chosen_stage
from shards.errors import BadInput

GB = 10**9


def planned(archive: Path, *settings: str) -> TrainPlan:
    """A run of 4 workers whose model has a billion parameters: 16 GB of state where nothing is sharded."""
    given = {"archive": str(archive), "workers": 4, "global_batch": 24}
    return replace(open_plan(resolve_config(None, given, [*SMALL_MODEL, *settings])), parameters=GB)


@pytest.mark.parametrize(
    ("memory", "settings", "stage"),
    [
        (64 * GB, [], 0),  # 16 GB are a quarter
        (63 * GB, [], 1),  # 4 of weights, 4 of gradients, 12 of optimizer state shared by 4
        (43 * GB, [], 2),  # the gradients are shared as well
        (31 * GB, [], 3),
        (1 * GB, [], 3),  # nothing fits: the one that holds least
        (None, [], 1),
        (1 * GB, ["compile=true"], 2),  # stage 3 does not compile
        (64 * GB, ["offload.optimizer=host"], 1),  # stage 0 has no state to put elsewhere
        (64 * GB, ["offload.parameters=host"], 3),
        (None, ["offload.parameters=host"], 3),
        (1 * GB, ["workers=1"], 0),  # no stage shards the state of one worker
        (64 * GB, ["optimiser.ema_decay=0.9"], 1),  # the average takes 4 GB more
        (64 * GB, ["zero_stage=2"], 2),
    ],
)
def test_the_lowest_stage_whose_state_takes_a_quarter_of_the_memory(
    memory: int | None, settings: list[str], stage: int, generated_archive: Path
) -> None:
    assert with_chosen_stage(planned(generated_archive, *settings), memory).config.zero_stage == stage


def test_settings_that_no_stage_allows_are_refused() -> None:
    with pytest.raises(BadInput, match="compile: expected zero_stage 0, 1 or 2, found 3"):
        resolve_config(None, {}, ["compile=true", "offload.parameters=host"])


def test_a_resumed_run_keeps_the_recorded_stage_unless_it_names_another(tmp_path: Path) -> None:
    config = resolve_config(None, {"run_dir": str(tmp_path)}, [])
    assert with_recorded_choices(config).zero_stage == "auto"
    (tmp_path / CONFIG_FILE).write_text(replace(config, zero_stage=2).to_yaml())
    assert with_recorded_choices(config) == replace(config, zero_stage=2)
    assert with_recorded_choices(replace(config, zero_stage=0)).zero_stage == 0


def node(name: str, cpu: float, gpu: float = 0.0) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "Resources": {"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu}}


def test_all_workers_take_the_stage_of_the_node_that_has_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node("a", 4), node("b", 8), node("head", 1)])
    cores = ScalingConfig(num_workers=6, resources_per_worker={"CPU": 2.0, "GPU": 0.0})
    memory = {"a": NodeMemory(64 * GB, None), "b": NodeMemory(64 * GB, None), "head": NodeMemory(GB, None)}
    assert worker_memory(cores, memory) == 16 * GB  # four workers on b; none on the head
    alone = ScalingConfig(num_workers=1, resources_per_worker={"CPU": 4.0, "GPU": 0.0})
    assert worker_memory(alone, memory) == 64 * GB

    monkeypatch.setattr(ray, "nodes", lambda: [node("a", 4, 1), node("b", 8, 1), node("head", 1)])
    gpus = ScalingConfig(num_workers=2, use_gpu=True, resources_per_worker={"CPU": 1.0, "GPU": 1.0})
    seen = {"a": NodeMemory(GB, 80 * GB), "b": NodeMemory(GB, 24 * GB), "head": NodeMemory(GB, None)}
    assert worker_memory(gpus, seen) == 24 * GB
    assert worker_memory(gpus, {**seen, "b": NodeMemory(GB, None)}) is None  # torch sees no GPU there
