"""What one rank of a run does: stream, engine, steps, log, and at the end the encoder. It knows nothing of Ray.

Ranks talk through torch.distributed alone, so that the same run can be driven by Ray Train (`worker`) or by nobody
(`single_process`). What becomes of the engine's state between steps is the business of a `Checkpointing`.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
import torch.distributed as dist

from diffclip_dist.data.batches import RankShare, WindowBatch, WindowStream
from diffclip_dist.data.order import GlobalOrder
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.sensors import all_modalities, group_scenes
from diffclip_dist.model.saved_encoder import FORMAT_VERSION, EncoderConfig, Training, save_encoder
from diffclip_dist.train.backend.deepspeed_engine import end_engine, join_process_group
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import trained_weights
from diffclip_dist.train.monitor.reconstruction import Reconstruction
from diffclip_dist.train.monitor.run_log import RunLog, StepMetrics
from diffclip_dist.train.monitor.throughput import Meter
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.step import train_step
from shards.archive.archive import Archive
from shards.archive.manifest import Manifest
from shards.errors import FailedRun

STOPPED_FILE: Final = "stopped.txt"


class CannotGoOn(FailedRun):
    """A fault that would be met again by workers started anew; every rank raises it."""


@dataclass(frozen=True)
class TrainContext:
    """What a rank trains on.

    Attributes:
        config: the run's settings.
        device: of this rank.
        manifest: of the archive.
        modalities: of all its scenes, each once.
        stream: this rank's share of every global batch.
    """

    config: PretrainConfig
    device: torch.device
    manifest: Manifest
    modalities: tuple[ModalitySchema, ...]
    stream: WindowStream

    @classmethod
    def open(cls, config: PretrainConfig, device: torch.device) -> "TrainContext":
        """Opens the archive for this rank of the process group."""
        manifest = Archive.open(config.archive).manifest
        groups = group_scenes(manifest, config.model.window)
        order = GlobalOrder([group.tile_pixels for group in groups], config.order)
        share = RankShare(dist.get_rank(), dist.get_world_size())
        stream = WindowStream(
            config.archive, groups, order, share, config.model.window, config.stream.loader_processes, device
        )
        return cls(config, device, manifest, all_modalities(groups), stream)

    def batches(self, start: int) -> Iterator[WindowBatch]:
        """This rank's share of the steps from ``start`` to the run's last."""
        return self.stream.batches(start, self.config.steps)


class Checkpointing(Protocol):
    """Where a run's engine comes from and what keeps its state; every rank calls each method equally often."""

    def start(self, context: TrainContext) -> tuple[DeepSpeedEngine, int]:
        """An engine, fresh or restored, and the steps that it has done.

        Raises:
            CannotGoOn: what was kept is not to be gone on from.
        """

    def save(self, engine: DeepSpeedEngine, step: int) -> None:
        """Keeps the engine's state after so many steps."""


def run_rank(config: PretrainConfig, device: torch.device, checkpoints: Checkpointing) -> None:
    """Pretrains on this rank of an existing process group; every rank runs the same steps.

    Args:
        config: the run's settings.
        device: of this rank.
        checkpoints: asked for the engine at the start, and given its state every ``checkpoint_every`` steps.
    """
    join_process_group(device)
    run_dir = Path(config.run_dir)
    context = TrainContext.open(config, device)
    try:
        engine, start = checkpoints.start(context)
    except CannotGoOn as fault:
        return _stop_for_good(run_dir, str(fault))
    reconstruction = Reconstruction(config, context.modalities, context.stream)
    with RunLog(run_dir, start) if dist.get_rank() == 0 else nullcontext() as log:
        meter = Meter(config, device, start)
        batches = context.batches(start)
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
                    return _stop_for_good(run_dir, _non_finite(metrics, context.stream))
                if log is not None:
                    log.write(metrics)
            if done % config.checkpoint_every == 0 or last:
                checkpoints.save(engine, done)
                reconstruction.show(engine, done, log)
    export_encoder(engine, config, context.modalities, context.manifest)
    end_engine(engine)
    return None


def _stop_for_good(run_dir: Path, fault: str) -> None:
    """Leaves word for the driver; every rank must call, and then return.

    Raising would make Ray start the workers anew, only to meet the same fault again.
    """
    if dist.get_rank() == 0:
        (run_dir / STOPPED_FILE).write_text(f"{fault}\n")


def _non_finite(metrics: StepMetrics, stream: WindowStream) -> str:
    """What is wrong with a step whose loss is no number, and where it came from; every rank must call."""
    tiles: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(tiles, stream.describe(metrics.step - 1))
    taken = "; ".join(f"rank {rank}: {keys}" for rank, keys in enumerate(tiles))
    return f"step {metrics.step}: the loss is {metrics.loss}; its samples are of tiles: {taken}"


def export_encoder(
    engine: DeepSpeedEngine, config: PretrainConfig, modalities: tuple[ModalitySchema, ...], manifest: Manifest
) -> None:
    """Writes ``RUN/encoder``, whatever the ZeRO stage and world size; every rank must call, rank 0 writes."""
    weights = trained_weights(engine, "encoder.")
    if engine.global_rank == 0:
        training = Training(
            steps=config.steps,
            seed=config.seed,
            archive_fingerprint=manifest.fingerprint,
            scenes=tuple(scene.name for scene in manifest.scenes),
            generated_scenes=tuple(scene.name for scene in manifest.scenes if scene.generated),
            ema_decay=config.optimiser.ema_decay,
        )
        exported = EncoderConfig(FORMAT_VERSION, config.model, modalities, training)
        save_encoder(Path(config.run_dir) / "encoder", weights, exported)
    dist.barrier()
