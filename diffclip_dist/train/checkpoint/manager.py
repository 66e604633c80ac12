"""Saves a rank's engine to checkpoints, and starts it from the newest complete one."""

import math
import secrets
from importlib import metadata
from typing import Final

import torch.distributed as dist

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.train.backend.deepspeed_engine import start_engine
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import read_state
from diffclip_dist.train.checkpoint.stored_checkpoint import (
    RunState,
    StoredCheckpoint,
    check_files,
    checkpoint_store,
    local_files,
    newest_checkpoint,
)
from diffclip_dist.train.checkpoint.upload import CheckpointUpload
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.loop import CannotGoOn
from diffclip_dist.train.pretrain_config import same_run
from diffclip_dist.train.step import probe_loss, train_step
from shards.archive.archive import Archive
from shards.errors import BadInput, DamagedArchive, FailedRun

_OTHER_SPLIT_TOLERANCE: Final = 1e-5  # another split adds numbers in another order
_ROUNDING_TOLERANCE: Final = 1e-2  # DeepSpeed rounds bfloat16 weights again when it loads them


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

    def start(self, context: TrainContext) -> tuple[DeepSpeedEngine, int]:
        """A fresh engine, or one that goes on from the run's newest complete checkpoint; and the steps done.

        Raises:
            FailedRun: the newest checkpoint is damaged, belongs to another archive, or does not load as it was saved.
        """
        self._context = context
        self._probe = next(context.stream.batches(0, 1))
        config, world_size = context.config, dist.get_world_size()
        store = checkpoint_store(config)
        self._upload = CheckpointUpload(
            store, self._attempt, _agreed_token(), config.keep_checkpoints, timeout_s=config.timeout_s
        )
        newest: list[StoredCheckpoint | None] = [newest_checkpoint(store) if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(newest)  # all ranks load what rank 0 saw
        engine = start_engine(config, context.modalities, context.device, world_size)
        if (checkpoint := newest[0]) is None:
            return engine, 0
        state = checkpoint.state
        if changed := same_run(config, state.config):
            raise CannotGoOn(f"{checkpoint}: expected the same {', '.join(changed)}; these have changed since")
        _check_on_first_rank(checkpoint, config.archive)
        # the engine has moments only after a step; loading then overwrites the step
        train_step(engine, self._probe, config, 0)
        with local_files(checkpoint) as folder:
            read_state(engine, folder, state.step)
        loss = probe_loss(engine, self._probe, config)
        same_arithmetic = (config.zero_stage, world_size) == (state.config.zero_stage, state.world_size)
        compiled = config.compile or state.config.compile  # depends on the shapes that a process saw first
        tolerance = 0.0 if same_arithmetic and not compiled else _OTHER_SPLIT_TOLERANCE
        if config.precision == "bfloat16":
            tolerance = _ROUNDING_TOLERANCE
        if not math.isclose(loss, state.probe_loss, rel_tol=tolerance):
            raise CannotGoOn(
                f"{checkpoint}: the loss of the fixed batch is {loss!r}, it was {state.probe_loss!r} when saved"
            )
        return engine, state.step

    def save(self, engine: DeepSpeedEngine, step: int) -> None:
        """Takes a checkpoint's snapshot; it is uploaded, and older ones are removed, while training goes on."""
        assert self._context is not None
        assert self._probe is not None
        assert self._upload is not None
        config = self._context.config
        state = RunState(
            step,
            self._context.plan.manifest.fingerprint,
            config,
            dist.get_world_size(),
            probe_loss(engine, self._probe, config),
            library_versions(),
        )
        self._upload.save(engine, state)


def _check_on_first_rank(checkpoint: StoredCheckpoint, archive: str) -> None:
    """Rank 0 compares the archive and the checkpoint's files with the record; every rank raises what it finds."""
    fault: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            # the archive may have been built anew since the run was planned
            found, expected = Archive.open_unverified(archive).fingerprint, checkpoint.state.archive_fingerprint
            if found != expected:
                raise FailedRun(f"{checkpoint}: expected archive {expected}, found {found}: it has changed since")
            check_files(checkpoint)
        except (FailedRun, BadInput, DamagedArchive) as error:
            fault = [str(error)]
    dist.broadcast_object_list(fault)
    if fault[0] is not None:
        raise CannotGoOn(fault[0])


def library_versions() -> dict[str, str]:
    """Versions of the libraries that write a checkpoint."""
    return {name: metadata.version(name) for name in ("diffclip-dist", "torch", "deepspeed", "ray")}


def _agreed_token() -> str:
    """A random name for this start of the workers, the same on every rank; a step saved again gets a new folder."""
    token = [secrets.token_hex(4)]
    dist.broadcast_object_list(token)
    return token[0]
