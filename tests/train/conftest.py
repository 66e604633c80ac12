"""A real Ray head on loopback for the tests of runs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import STEPS, Pretrain, Run, pretrain_command

from diffclip_dist.train.cluster.local_ray import LocalRay, local_ray_head


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


@pytest.fixture(scope="session")
def undisturbed(pretrain: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two workers that nothing befell, which those that are killed must equal."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run = pretrain(folder, "--steps", str(STEPS), "--workers", "2", settings=("checkpoint_every=10",))
    assert run.status == 0, run.err
    return run
