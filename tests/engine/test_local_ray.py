"""The Ray head of our own: authenticated, separate, and gone when its command ends, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from diffclip_dist.engine.local_ray import LocalRay, ray_command

HOLDS_A_HEAD = """
import sys, time
from shards.commandline import run_command
from diffclip_dist.engine.local_ray import local_ray_head

def main():
    with local_ray_head(cores=1) as head:
        print(head.environment["RAY_AUTH_TOKEN"], flush=True)
        time.sleep(600)
    return 0

sys.exit(run_command(main))
"""


def processes_with_token(token: str) -> list[str]:
    """Command lines of processes whose environment holds the token: those of one head."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and token.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_a_wrong_token_is_refused(ray_head: LocalRay) -> None:
    listing = [ray_command(), "job", "list"]
    known = subprocess.run(listing, env=ray_head.environment, capture_output=True, text=True)
    assert known.returncode == 0, known.stderr
    stranger = {**ray_head.environment, "RAY_AUTH_TOKEN": "0" * 64}
    assert subprocess.run(listing, env=stranger, capture_output=True).returncode != 0


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
