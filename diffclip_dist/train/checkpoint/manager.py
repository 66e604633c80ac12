"""Saves a rank's engine to checkpoints, and starts it from the newest whole one."""

import math
import secrets
from importlib import metadata
from pathlib import Path

import torch.distributed as dist

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.train.backend.deepspeed_engine import start_engine
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import differing_tensor, read_state
from diffclip_dist.train.checkpoint.arithmetic import arithmetic, differences, loss_tolerance
from diffclip_dist.train.checkpoint.stored_checkpoint import (
    RunState,
    StoredCheckpoint,
    checkpoint_store,
    local_files,
    newest_whole_checkpoint,
)
from diffclip_dist.train.checkpoint.upload import CheckpointUpload
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.loop import CannotGoOn
from diffclip_dist.train.monitor.faults import append_fault
from diffclip_dist.train.pretrain_config import PretrainConfig, same_run
from diffclip_dist.train.step import probe_loss, train_step
from shards.archive.archive import Archive
from shards.archive.store import Store
from shards.errors import BadInput, DamagedArchive, FailedRun


class CheckpointManager:
    """A run's checkpoints as one rank sees them.

    Args:
        attempt: the Ray run's name, which is its folder below the run's checkpoints.
    """

    def __init__(self, attempt: str) -> None:
        self._attempt = attempt
        self._upload: CheckpointUpload | None = None
        self._context: TrainContext | None = None
        self._probe: WindowBatch | None = None
        self._arithmetic: dict[str, str] = {}

    def start(self, context: TrainContext) -> tuple[DeepSpeedEngine, int]:
        """A fresh engine, or one that goes on from the run's newest whole checkpoint; and the steps done.

        A damaged checkpoint is passed over, and ``RUN/faults.log`` says so.

        Raises:
            CannotGoOn: no checkpoint is whole, or it belongs to another archive or does not load as it was saved.
        """
        self._context = context
        self._probe = next(context.stream.batches(0, 1))
        config, world_size = context.config, dist.get_world_size()
        store = checkpoint_store(config)
        self._upload = CheckpointUpload(
            store, self._attempt, _agreed_token(), config.keep_checkpoints, timeout_s=config.timeout_s
        )
        self._arithmetic = arithmetic(config, context.device, library_versions())
        checkpoint = _chosen_by_first_rank(store, config)
        engine = start_engine(config, context.modalities, context.device, world_size, context.sometimes_absent)
        if checkpoint is None:
            return engine, 0
        state = checkpoint.state
        if changed := same_run(config, state.config):
            raise CannotGoOn(f"{checkpoint}: expected the same {', '.join(changed)}; these have changed since")
        # the engine has moments only after a step; loading then overwrites the step
        train_step(engine, self._probe, config, 0)
        with local_files(checkpoint) as folder:
            read_state(engine, folder, state.step)
            if (tensor := differing_tensor(engine, folder)) is not None:
                raise CannotGoOn(f"{checkpoint}: {tensor}: the loaded tensor is not the stored one")
        loss = probe_loss(engine, self._probe, config)
        tolerance = loss_tolerance(state.arithmetic, self._arithmetic)
        if not math.isclose(loss, state.probe_loss, rel_tol=tolerance):
            raise CannotGoOn(
                f"{checkpoint}: the loss of the fixed batch is {loss!r}, it was {state.probe_loss!r} when saved; "
                f"expected a relative difference of at most {tolerance:g} (what differs: "
                f"{differences(state.arithmetic, self._arithmetic)})"
            )
        return engine, state.step

    def save(self, engine: DeepSpeedEngine, step: int) -> None:
        """Takes a checkpoint's snapshot; it is uploaded, and older ones are removed, while training goes on.

        Raises:
            CannotGoOn: the loss of the fixed batch is not finite; no checkpoint is saved.
        """
        assert self._context is not None
        assert self._probe is not None
        assert self._upload is not None
        config = self._context.config
        loss = probe_loss(engine, self._probe, config)
        if not math.isfinite(loss):
            raise CannotGoOn(f"step {step}: the loss of the fixed batch is {loss}; earlier checkpoints are kept")
        state = RunState(
            step,
            self._context.plan.manifest.fingerprint,
            config,
            dist.get_world_size(),
            loss,
            library_versions(),
            self._arithmetic,
        )
        self._upload.save(engine, state)


def _chosen_by_first_rank(store: Store, config: PretrainConfig) -> StoredCheckpoint | None:
    """The checkpoint that every rank loads: rank 0 finds it and compares it with the archive.

    Raises:
        CannotGoOn: on every rank, what rank 0 found.
    """
    chosen: list[StoredCheckpoint | str | None] = [None]
    if dist.get_rank() == 0:
        try:
            chosen = [_newest_for(config, store)]
        except (FailedRun, BadInput, DamagedArchive) as error:
            chosen = [str(error)]
    dist.broadcast_object_list(chosen)
    if isinstance(chosen[0], str):
        raise CannotGoOn(chosen[0])
    return chosen[0]


def _newest_for(config: PretrainConfig, store: Store) -> StoredCheckpoint | None:
    checkpoint, faults = newest_whole_checkpoint(store)
    if checkpoint is None:
        return None
    # the archive may have been built anew since the run was planned
    expected, found = checkpoint.state.archive_fingerprint, Archive.open_unverified(config.archive).fingerprint
    if found != expected:
        raise FailedRun(f"{checkpoint}: expected archive {expected}, found {found}: it has changed since")
    for fault in faults:
        append_fault(Path(config.run_dir), f"{fault}; going on from step {checkpoint.state.step} instead")
    return checkpoint


def library_versions() -> dict[str, str]:
    """Versions of the libraries that write a checkpoint."""
    return {name: metadata.version(name) for name in ("diffclip-dist", "torch", "deepspeed", "ray")}


def _agreed_token() -> str:
    """A random name for this start of the workers, the same on every rank; a step saved again gets a new folder."""
    token = [secrets.token_hex(4)]
    dist.broadcast_object_list(token)
    return token[0]
