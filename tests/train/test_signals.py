"""Runs that a signal stops: the exit status, one line, a checkpoint of every step done, and no process left over."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from marked_processes import processes_with
from small_runs import SMALL_MODEL, newest_of, pretrain_command, read_lines, wait_for_steps

from diffclip_dist.train.checkpoint.stored_checkpoint import check_files
from diffclip_dist.train.cluster.driver import CONFIG_FILE
from diffclip_dist.train.cluster.local_ray import LocalRay, ray_command
from diffclip_dist.train.run_files import METRICS_FILE

ENDLESS = ("--steps", "100000", "--workers", "2")
MARK = "DIFFCLIP_TEST_SIGNALS"


class Started:
    """A command in a session of its own, as a shell starts it, whose processes can be told by a mark."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.mark = secrets.token_hex(8)
        self.process = subprocess.Popen(
            command, env={**environment, MARK: self.mark}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def press_ctrl_c(self) -> None:
        """A terminal sends SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> tuple[int, str, list[str]]:
        """Waits for the end: exit status, standard output and lines of standard error."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err.splitlines()

    def leaves_nothing(self) -> bool:
        """Whether all its processes end within two minutes: Ray's agents first try to tell a head that is gone."""
        deadline = time.monotonic() + 120
        while self._left() and time.monotonic() < deadline:
            time.sleep(0.2)
        return not self._left()

    def _left(self) -> list[psutil.Process]:
        return processes_with(self.mark)


def without_cluster() -> dict[str, str]:
    """An environment in which a run starts a Ray of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def last_step(folder: Path) -> int:
    return len(read_lines(folder / METRICS_FILE))


def test_ctrl_c_saves_what_is_done_and_says_how_to_go_on(generated_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = Started(pretrain_command(folder, generated_archive, ENDLESS, ()), without_cluster())
    wait_for_steps(started.process, folder, 5)
    started.press_ctrl_c()
    status, out, errors = started.ended()
    done = last_step(folder)
    go_on = f"interrupted: {folder}: step {done} of 100000 is saved; go on with the same command and --resume"
    assert (status, errors) == (130, [go_on])
    assert "Ctrl-C once more ends at once" in out
    assert newest_of(folder).state.step == done
    check_files(newest_of(folder))
    assert not (folder / "encoder").exists()
    assert started.leaves_nothing()


@pytest.mark.slow
def test_what_a_scheduler_sends_saves_what_is_done(ray_head: LocalRay, generated_archive: Path, tmp_path: Path) -> None:
    """SIGTERM does the same: test_resume.py terminates a run and goes on with it."""
    folder = tmp_path / "run"
    # steps are logged rarely, and the run stops all the same
    command = pretrain_command(folder, generated_archive, (*ENDLESS, "--log-every", "3"), ("checkpoint_every=4",))
    started = Started(command, dict(ray_head.environment))
    wait_for_steps(started.process, folder, 5)
    os.kill(started.process.pid, signal.SIGUSR1)
    status, _, errors = started.ended()
    assert status == 138
    (line,) = errors
    step = newest_of(folder).state.step
    assert line.endswith(f": {folder}: step {step} of 100000 is saved; go on with the same command and --resume")
    assert step // 3 == last_step(folder)


@pytest.mark.slow
def test_a_second_ctrl_c_waits_for_nothing(generated_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = Started(pretrain_command(folder, generated_archive, ENDLESS, ()), without_cluster())
    wait_for_file(started, folder / CONFIG_FILE)  # workers are starting now, which takes seconds
    started.press_ctrl_c()
    assert started.process.stdout is not None
    while "Ctrl-C once more ends at once" not in started.process.stdout.readline():
        assert started.process.poll() is None
    started.press_ctrl_c()
    status, _, errors = started.ended()
    assert (status, errors) == (130, ["interrupted"])
    assert started.leaves_nothing()


def wait_for_file(started: Started, file: Path) -> None:
    deadline = time.monotonic() + 120
    while not file.exists() and started.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_is_stopped_saves_what_is_done_and_has_carried_no_secret(
    ray_head: LocalRay, generated_archive: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    name, secret = f"job-{secrets.token_hex(4)}", secrets.token_hex(16)
    command = pretrain_command(folder, generated_archive, ENDLESS, ())
    job = [ray_command(), "job"]
    environment = {**ray_head.environment, "AWS_SECRET_ACCESS_KEY": secret}  # of whoever submits
    waiting = {"env": environment, "capture_output": True, "text": True, "timeout": 120}
    # Ray waits 3 s by default, which is enough for a small model on a machine that does nothing else
    patient = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}'
    submitted = subprocess.run(
        [*job, "submit", "--no-wait", "--submission-id", name, "--runtime-env-json", patient, "--", *command], **waiting
    )
    assert submitted.returncode == 0, submitted.stderr
    deadline = time.monotonic() + 120
    while last_step(folder) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(secret) == []
    stopped = subprocess.run([*job, "stop", name], **waiting)
    assert stopped.returncode == 0, stopped.stderr
    said = subprocess.run([*job, "logs", name], **waiting).stdout
    done = last_step(folder)
    assert f"terminated: {folder}: step {done} of 100000 is saved; go on with the same command and --resume" in said
    assert "Traceback" not in said
    assert newest_of(folder).state.step == done

    listed = subprocess.run([*job, "list"], **waiting).stdout
    assert name in listed
    logs = [file for place in (folder, ray_logs(ray_head)) for file in place.rglob("*") if file.is_file()]
    assert len(logs) > 20
    for text in (said.encode(), listed.encode(), submitted.stdout.encode(), *(file.read_bytes() for file in logs)):
        assert secret.encode() not in text
        assert ray_head.environment["RAY_AUTH_TOKEN"].encode() not in text


def ray_logs(head: LocalRay) -> Path:
    """The folder of a head's logs and of those of all that ran on it."""
    words: list[str] = []
    for process in processes_with(head.environment["RAY_AUTH_TOKEN"]):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            words += process.cmdline()
    (place,) = {word.partition("=")[2] for word in words if word.startswith("--temp-dir=") and "diffclip-ray-" in word}
    return (Path(place) / "session_latest" / "logs").resolve()


IN_ONE_PROCESS = """
import sys
from diffclip_dist.cli.commandline import run_command
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.single_process import pretrain_single_process

def main():
    given = {"archive": sys.argv[1], "run_dir": sys.argv[2], "global_batch": 24, "steps": 100000}
    pretrain_single_process(resolve_config(None, given, sys.argv[3:]))
    return 0

sys.exit(run_command(main))
"""


@pytest.mark.parametrize(
    ("sent", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_run_in_one_process_ends_in_one_line(
    generated_archive: Path, tmp_path: Path, sent: signal.Signals, status: int, said: str
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", IN_ONE_PROCESS, str(generated_archive), str(folder), *SMALL_MODEL]
    started = Started(command, without_cluster())
    wait_for_steps(started.process, folder, 5)
    os.kill(started.process.pid, sent)
    code, _, errors = started.ended()
    assert (code, errors) == (status, [said])
    assert started.leaves_nothing()
