"""What each Ray Train worker runs: stream, engine, steps, checkpoints, and at the end the encoder."""

import math
import os
from contextlib import nullcontext
from pathlib import Path

import ray
import ray.train.torch
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine

from diffclip_dist.config import PretrainConfig
from diffclip_dist.encoder import EncoderConfig, Training, save_encoder
from diffclip_dist.encoder.storage import FORMAT_VERSION
from diffclip_dist.engine.checkpoints import RunState, report_checkpoint, restore
from diffclip_dist.engine.deepspeed_engine import full_weights, join_process_group, start_engine
from diffclip_dist.engine.meter import Meter
from diffclip_dist.engine.run_log import RunLog
from diffclip_dist.engine.train_step import train_step
from diffclip_dist.stream.batches import RankShare, WindowStream
from diffclip_dist.stream.order import GlobalOrder
from diffclip_dist.stream.schema import ModalitySchema
from diffclip_dist.stream.sensors import all_modalities, group_scenes
from shards.archive import Archive
from shards.errors import FailedRun
from shards.manifest import Manifest


def pretrain_worker(config: PretrainConfig) -> None:
    """Pretrains on this rank; every rank runs the same steps."""
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
    engine = start_engine(config, modalities, device, share.world_size)
    start = restore(engine, archive.fingerprint)

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
                    tiles = stream.describe(step)
                    raise FailedRun(f"step {done}: the loss is {metrics.loss}; rank {share.rank} read tiles {tiles}")
                if log is not None:
                    log.write(metrics)
            if done % config.checkpoint_every == 0 or last:
                state = RunState(done, archive.fingerprint, config.zero_stage, share.world_size)
                report_checkpoint(engine, state, {"step": done})
    export_encoder(engine, config, modalities, archive.manifest)


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
