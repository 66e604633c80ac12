"""The command that starts a run of a small model, and what such a run left."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffclip_dist.train.checkpoint.stored_checkpoint import (
    CHECKPOINTS,
    StoredCheckpoint,
    complete_folders,
    newest_checkpoint,
)
from diffclip_dist.train.monitor.new_lines import NewLines
from shards.archive.store import open_store

STEPS = 60  # of the shared runs
REPOSITORY = Path(__file__).resolve().parents[2]

SMALL_MODEL = [
    "model.window=7", "model.width=32", "model.depth=2", "model.heads=2", "model.decoder_depth=1",
    "stream.shuffle_streams=4", "stream.shuffle_buffer=2", "optimiser.warmup_steps=2",
    "reconstruct_windows=0",
]  # fmt: skip
SHARDED = ("micro_batch=5", "checkpoint_every=20")  # of the shared run under ZeRO stage 3


@dataclass(frozen=True)
class Run:
    """How a run of launch/pretrain.py ended, and what it left."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def losses(self) -> list[float]:
        return [metrics["loss"] for metrics in self.metrics]


Pretrain = Callable[..., Run]
Refused = Callable[..., str]


def pretrain_arguments(
    folder: Path, archive: Path | str, arguments: Sequence[str], settings: Sequence[str]
) -> list[str]:
    """What launch/pretrain.py is given for a small model."""
    given = ["--archive", str(archive), "--run-dir", str(folder), "--global-batch", "24", *arguments]
    return given + [part for setting in (*SMALL_MODEL, *settings) for part in ("--set", setting)]


def pretrain_command(folder: Path, archive: Path | str, arguments: Sequence[str], settings: Sequence[str]) -> list[str]:
    """launch/pretrain.py with a small model, as a process of its own."""
    script = str(REPOSITORY / "launch" / "pretrain.py")
    return [sys.executable, script, *pretrain_arguments(folder, archive, arguments, settings)]


def read_lines(file: Path) -> list[str]:
    """The complete lines of a metrics file; none where it does not exist."""
    return [*NewLines(file).read()]


def wait_for_steps(process: "subprocess.Popen[str]", folder: Path, steps: int) -> None:
    """Waits until a running command has logged so many steps, or has ended."""
    metrics = folder / "metrics.jsonl"
    _wait_until(process, lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= steps)


def wait_for_checkpoint(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Waits until a running command has a whole checkpoint (steps go on while it is written), or has ended."""
    _wait_until(process, lambda: newest_checkpoint(open_store(folder / CHECKPOINTS)) is not None)


def _wait_until(process: "subprocess.Popen[str]", reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None and not reached():
        time.sleep(0.01)


def newest_of(run_dir: Path) -> StoredCheckpoint:
    """A run's newest checkpoint; it must have one."""
    newest = newest_checkpoint(open_store(run_dir / CHECKPOINTS))
    assert newest is not None
    return newest


def leftover_checkpoints(run_dir: Path, keep: int) -> list[str]:
    """Folders of a run's checkpoints that are no whole checkpoints, and whole ones beyond those that it keeps."""
    sizes = open_store(run_dir / CHECKPOINTS).sizes()
    begun = {path.rpartition("/")[0] for path in sizes if "/step-" in path}
    whole = complete_folders(sizes)
    return sorted(begun - set(whole)) + list(whole)[:-keep]
