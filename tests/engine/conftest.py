"""A real Ray head on loopback for the tests of runs, and the command that starts a run on it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffclip_dist.engine.local_ray import LocalRay, local_ray_head

REPOSITORY = Path(__file__).resolve().parents[2]

SMALL_MODEL = [
    "model.window=7", "model.width=32", "model.depth=2", "model.heads=2", "model.decoder_depth=1",
    "stream.lanes=4", "stream.pool_tiles=2", "optimiser.warmup_steps=2",
]  # fmt: skip


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


def pretrain_command(folder: Path, archive: Path, arguments: Sequence[str], settings: Sequence[str]) -> list[str]:
    """launch/pretrain.py with a small model."""
    command = [sys.executable, str(REPOSITORY / "launch" / "pretrain.py"), "--archive", str(archive)]
    command += ["--run-dir", str(folder), "--global-batch", "24", *arguments]
    return command + [part for setting in (*SMALL_MODEL, *settings) for part in ("--set", setting)]


@pytest.fixture(scope="session")
def ray_head() -> Iterator[LocalRay]:
    with local_ray_head(cores=2) as head:
        yield head


@pytest.fixture(scope="session")
def pretrain(ray_head: LocalRay, generated_archive: Path) -> Pretrain:
    """Runs launch/pretrain.py on the head with a small model; further arguments come last."""

    def run(folder: Path, *arguments: str, settings: tuple[str, ...] = (), archive: Path = generated_archive) -> Run:
        command = pretrain_command(folder, archive, arguments, settings)
        ended = subprocess.run(command, env=ray_head.environment, capture_output=True, text=True, timeout=300)
        return Run(ended.returncode, ended.stdout, ended.stderr, folder)

    return run
