"""What each Ray Train worker runs: stream, engine, steps, checkpoints, and at the end the encoder."""

import math
import os
import secrets
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Final

import ray
import ray.train.torch
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine

from diffclip_dist.config import PretrainConfig
from diffclip_dist.encoder import EncoderConfig, Training, save_encoder
from diffclip_dist.encoder.storage import FORMAT_VERSION
from diffclip_dist.engine.checkpoints import (
    CHECKPOINTS,
    RunState,
    StoredCheckpoint,
    load_checkpoint,
    loadable,
    needs_conversion,
    newest_checkpoint,
    prune_other_attempts,
    save_checkpoint,
)
from diffclip_dist.engine.deepspeed_engine import full_weights, join_process_group, start_engine
from diffclip_dist.engine.meter import Meter
from diffclip_dist.engine.run_log import RunLog, StepMetrics
from diffclip_dist.engine.train_step import probe_loss, train_step
from diffclip_dist.stream.batches import RankShare, WindowBatch, WindowStream
from diffclip_dist.stream.order import GlobalOrder
from diffclip_dist.stream.schema import ModalitySchema
from diffclip_dist.stream.sensors import all_modalities, group_scenes
from shards.archive import Archive
from shards.errors import FailedRun
from shards.manifest import Manifest

STOPPED_FILE: Final = "stopped.txt"
_CONVERTED_TOLERANCE: Final = 1e-5  # another split of the batch adds up in another order


def pretrain_worker(config: PretrainConfig, attempt: str) -> None:
    """Pretrains on this rank; every rank runs the same steps.

    Args:
        config: the run's settings.
        attempt: the Ray run's name, which is its folder below the run's checkpoints.
    """
    device = ray.train.torch.get_device()
    _use_assigned_cores()
    join_process_group(device)
    share = RankShare(dist.get_rank(), dist.get_world_size())

    archive = Archive.open(config.archive)
    groups = group_scenes(archive.manifest, config.model.window)
    order = GlobalOrder([group.tile_pixels for group in groups], config.order)
    stream = WindowStream(
        config.archive, groups, order, share, config.model.window, config.stream.loader_processes, device
    )
    modalities = all_modalities(groups)
    probe = next(stream.batches(0, 1))
    engine, start = _start_or_resume(config, modalities, device, archive.fingerprint, probe)
    token = _agreed_token()
    checkpoints = Path(config.run_dir) / CHECKPOINTS

    with RunLog(Path(config.run_dir), start) if share.rank == 0 else nullcontext() as log:
        meter = Meter(config, device, start)
        batches = stream.batches(start, config.steps)
        for step in range(start, config.steps):
            with meter.waiting():
                batch = next(batches)
            result = train_step(engine, batch, config, step)
            meter.count(batch.schemas)
            done = step + 1
            last = done == config.steps
            if done % config.log_every == 0 or last:
                metrics = meter.measure(engine, result, batch.schemas, done)
                if not math.isfinite(metrics.loss):
                    return _stop_for_good(Path(config.run_dir), metrics, stream)
                if log is not None:
                    log.write(metrics)
            if done % config.checkpoint_every == 0 or last:
                state = RunState(
                    done,
                    archive.fingerprint,
                    config.zero_stage,
                    share.world_size,
                    probe_loss(engine, probe, config),
                    library_versions(),
                )
                save_checkpoint(engine, state, checkpoints / attempt, token)
                if share.rank == 0:
                    prune_other_attempts(checkpoints, attempt, config.keep_checkpoints)
    export_encoder(engine, config, modalities, archive.manifest)
    return None


def _start_or_resume(
    config: PretrainConfig,
    modalities: tuple[ModalitySchema, ...],
    device: torch.device,
    archive_fingerprint: str,
    probe: WindowBatch,
) -> tuple[DeepSpeedEngine, int]:
    """A fresh engine, or one that goes on from the run's newest complete checkpoint; and the steps done.

    Raises:
        FailedRun: the newest checkpoint is damaged, belongs to another archive, or does not load as it was saved.
    """
    world_size = dist.get_world_size()
    newest: list[StoredCheckpoint | None] = [newest_checkpoint(Path(config.run_dir) / CHECKPOINTS)]
    dist.broadcast_object_list(newest)  # all ranks load what rank 0 saw
    if (checkpoint := newest[0]) is None:
        return start_engine(config, modalities, device, world_size), 0
    state = checkpoint.state
    if state.archive_fingerprint != archive_fingerprint:
        raise FailedRun(
            f"{checkpoint.folder}: expected archive {state.archive_fingerprint}, found {archive_fingerprint}: "
            "the archive has changed since"
        )
    convert = needs_conversion(state, config.zero_stage, world_size)
    with loadable(checkpoint, convert) as folder:
        engine = start_engine(config, modalities, device, world_size, load_universal=convert)
        load_checkpoint(engine, folder)
    loss = probe_loss(engine, probe, config)
    same_arithmetic = not convert and config.zero_stage == state.zero_stage and world_size == state.world_size
    if not math.isclose(loss, state.probe_loss, rel_tol=0.0 if same_arithmetic else _CONVERTED_TOLERANCE):
        raise FailedRun(
            f"{checkpoint.folder}: the loss of the fixed batch is {loss!r}, it was {state.probe_loss!r} when saved"
        )
    return engine, state.step


def library_versions() -> dict[str, str]:
    """What wrote a checkpoint."""
    return {name: metadata.version(name) for name in ("diffclip-dist", "torch", "deepspeed", "ray")}


def _agreed_token() -> str:
    """Names this start of the workers on every rank, so that a step saved anew never meets an unfinished older one."""
    token = [secrets.token_hex(4)]
    dist.broadcast_object_list(token)
    return token[0]


def _stop_for_good(run_dir: Path, metrics: StepMetrics, stream: WindowStream) -> None:
    """Leaves word of a non-finite loss for the driver; every rank must call, and then return.

    Raising would make Ray start the workers anew, only to meet the same step again.
    """
    tiles: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(tiles, stream.describe(metrics.step - 1))
    if dist.get_rank() == 0:
        taken = "; ".join(f"rank {rank}: {keys}" for rank, keys in enumerate(tiles))
        (run_dir / STOPPED_FILE).write_text(
            f"step {metrics.step}: the loss is {metrics.loss}; its samples are of tiles: {taken}\n"
        )


def export_encoder(
    engine: DeepSpeedEngine, config: PretrainConfig, modalities: tuple[ModalitySchema, ...], manifest: Manifest
) -> None:
    """Writes ``RUN/encoder``, whatever the ZeRO stage and world size; every rank must call, rank 0 writes."""
    weights = full_weights(engine, "encoder.")
    if engine.global_rank == 0:
        training = Training(
            steps=config.steps,
            seed=config.seed,
            archive_fingerprint=manifest.fingerprint,
            scenes=tuple(scene.name for scene in manifest.scenes),
            generated_scenes=tuple(scene.name for scene in manifest.scenes if scene.generated),
        )
        exported = EncoderConfig(FORMAT_VERSION, config.model, modalities, training)
        save_encoder(Path(config.run_dir) / "encoder", weights, exported)
    dist.barrier()


def _use_assigned_cores() -> None:
    """As many threads as Ray has given this worker cores, and never more than the machine has."""
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    torch.set_num_threads(max(1, min(int(assigned), os.cpu_count() or 1)))
