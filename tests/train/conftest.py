"""One Ray head on loopback and two runs on it, which all tests of runs share; and runs that are refused."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray
from small_runs import SHARDED, STEPS, Pretrain, Refused, Run, pretrain_arguments, pretrain_command
from small_study import command

from diffclip_dist.train.cluster.local_ray import LocalRay, local_ray_head


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    """The one Ray head of all tests that need no cluster of their own: two cores, temporary files of its own."""
    tempfile.gettempdir()  # Python keeps it: the head's sockets need its short path
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary-files")))
            head = stack.enter_context(local_ray_head(cores=2))
        yield head


@pytest.fixture(scope="session")
def pretrain(ray_head: LocalRay, generated_archive: Path) -> Pretrain:
    """Runs launch/pretrain.py on the head with a small model; further arguments come last."""

    def run(folder: Path, *arguments: str, settings: tuple[str, ...] = (), archive: Path = generated_archive) -> Run:
        started = pretrain_command(folder, archive, arguments, settings)
        ended = subprocess.run(started, env=ray_head.environment, capture_output=True, text=True, timeout=300)
        return Run(ended.returncode, ended.stdout, ended.stderr, folder)

    return run


@pytest.fixture
def refused(generated_archive: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs launch/pretrain.py in this process; it must refuse before it reaches Ray. Returns its one line."""
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("the run was not refused before it reached Ray"))

    def run(
        folder: Path, *arguments: str, settings: tuple[str, ...] = (), archive: Path | str = generated_archive
    ) -> str:
        ended = command("pretrain.py", *pretrain_arguments(folder, archive, arguments, settings))
        assert ended.status == 2, ended.errors
        (line,) = ended.errors.splitlines()
        return line

    return run


@pytest.fixture(scope="session")
def one_worker(pretrain: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one worker under ZeRO stage 0; runs of more workers are compared with it."""
    run = pretrain(tmp_path_factory.mktemp("one-worker") / "run", "--zero-stage", "0", "--steps", str(STEPS))
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="session")
def sharded(pretrain: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two workers under ZeRO stage 3, in micro-batches that leave a remainder."""
    arguments = ("--zero-stage", "3", "--workers", "2", "--steps", str(STEPS))
    run = pretrain(tmp_path_factory.mktemp("sharded") / "run", *arguments, settings=SHARDED)
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="session")
def undisturbed(pretrain: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two workers without any fault; runs that are killed must have the same losses."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run = pretrain(folder, "--steps", str(STEPS), "--workers", "2", settings=("checkpoint_every=10",))
    assert run.status == 0, run.err
    return run
