"""The Ray head of our own: authenticated, separate, and gone when its command ends, however it ends."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from marked_processes import processes_with

from diffclip_dist.train.cluster.local_ray import LocalRay, ray_command

HOLDS_A_HEAD = """
import sys, time
from diffclip_dist.cli.commandline import run_command
from diffclip_dist.train.cluster.local_ray import local_ray_head

def main():
    with local_ray_head(cores=1) as head:
        print(head.address, head.environment["RAY_AUTH_TOKEN"], flush=True)
        time.sleep(600)
    return 0

sys.exit(run_command(main))
"""
# it outlives this process and keeps its lease; by default Ray waits 30 s for it before a head stops
LEAVES_AN_ACTOR = """
import ray

ray.init(log_to_driver=False)
actor = ray.remote(type("Actor", (), {})).options(name="idle", lifetime="detached").remote()
ray.get(actor.__ray_ready__.remote())
"""


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
        for process in processes_with(token)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    assert [place for place in listening if place[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_head_ends_with_its_command_however_it_ends_and_leaves_others_alone(
    ray_head: LocalRay, sent: signal.Signals, status: int
) -> None:
    command = [sys.executable, "-c", HOLDS_A_HEAD]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        address, token = holder.stdout.readline().split()
        joining = {**ray_head.environment, "RAY_ADDRESS": address, "RAY_AUTH_TOKEN": token}
        subprocess.run([sys.executable, "-c", LEAVES_AN_ACTOR], env=joining, check=True, capture_output=True)
        assert len(processes_with(token)) > 3
        holder.send_signal(sent)
        assert holder.wait(timeout=28) == status
    deadline = time.monotonic() + 28
    while processes_with(token) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_with(token) == []
    assert subprocess.run([ray_command(), "job", "list"], env=ray_head.environment, capture_output=True).returncode == 0
