"""Runs that are killed and go on: the loss curve must be the one of a run that nobody disturbed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from marked_processes import processes_with
from small_runs import STEPS, Pretrain, Refused, Run, newest_of, pretrain_command, wait_for_checkpoint, wait_for_steps

from diffclip_dist.model.saved_encoder import load_encoder
from diffclip_dist.train.checkpoint.stored_checkpoint import (
    CHECKPOINTS,
    RECORD_FILE,
    DamagedCheckpoint,
    check_files,
    complete_folders,
    newest_checkpoint,
    newest_whole_checkpoint,
    prune,
)
from diffclip_dist.train.cluster.local_ray import LocalRay
from diffclip_dist.train.run_files import FAULTS_FILE
from shards.archive.store import open_store

# a checkpoint early on, and steps slow enough for a signal to meet the run between its first checkpoint and its end
SETTINGS = ("checkpoint_every=10", "max_failures=0")


def training_workers(head: LocalRay) -> list[int]:
    """Process ids of the head's Ray Train workers; those of another Ray on the machine are left alone."""
    return [process.pid for process in processes_with(head.environment["RAY_AUTH_TOKEN"], "RayTrainWorker")]


def signal_after(command: list[str], head: LocalRay, run_dir: Path, after_step: int, kill_workers: bool) -> Run:
    """A run that has logged a step and has a checkpoint when its driver is terminated or its workers are killed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=head.environment, **pipes)
    wait_for_steps(process, run_dir, after_step)
    wait_for_checkpoint(process, run_dir)
    if kill_workers:
        for worker in training_workers(head):
            os.kill(worker, signal.SIGKILL)
    else:
        process.terminate()
    out, _ = process.communicate(timeout=240)
    return Run(process.returncode, out, "", run_dir)


def test_a_terminated_run_goes_on_with_fewer_workers_another_stage_and_smaller_batches(
    ray_head: LocalRay, pretrain: Pretrain, generated_archive: Path, undisturbed: Run, tmp_path: Path
) -> None:
    """In the same world the losses are the same to the last bit: test_storage_faults.py has a run that goes on so."""
    folder = tmp_path / "run"
    start = ("--steps", str(STEPS), "--workers", "2", "--zero-stage", "1")
    ended = signal_after(pretrain_command(folder, generated_archive, start, SETTINGS), ray_head, folder, 15, False)
    done = len(ended.metrics)
    assert 15 <= done < STEPS
    assert (ended.status, newest_of(folder).state.step) == (143, done)
    said = f"terminated: {folder}: step {done} of {STEPS} is saved; go on with the same command and --resume"
    assert ended.out.splitlines()[-1] == said

    again = ("--steps", str(STEPS), "--workers", "1", "--zero-stage", "3", "--resume")
    # a smaller micro-batch rounds otherwise, which is no reason to refuse the checkpoint
    run = pretrain(folder, *again, settings=(*SETTINGS, "micro_batch=5"))
    assert run.status == 0, run.err
    assert f"going on from step {done}" in run.out
    assert [metrics["step"] for metrics in run.metrics] == list(range(1, STEPS + 1))
    assert run.losses == pytest.approx(undisturbed.losses, rel=1e-5)
    ours, theirs = load_encoder(run.folder / "encoder"), load_encoder(undisturbed.folder / "encoder")
    for (name, here), (_, there) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (here - there).abs().max() < 2e-4, name


def test_a_worker_that_dies_is_replaced_within_the_run(
    ray_head: LocalRay, generated_archive: Path, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = ("--steps", str(STEPS), "--workers", "2")
    command = pretrain_command(folder, generated_archive, arguments, ("checkpoint_every=10", "max_failures=2"))
    run = signal_after(command, ray_head, folder, 23, True)
    assert run.status == 0, run.out
    assert "lost rank" in run.out
    assert run.losses == undisturbed.losses


def damage(checkpoint: Path) -> Path:
    """Turns one bit of a checkpoint's file around; its path."""
    file = min(checkpoint.glob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    return file


def test_a_damaged_checkpoint_is_passed_over_and_without_a_whole_one_the_run_is_refused(
    pretrain: Pretrain, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.folder, folder)
    older, newest = (folder / CHECKPOINTS / name for name in complete_folders(open_store(folder / CHECKPOINTS).sizes()))
    file = damage(newest)
    again = ("--steps", str(STEPS), "--workers", "2", "--resume")
    run = pretrain(folder, *again, settings=SETTINGS)
    assert run.status == 0, run.err
    (line,) = [line for line in run.out.splitlines() if str(file) in line]
    assert line.endswith(f"; going on from step {STEPS - 10} instead")
    assert run.losses == undisturbed.losses
    kept = [folder / CHECKPOINTS / name for name in complete_folders(open_store(folder / CHECKPOINTS).sizes())]
    assert older in kept, "the only whole checkpoint was removed before there was another"
    assert newest not in kept
    check_files(newest_of(folder))

    files = [damage(checkpoint) for checkpoint in kept]
    run = pretrain(folder, *again, settings=SETTINGS)
    assert run.status == 1
    (line,) = run.err.strip().splitlines()
    assert str(files[-1]) in line
    assert "(and 1 earlier checkpoints are damaged too)" in line
    assert not (folder / FAULTS_FILE).exists(), "workers were started anew, to meet the same damage"


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path, undisturbed: Run) -> None:
    shutil.copytree(undisturbed.folder / CHECKPOINTS, tmp_path / CHECKPOINTS)
    store = open_store(tmp_path / CHECKPOINTS)
    older, newest = complete_folders(store.sizes())
    store.write(f"{newest}/{RECORD_FILE}", b'{"state": {"step": 60')
    found, (fault,) = newest_whole_checkpoint(store)
    assert found is not None
    assert found.folder == older
    assert f"{newest}/{RECORD_FILE}: damaged: not a checkpoint's record" in fault
    assert newest_checkpoint(store) == found
    store.write(f"{older}/{RECORD_FILE}", b"")
    with pytest.raises(DamagedCheckpoint, match=newest):
        newest_checkpoint(store)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_pruning_keeps_the_new_checkpoint_and_none_that_the_run_went_back_behind(tmp_path: Path, keep: int) -> None:
    store = open_store(tmp_path)
    names = ("attempt-0001/step-00000005-ff", "attempt-0001/step-00000010-ff", "attempt-0001/step-00000020-ff",
             "attempt-0002/step-00000010-aa", "attempt-0001/step-00000030-ff")  # fmt: skip
    for name in names:
        store.write(f"{name}/{RECORD_FILE}", b"{}")
    store.write("attempt-0002/step-00000020-aa/rank-00000.safetensors", b"being written")
    prune(store, "attempt-0002/step-00000010-aa", keep)
    expected = ["attempt-0001/step-00000005-ff"] * (keep > 1) + ["attempt-0002/step-00000010-aa"]
    assert complete_folders(store.sizes()) == expected
    assert "attempt-0002/step-00000020-aa/rank-00000.safetensors" in store.sizes()


@pytest.mark.parametrize(
    ("arguments", "settings", "fault"),
    [
        (("--seed", "5"), (), "--resume: expected the same seed; these differ"),
        ((), ("model.depth=3", "optimiser.learning_rate=1"), "expected the same optimiser.learning_rate, model.depth"),
    ],
)
def test_another_run_cannot_go_on_from_these_checkpoints(
    refused: Refused, undisturbed: Run, arguments: tuple[str, ...], settings: tuple[str, ...], fault: str
) -> None:
    before = (undisturbed.folder / "config.yaml").read_bytes()
    line = refused(undisturbed.folder, "--steps", str(STEPS), "--workers", "2", "--zero-stage", "1", "--resume",
                   *arguments, settings=(*SETTINGS, *settings))  # fmt: skip
    assert fault in line
    assert (undisturbed.folder / "config.yaml").read_bytes() == before


def test_a_state_whose_loss_is_not_finite_is_not_saved(pretrain: Pretrain, tmp_path: Path) -> None:
    """The step's own loss and every weight are finite still; the next step's loss would not be."""
    run = pretrain(tmp_path / "run", "--steps", "30", settings=("optimiser.learning_rate=1e30", "checkpoint_every=1"))
    assert run.status == 1
    (line,) = run.err.strip().splitlines()
    assert line.endswith("step 1: the loss of the fixed batch is nan; earlier checkpoints are kept")
    assert newest_checkpoint(open_store(run.folder / CHECKPOINTS)) is None
