"""The Ray head of our own: authenticated, separate, and gone when its command ends, however it ends."""

import os
import signal
import subprocess
import sys
import time

import psutil

from diffclip_dist.train.cluster.local_ray import LocalRay, ray_command

HOLDS_A_HEAD = """
import sys, time
from diffclip_dist.cli.commandline import run_command
from diffclip_dist.train.cluster.local_ray import local_ray_head

def main():
    with local_ray_head(cores=1) as head:
        print(head.environment["RAY_AUTH_TOKEN"], flush=True)
        time.sleep(600)
    return 0

sys.exit(run_command(main))
"""


def processes_with_token(token: str) -> list[psutil.Process]:
    """The processes of one head."""
    return [process for process in psutil.process_iter() if _holds(process, token)]


def test_a_wrong_token_is_refused(ray_head: LocalRay) -> None:
    listing = [ray_command(), "job", "list"]
    known = subprocess.run(listing, env=ray_head.environment, capture_output=True, text=True)
    assert known.returncode == 0, known.stderr
    stranger = {**ray_head.environment, "RAY_AUTH_TOKEN": "0" * 64}
    assert subprocess.run(listing, env=stranger, capture_output=True).returncode != 0


def test_a_head_listens_on_loopback_alone(ray_head: LocalRay) -> None:
    token = ray_head.environment["RAY_AUTH_TOKEN"]
    listening = [
        (process.name(), connection.laddr.ip)
        for process in processes_with_token(token)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    assert [place for place in listening if place[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


def _holds(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get("RAY_AUTH_TOKEN") == token
    except psutil.Error:
        return False  # it has ended meanwhile


def test_sigterm_takes_the_head_down_and_leaves_others_alone(ray_head: LocalRay) -> None:
    command = [sys.executable, "-c", HOLDS_A_HEAD]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        token = holder.stdout.readline().strip()
        assert len(processes_with_token(token)) > 3
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(timeout=120) == 143
    deadline = time.monotonic() + 30
    while processes_with_token(token) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_with_token(token) == []
    assert subprocess.run([ray_command(), "job", "list"], env=ray_head.environment, capture_output=True).returncode == 0
