"""Drives a pretraining run: it plans and checks the run, starts Ray and its workers, and waits for the encoder."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs
import ray
import ray.train
import ray.train.torch
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from rich.filesize import decimal

from diffclip_dist.log_lines import log, start_log
from diffclip_dist.train.checkpoint.stored_checkpoint import checkpoint_store, newest_checkpoint
from diffclip_dist.train.cluster.interruptible import run_interruptibly
from diffclip_dist.train.cluster.preflight import DiskNeed, check_nodes
from diffclip_dist.train.cluster.worker import pretrain_worker
from diffclip_dist.train.memory import held_bytes
from diffclip_dist.train.monitor.faults import FaultLog, cause, newest_fault
from diffclip_dist.train.monitor.loggers import check_logger, send_metrics
from diffclip_dist.train.monitor.progress import follow_metrics
from diffclip_dist.train.monitor.run_report import keep_report
from diffclip_dist.train.plan import TrainPlan, open_plan
from diffclip_dist.train.precision import with_chosen_precision
from diffclip_dist.train.pretrain_config import PretrainConfig, read_run_config, same_run
from diffclip_dist.train.run_files import CONFIG_FILE, FAULTS_FILE, STOPPED_FILE
from diffclip_dist.train.schedule import learning_rate
from diffclip_dist.train.stop import StopFile
from diffclip_dist.train.zero_stage import NodeMemory, with_chosen_stage
from shards.archive.store import RemoteStore, Store
from shards.errors import BadInput, FailedRun, Terminated


def pretrain(config: PretrainConfig, resume: bool = False) -> Path:
    """Runs a whole pretraining run.

    Args:
        config: the run's settings.
        resume: goes on from the newest checkpoint in ``run_dir``.

    Returns:
        The folder of the exported encoder.

    Raises:
        BadInput: the archive, the settings or the run folder do not allow this run; nothing has been written.
        FailedRun: it was started and could not be finished.
        KeyboardInterrupt: after SIGINT. The run has saved a checkpoint; the message says how to go on.
        Terminated: likewise after another signal of which the command has made an exception.
    """
    start_log(config.log_format, "stdout", run=Path(config.run_dir).name)
    check_logger(config)
    plan = open_plan(with_recorded_choices(config) if resume else config)
    config = plan.config
    run_dir = Path(config.run_dir)
    check_run_dir(config, resume)
    if resume:
        check_newest_checkpoint(plan)
    stop_file, asked = StopFile(run_dir), threading.Event()

    def ask() -> None:
        asked.set()
        stop_file.ask()
        log("stopping: a checkpoint is saved first; Ctrl-C once more ends at once")

    try:
        run_interruptibly(lambda: _run_on_ray(plan, resume, stop_file, asked), ask)
    except (KeyboardInterrupt, Terminated) as signal:
        fault = "" if signal.__cause__ is None else str(signal.__cause__)
        if (run_dir / STOPPED_FILE).exists():
            fault = (run_dir / STOPPED_FILE).read_text().strip()
        if not fault and _is_finished(config):
            return run_dir / "encoder"
        signal.args = (_how_to_go_on(config, fault),)
        raise
    if (run_dir / STOPPED_FILE).exists():
        raise FailedRun(f"{run_dir}: {(run_dir / STOPPED_FILE).read_text()}")
    return run_dir / "encoder"


def _run_on_ray(plan: TrainPlan, resume: bool, stop_file: StopFile, asked: threading.Event) -> None:
    """Checks the nodes and trains, until the last step or until the run is asked to stop."""
    config = plan.config
    run_dir = Path(config.run_dir)
    with ray_cluster():
        scaling = worker_resources(config)
        if config.precision == "auto":
            config = with_chosen_precision(config, on_gpus=bool(scaling.use_gpu))
            plan = replace(plan, config=config)
            log(f"precision: auto is {config.precision} here")
        memory = worker_memory(scaling, check_nodes(plan, DiskNeed.of(plan, resume)))
        if config.zero_stage == "auto":
            plan = with_chosen_stage(plan, memory)
            config = plan.config
            known = "unknown memory" if memory is None else decimal(memory)
            held = decimal(held_bytes(config, plan.parameters))
            log(f"zero_stage: auto is {config.zero_stage} here: a worker with {known} holds {held} throughout")
        if asked.is_set():
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / CONFIG_FILE).write_text(config.to_yaml())
        for left in (STOPPED_FILE, FAULTS_FILE):
            (run_dir / left).unlink(missing_ok=True)
        stop_file.prepare()
        try:
            if not asked.is_set():
                compiles = config.compiles("cuda" if scaling.use_gpu else "cpu")
                follow = follow_metrics(run_dir, config.steps, compiles, config.log_format)
                with send_metrics(config), keep_report(run_dir), follow:
                    _train(plan, scaling, _next_attempt(checkpoint_store(config)))
        finally:
            stop_file.remove()


def _is_finished(config: PretrainConfig) -> bool:
    newest = newest_checkpoint(checkpoint_store(config))
    return newest is not None and newest.state.step == config.steps and (Path(config.run_dir) / "encoder").exists()


def _how_to_go_on(config: PretrainConfig, fault: str) -> str:
    """What is saved of a run that was stopped, and how to go on; empty where nothing has begun."""
    if not (Path(config.run_dir) / CONFIG_FILE).exists():
        return ""
    try:
        newest = newest_checkpoint(checkpoint_store(config))
        saved = "no step" if newest is None else f"step {newest.state.step} of {config.steps}"
    except (FailedRun, OSError) as error:
        saved, fault = "an unknown step", str(error)
    reason = f" ({fault})" if fault else ""
    return f"{config.run_dir}: {saved} is saved{reason}; go on with the same command and --resume"


def _train(plan: TrainPlan, scaling: ScalingConfig, attempt: str) -> None:
    config = plan.config
    run_dir = Path(config.run_dir)
    trainer = ray.train.torch.TorchTrainer(
        partial(pretrain_worker, plan, attempt),  # Ray puts it into its object store once, for all workers
        torch_config=ray.train.torch.TorchConfig(timeout_s=config.timeout_s),
        scaling_config=scaling,
        run_config=ray.train.RunConfig(
            name=attempt,
            **_storage(checkpoint_store(config)),
            callbacks=[FaultLog(run_dir)],  # type: ignore[list-item]
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                # without this Ray would try for ever to start workers that never come up
                controller_failure_limit=config.max_failures,
            ),
            # Ray removes no checkpoint; `stored_checkpoint.prune` does, and removes the record first
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        # a fault of a worker stands in the log, with its rank; others are Ray's own
        worker_fault = newest_fault(run_dir) if isinstance(error, WorkerGroupError) else None
        raise FailedRun(f"{run_dir}: {worker_fault or cause(error)}") from error


def _storage(store: Store) -> dict[str, Any]:
    """Ray's settings for a store."""
    if isinstance(store, RemoteStore):
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(store.filesystem))
        return {"storage_path": store.root, "storage_filesystem": filesystem}
    return {"storage_path": store.location}


def with_recorded_choices(config: PretrainConfig) -> PretrainConfig:
    """The configuration with ``auto`` as the run in its folder was started, if there is one: precision and stage."""
    recorded = Path(config.run_dir) / CONFIG_FILE
    if "auto" not in (config.precision, config.zero_stage) or not recorded.is_file():
        return config
    begun = read_run_config(recorded)
    return replace(
        config,
        precision=begun.precision if config.precision == "auto" else config.precision,
        zero_stage=begun.zero_stage if config.zero_stage == "auto" else config.zero_stage,
    )


def check_run_dir(config: PretrainConfig, resume: bool) -> None:
    """Refuses a folder that holds another run, and to resume a run that is absent or has other settings."""
    run_dir = Path(config.run_dir)
    exists = (run_dir / CONFIG_FILE).exists()
    if exists and not resume:
        raise BadInput(f"{run_dir}: holds a run already; give --resume to go on with it, or another --run-dir")
    if resume and not exists:
        raise BadInput(f"{run_dir}: --resume: expected a run, with its {CONFIG_FILE}, found none")
    checkpoints = checkpoint_store(config)
    if not resume and checkpoints.sizes():
        raise BadInput(f"{checkpoints.location}: expected no files where a new run's checkpoints go, found some")
    if resume:
        begun = read_run_config(run_dir / CONFIG_FILE)
        if begun.stream.order_version != config.stream.order_version:
            raise BadInput(
                f"{run_dir / CONFIG_FILE}: --resume: expected order {config.stream.order_version} of samples, found "
                f"{begun.stream.order_version}: go on with the release that began the run, or begin a new one; an "
                "encoder that it has exported can be used"
            )
        changed = same_run(config, begun)
        if changed:
            raise BadInput(
                f"{run_dir / CONFIG_FILE}: --resume: expected the same {', '.join(changed)}; these differ, "
                "and another run cannot go on from its checkpoints"
            )


def check_newest_checkpoint(plan: TrainPlan) -> None:
    """Prints the step that the run goes on from, and what becomes of the learning rate if it gets more or fewer steps.

    The workers read the checkpoint's files; one that is damaged is passed over there.

    Raises:
        BadInput: the checkpoint was made with another archive, or has more steps than the run is to have.
    """
    newest = newest_checkpoint(checkpoint_store(plan.config))
    if newest is None:
        log("no checkpoint had been finished: starting at step 0")
        return
    expected, found = newest.state.archive_fingerprint, plan.manifest.fingerprint
    if expected != found:
        raise BadInput(
            f"{plan.config.archive}: --resume: expected the archive with fingerprint {expected}, "
            f"found {found}: it has changed since"
        )
    done, steps, before = newest.state.step, plan.config.steps, newest.state.config.steps
    if steps < done:
        raise BadInput(
            f"{plan.config.run_dir}: --resume: steps: expected at least the {done} that are done, found {steps}"
        )
    log(f"going on from step {done}: {newest}")
    if done < steps != before:
        then, now = (learning_rate(done, each, plan.config.optimiser) for each in (before, steps))
        log(
            f"the run now has {steps} steps, it had {before}: from step {done + 1} on the learning rate is that of a "
            f"run of {steps} steps, which starts at {now:.3g} there ({then:.3g} before)"
        )


def _next_attempt(checkpoints: Store) -> str:
    """A new name for this start of the run; under an old name Ray would go on from that start's state."""
    folders = {PurePosixPath(path).parts[0] for path in checkpoints.sizes()}
    earlier = [int(folder.removeprefix("attempt-")) for folder in folders if folder.startswith("attempt-")]
    return f"attempt-{max(earlier, default=0) + 1:04d}"


def worker_resources(config: PretrainConfig) -> ScalingConfig:
    """Gives each worker a GPU if the cluster has enough, else an equal share of the cores; no worker spans two nodes.

    Raises:
        BadInput: the cluster has no cores for workers.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    use_gpu = sum(node.get("GPU", 0.0) for node in nodes) >= config.workers
    hosts = [node for node in nodes if node.get("CPU") and (node.get("GPU") or not use_gpu)]
    most = [int(node["GPU"]) if use_gpu else config.workers for node in hosts]
    share = cores_per_worker([node["CPU"] for node in hosts], most, config.workers)
    if share == 0.0:
        raise BadInput(f"workers: expected nodes with cores for {config.workers}, found {len(hosts)} with any")
    return ScalingConfig(
        num_workers=(config.min_workers, config.workers) if config.min_workers else config.workers,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": share, "GPU": 1.0 * use_gpu},
    )


def worker_memory(scaling: ScalingConfig, nodes: Mapping[str, NodeMemory]) -> int | None:
    """Bytes that a worker has on the node that has least: its GPU's, or an equal share of the node's.

    Args:
        scaling: what each worker gets.
        nodes: id of each node to its memory.

    Returns:
        None where they are not known.
    """
    assert isinstance(scaling.resources_per_worker, dict)
    share, most = scaling.resources_per_worker["CPU"], scaling.max_workers
    assert isinstance(share, float)
    found: list[int | None] = []
    for node in ray.nodes():
        memory, cores = nodes.get(node["NodeID"]), node["Resources"].get("CPU", 0.0)
        if memory is None or cores < share or (scaling.use_gpu and not node["Resources"].get("GPU")):
            continue
        found.append(memory.gpu if scaling.use_gpu else memory.host // min(int(cores / share), most))
    known = [each for each in found if each is not None]
    return min(known) if known and len(known) == len(found) else None


def cores_per_worker(cores: Sequence[float], most: Sequence[int], workers: int) -> float:
    """The largest equal share of cores with which the workers fit onto the nodes, rounded down to whole cores from 1.

    Args:
        cores: of each node.
        most: workers that a node takes, whatever its cores.
        workers: to place.

    Returns:
        Cores, to Ray's ten-thousandth of a core; 0 where they do not fit at all.
    """
    shares = sorted({node / onto for node in cores for onto in range(1, workers + 1)}, reverse=True)
    for exact in shares:
        share = float(int(exact)) if exact >= 1.0 else int(exact * 10_000) / 10_000
        if share and sum(min(int(node / share), limit) for node, limit in zip(cores, most, strict=True)) >= workers:
            return share
    return 0.0


def _log_of_ray(data: Any, ignore_prefix: bool) -> None:
    """Logs what a node of the cluster says, such as that no node has room for the workers."""
    del ignore_prefix
    for line in data["lines"]:
        log(f"Ray: {' '.join(line.split())}", logging.WARNING)


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Connects to the cluster of ``RAY_ADDRESS`` or of the job; else starts one on loopback and stops it at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints what its nodes say in a form of its own, whatever it is told of logs
    ray._private.worker.print_to_stdstream = _log_of_ray
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
