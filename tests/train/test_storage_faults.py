"""Checkpoint writers that are killed and storage that fails: the losses do not change, or the run ends in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from faulty_run import MOMENTS
from small_runs import STEPS, Pretrain, Run, leftover_checkpoints, newest_of, pretrain_command

from diffclip_dist.train.checkpoint.stored_checkpoint import CHECKPOINTS, RECORD_FILE
from diffclip_dist.train.cluster.local_ray import LocalRay

ARGUMENTS = ("--steps", str(STEPS), "--workers", "2")
EVERY = "checkpoint_every=5"
pytestmark = pytest.mark.slow


def faulty(head: LocalRay, fault: str, folder: Path, archive: Path, *settings: str) -> Run:
    script = [sys.executable, str(Path(__file__).with_name("faulty_run.py")), fault, str(folder.parent / "ledger")]
    command = script + pretrain_command(folder, archive, ARGUMENTS, (EVERY, *settings))[1:]
    ended = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=850)
    return Run(ended.returncode, ended.stdout, ended.stderr, folder)


@pytest.mark.timeout(900)
def test_a_writer_killed_at_every_stage_of_a_checkpoint_changes_nothing(
    ray_head: LocalRay, generated_archive: Path, undisturbed: Run, tmp_path: Path
) -> None:
    snapshots = Path(ray_head.environment["TMPDIR"])
    abandoned = snapshots / "diffclip-checkpoint-abandoned"
    abandoned.mkdir()
    run = faulty(ray_head, "killed", tmp_path / "run", generated_archive, f"max_failures={len(MOMENTS)}")
    assert (tmp_path / "ledger").read_text().splitlines() == list(MOMENTS)
    assert run.status == 0, run.err
    assert run.losses == undisturbed.losses
    for each in (run, undisturbed):
        assert leftover_checkpoints(each.folder, keep=2) == []
        assert newest_of(each.folder).state.step == STEPS
    assert list(snapshots.glob("diffclip-checkpoint-*")) == []


def test_a_file_that_never_comes_ends_the_run_in_one_line(
    ray_head: LocalRay, generated_archive: Path, tmp_path: Path
) -> None:
    stopped = faulty(ray_head, "lost", tmp_path / "run", generated_archive, "max_failures=0", "timeout_s=15")
    assert stopped.status == 1
    (line,) = stopped.err.strip().splitlines()
    assert "/step-00000010-" in line
    assert line.endswith("not written within 15 s")
    assert newest_of(stopped.folder).state.step == 5


def test_a_storage_that_fails_twice_is_tried_again_and_one_that_is_full_stops_the_run_until_there_is_room(
    ray_head: LocalRay, pretrain: Pretrain, generated_archive: Path, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stopped = faulty(ray_head, "full", folder, generated_archive, "max_failures=0")
    assert len((tmp_path / "ledger").read_text().splitlines()) == 2
    assert stopped.status == 1
    (line,) = stopped.err.strip().splitlines()
    assert str(folder / CHECKPOINTS) in line
    assert line.endswith("no checkpoint could be written in 5 tries: No space left on device")
    newest = newest_of(folder)
    assert newest.state.step == 5
    assert list((folder / CHECKPOINTS).rglob(RECORD_FILE)) == [Path(str(newest)) / RECORD_FILE]
    run = pretrain(folder, *ARGUMENTS, "--resume", settings=(EVERY,))
    assert run.status == 0, run.err
    assert run.losses == undisturbed.losses
