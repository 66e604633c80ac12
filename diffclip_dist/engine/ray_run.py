"""A pretraining run from the driver's side: checks, Ray, Ray Train, and what comes out of it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import ray
import ray.train
import ray.train.torch
from ray.train.v2.api.exceptions import TrainingFailedError

from diffclip_dist.config import PretrainConfig, resolve_config, same_run
from diffclip_dist.engine.checkpoints import CHECKPOINTS, newest_checkpoint
from diffclip_dist.engine.progress import follow_metrics
from diffclip_dist.engine.rank_run import STOPPED_FILE
from diffclip_dist.engine.worker import pretrain_worker
from diffclip_dist.stream.order import GlobalOrder
from diffclip_dist.stream.sensors import group_scenes
from shards.archive import Archive
from shards.errors import BadInput, FailedRun
from shards.store import absolute_location

CONFIG_FILE: Final = "config.yaml"


def pretrain(config: PretrainConfig, resume: bool = False) -> Path:
    """Runs a whole pretraining run.

    Args:
        config: the run's settings; ``archive`` and ``run_dir`` are made absolute, as workers may start elsewhere.
        resume: goes on from the newest checkpoint in ``run_dir``.

    Returns:
        The folder of the exported encoder.

    Raises:
        BadInput: the archive, the settings or the run folder do not allow this run; nothing has been written.
        FailedRun: it was started and could not be finished.
    """
    config = replace(config, archive=absolute_location(config.archive), run_dir=str(Path(config.run_dir).resolve()))
    run_dir = Path(config.run_dir)
    fingerprint = check_archive(config)
    check_run_dir(config, resume)
    if resume:
        check_newest_checkpoint(config, fingerprint)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / CONFIG_FILE).write_text(config.to_yaml())
    (run_dir / STOPPED_FILE).unlink(missing_ok=True)
    attempt = _next_attempt(run_dir / CHECKPOINTS)
    with ray_cluster(), follow_metrics(run_dir, config.steps):
        trainer = ray.train.torch.TorchTrainer(
            partial(pretrain_worker, config, attempt),
            scaling_config=worker_resources(config),
            run_config=ray.train.RunConfig(
                name=attempt,
                storage_path=str(run_dir / CHECKPOINTS),
                failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=config.keep_checkpoints),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise FailedRun(f"{run_dir}: {_cause(error)}") from error
    if (run_dir / STOPPED_FILE).exists():
        raise FailedRun(f"{run_dir}: {(run_dir / STOPPED_FILE).read_text()}")
    return run_dir / "encoder"


def check_archive(config: PretrainConfig) -> str:
    """Opens the archive and lays out the order, so that bad input is refused before anything starts.

    Returns:
        The archive's fingerprint.
    """
    archive = Archive.open(config.archive, config.stream.verify)
    groups = group_scenes(archive.manifest, config.model.window)
    GlobalOrder([group.tile_pixels for group in groups], config.order)
    return archive.fingerprint


def check_run_dir(config: PretrainConfig, resume: bool) -> None:
    """Refuses to go on silently from another run, or to resume one that is not there or was set up otherwise."""
    run_dir = Path(config.run_dir)
    exists = (run_dir / CHECKPOINTS).exists()
    if exists and not resume:
        raise BadInput(f"{run_dir}: holds a run already; give --resume to go on with it, or another --run-dir")
    if resume and not exists:
        raise BadInput(f"{run_dir}: --resume: expected a run with checkpoints, found none")
    if resume:
        changed = same_run(config, resolve_config(run_dir / CONFIG_FILE, {}, ()))
        if changed:
            raise BadInput(
                f"{run_dir / CONFIG_FILE}: --resume: expected the same {', '.join(changed)}; these differ, "
                "and another run cannot go on from its checkpoints"
            )


def check_newest_checkpoint(config: PretrainConfig, archive_fingerprint: str) -> None:
    """Refuses a checkpoint that this archive cannot go on from; says which step the run resumes at."""
    newest = newest_checkpoint(Path(config.run_dir) / CHECKPOINTS)
    if newest is None:
        print("no checkpoint had been finished: starting at step 0")
        return
    if newest.state.archive_fingerprint != archive_fingerprint:
        raise BadInput(
            f"{config.archive}: --resume: expected the archive with fingerprint {newest.state.archive_fingerprint}, "
            f"found {archive_fingerprint}: it has changed since"
        )
    print(f"going on from step {newest.state.step}: {newest.folder}")


def _next_attempt(checkpoints: Path) -> str:
    """A name that no earlier start of this run has borne: Ray would go on from an old one silently."""
    earlier = [int(folder.name.removeprefix("attempt-")) for folder in checkpoints.glob("attempt-*")]
    return f"attempt-{max(earlier, default=0) + 1:04d}"


def worker_resources(config: PretrainConfig) -> ray.train.ScalingConfig:
    """A GPU a worker where the cluster has enough, else an equal share of its cores."""
    cluster = ray.cluster_resources()
    use_gpu = cluster.get("GPU", 0.0) >= config.workers
    cores = cluster.get("CPU", 1.0) / config.workers
    whole_cores = float(int(cores)) if cores >= 1.0 else cores
    return ray.train.ScalingConfig(
        num_workers=config.workers, use_gpu=use_gpu, resources_per_worker={"CPU": whole_cores, "GPU": 1.0 * use_gpu}
    )


@contextmanager
def ray_cluster() -> Iterator[None]:
    """The cluster that a job runs on or ``RAY_ADDRESS`` names; else one of our own, on loopback, while it lasts."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = "RAY_ADDRESS" not in os.environ
    if own:
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _cause(error: BaseException) -> str:
    """The innermost message that names the fault, without the tracebacks of the layers between."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
