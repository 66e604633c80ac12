"""Pretraining in one process, without Ray: every run of one process has the losses of a run under Ray."""

import json
import os
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from small_runs import SMALL_MODEL, STEPS, Run, read_lines

from diffclip_dist.model.saved_encoder import read_config
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from diffclip_dist.train.run_files import METRICS_FILE
from diffclip_dist.train.single_process import pretrain_single_process
from shards.errors import BadInput, FailedRun


def settings(archive: Path, folder: Path, *more: str) -> PretrainConfig:
    given = {"archive": str(archive), "run_dir": str(folder), "global_batch": 24, "steps": STEPS}
    return resolve_config(None, given, [*SMALL_MODEL, *more])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in read_lines(folder / METRICS_FILE)]


def listening() -> set[str]:
    return {socket.laddr.ip for socket in psutil.Process().net_connections() if socket.status == psutil.CONN_LISTEN}


def test_the_same_seed_gives_the_losses_of_a_run_under_ray_and_another_seed_others(
    one_worker: Run, generated_archive: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # those of the worker, so that sums are added up alike
    try:
        for again in ("first", "second"):
            encoder = pretrain_single_process(settings(generated_archive, tmp_path / again))
            assert losses(tmp_path / again) == one_worker.losses
            assert read_config(encoder) == read_config(one_worker.folder / "encoder")
            assert not dist.is_initialized()
            assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & os.environ.keys()
            assert listening() <= {"127.0.0.1", "::1"}
        pretrain_single_process(settings(generated_archive, tmp_path / "other", "seed=1", "steps=1"))
        assert losses(tmp_path / "other")[0] != one_worker.losses[0]
    finally:
        torch.set_num_threads(threads)


def test_a_fault_is_reported_and_the_next_run_starts_afresh(generated_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedRun, match="the loss is nan"):
        pretrain_single_process(settings(generated_archive, tmp_path, "optimiser.learning_rate=1e30", "steps=30"))
    unlogged = ("steps=6", "log_every=1000", "checkpoint_every=4")
    with pytest.raises(FailedRun, match="step 4: the loss is nan; its samples are of tiles: rank 0: small_"):
        pretrain_single_process(settings(generated_archive, tmp_path, "optimiser.learning_rate=1e30", *unlogged))
    at_once = ("optimiser.learning_rate=1e39", "optimiser.warmup_steps=0", "steps=2", "checkpoint_every=1")
    with pytest.raises(FailedRun, match="step 1: a weight is not finite"):
        pretrain_single_process(settings(generated_archive, tmp_path, *at_once))
    with pytest.raises(BadInput, match="nowhere"):
        pretrain_single_process(settings(tmp_path / "nowhere", tmp_path))
    assert pretrain_single_process(settings(generated_archive, tmp_path, "steps=6")).is_dir()
    assert len(losses(tmp_path)) == 6
