"""What one rank of a run does: it starts an engine, takes the steps, logs them and exports the encoder.

Ranks talk through torch.distributed alone. So Ray Train can start them (`cluster.worker`), or one process can run alone
(`single_process`). A `Checkpointing` gives the engine and saves its state.
"""

import math
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from diffclip_dist.data.batches import WindowStream
from diffclip_dist.data.modality_statistics import statistics_of
from diffclip_dist.model.encoder_card import write_encoder_card
from diffclip_dist.model.mask_diffusion import weighted_loss
from diffclip_dist.model.saved_encoder import FORMAT_VERSION, EncoderConfig, Training, save_encoder
from diffclip_dist.train.backend.deepspeed_engine import end_engine, join_process_group
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import state_is_finite, trained_weights
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.monitor.probe import Probe
from diffclip_dist.train.monitor.rank_log import at_step, log_of_rank
from diffclip_dist.train.monitor.reconstruction import Reconstruction
from diffclip_dist.train.monitor.run_log import RunLog
from diffclip_dist.train.monitor.throughput import Meter
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.run_files import STOPPED_FILE
from diffclip_dist.train.step import StepResult, train_step
from diffclip_dist.train.stop import AgreedStop
from shards.errors import BadInput, FailedRun


class CannotGoOn(FailedRun):
    """A fault that workers started anew would meet again; every rank raises it."""


class Checkpointing(Protocol):
    """Starts a run's engine and saves its state; every rank calls each method equally often."""

    def start(self, context: TrainContext) -> tuple[DeepSpeedEngine, int]:
        """An engine, fresh or restored, and the steps that it has done.

        Raises:
            CannotGoOn: the run cannot go on from its checkpoints.
        """

    def save(self, engine: DeepSpeedEngine, step: int) -> None:
        """Saves the engine's state after so many steps.

        Raises:
            CannotGoOn: the state is not to be saved.
        """


def run_rank(plan: TrainPlan, device: torch.device, checkpoints: Checkpointing, stop: AgreedStop | None = None) -> None:
    """Pretrains on this rank of an existing process group; every rank runs the same steps.

    Args:
        plan: the run's.
        device: of this rank.
        checkpoints: starts the engine, and saves its state every ``checkpoint_every`` steps.
        stop: says after which step the run is to stop early; its state is then saved, and no encoder exported. ``None``
            where it stops after its last step alone.
    """
    join_process_group(device)
    context = TrainContext.of(plan, device)
    try:
        engine, stopped = _take_steps(context, checkpoints, stop)
    except CannotGoOn as fault:
        # if a rank raised further, Ray would start the workers anew, and they would meet the same fault
        if dist.get_rank() == 0:
            (Path(plan.config.run_dir) / STOPPED_FILE).write_text(f"{fault}\n")
        return
    if not stopped:
        export_encoder(engine, plan)
    end_engine(engine)


def _take_steps(
    context: TrainContext, checkpoints: Checkpointing, stop: AgreedStop | None
) -> tuple[DeepSpeedEngine, bool]:
    """The engine after the run's last step, and whether the run was stopped before it."""
    config = context.config
    run_dir = Path(config.run_dir)
    engine, start = checkpoints.start(context)
    reconstruction = Reconstruction(context)
    try:
        probe = Probe(context)
    except BadInput as fault:
        raise CannotGoOn(str(fault)) from None
    with (
        RunLog(run_dir, start) if dist.get_rank() == 0 else nullcontext() as log,
        closing(context.batches(start)) as batches,  # ends the thread that reads ahead, however the run ends
    ):
        meter = Meter(config, context.device, start)
        for step in range(start, config.steps):
            at_step(step + 1)
            with meter.waiting():
                batch = next(batches)
            result = train_step(engine, batch, config, step)
            meter.count(batch.schemas)
            done = step + 1
            last = done == config.steps
            stopping = stop is not None and not last and stop.after(done)
            saved = done % config.checkpoint_every == 0 or last or stopping
            finite = not saved or state_is_finite(engine)
            if done % config.log_every == 0 or last or (saved and probe.wanted):
                metrics = meter.measure(engine, result, batch.schemas, done)
                _check_loss(metrics.loss, done, context.stream)
                accuracy = probe.measure(engine) if saved and finite and not stopping else None
                if log is not None:
                    log.write(metrics, accuracy)
            elif saved:
                _check_loss(_global_loss(result, config), done, context.stream)
            if not finite:
                raise CannotGoOn(f"step {done}: a weight is not finite; earlier checkpoints are kept")
            if saved:
                checkpoints.save(engine, done)
                log_of_rank("checkpoint")
            if stopping:
                return engine, True
            if saved:
                reconstruction.show(engine, done, log)
    return engine, False


def _global_loss(result: StepResult, config: PretrainConfig) -> float:
    """The loss of a step's global batch; every rank must call."""
    terms_LM = result.terms_LM.clone()
    dist.all_reduce(terms_LM)
    return float(weighted_loss(terms_LM, config.model))


def _check_loss(loss: float, done: int, stream: WindowStream) -> None:
    """Names a step whose loss is not finite, and the tiles of its samples; every rank must call.

    Raises:
        CannotGoOn: it is not finite.
    """
    if math.isfinite(loss):
        return
    tiles: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(tiles, stream.describe(done - 1))
    taken = "; ".join(f"rank {rank}: {keys}" for rank, keys in enumerate(tiles))
    raise CannotGoOn(f"step {done}: the loss is {loss}; its samples are of tiles: {taken}")


def export_encoder(engine: DeepSpeedEngine, plan: TrainPlan) -> None:
    """Writes ``RUN/encoder``, whatever the ZeRO stage and world size; every rank must call, rank 0 writes."""
    config, manifest = plan.config, plan.manifest
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
        statistics = statistics_of(manifest.scenes)
        exported = EncoderConfig(FORMAT_VERSION, config.model, plan.modalities, training, statistics)
        folder = Path(config.run_dir) / "encoder"
        save_encoder(folder, weights, exported)
        write_encoder_card(folder)
    dist.barrier()
