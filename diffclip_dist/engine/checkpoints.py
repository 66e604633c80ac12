"""Checkpoints through Ray: every rank's shard of the engine's state, and what the run must agree on to go on from it.

DeepSpeed's own files are pickles: they are trusted input, read only from the run's own folder. What is shared with
others is the exported encoder.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pydantic
import ray.train
from deepspeed import DeepSpeedEngine

from shards.errors import FailedRun

_TAG: Final = "engine"
_STATE_FILE: Final = "run_state.json"


@dataclass(frozen=True)
class RunState:
    """What a checkpoint belongs to.

    Attributes:
        step: steps done.
        archive_fingerprint: of the archive that the samples come from.
        zero_stage: of the engine that wrote it.
        world_size: of the run that wrote it.
    """

    step: int
    archive_fingerprint: str
    zero_stage: int
    world_size: int


def report_checkpoint(engine: DeepSpeedEngine, state: RunState, metrics: Mapping[str, float]) -> None:
    """Writes a checkpoint and hands it to Ray; a barrier that every rank must reach equally often."""
    with tempfile.TemporaryDirectory(prefix="diffclip-checkpoint-") as name:
        folder = Path(name)
        (folder / _TAG).mkdir()  # DeepSpeed makes it on rank 0 alone, and each rank has a folder of its own
        engine.save_checkpoint(name, tag=_TAG)
        if engine.global_rank == 0:
            (folder / _STATE_FILE).write_text(json.dumps(asdict(state)))
        ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(name))


def restore(engine: DeepSpeedEngine, archive_fingerprint: str) -> int:
    """Loads the run's newest checkpoint into the engine, where there is one.

    Returns:
        Steps done: 0 for a new run.

    Raises:
        FailedRun: the checkpoint does not belong to this archive, or does not load.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as name:
        state = read_state(Path(name))
        if state.archive_fingerprint != archive_fingerprint:
            raise FailedRun(
                f"checkpoint of step {state.step}: expected archive {state.archive_fingerprint}, "
                f"found {archive_fingerprint}: the archive has changed since"
            )
        loaded, _ = engine.load_checkpoint(name, tag=_TAG)
        if loaded is None:
            raise FailedRun(f"checkpoint of step {state.step}: DeepSpeed found nothing to load in {name}")
    return state.step


def read_state(folder: Path) -> RunState:
    """What the checkpoint in a folder belongs to."""
    return pydantic.TypeAdapter(RunState).validate_json((folder / _STATE_FILE).read_bytes())
