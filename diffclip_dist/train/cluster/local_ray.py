"""Starts a Ray head on loopback with token authentication; it ends with its process and touches no other Ray."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from shards.build.parallel import LOOPBACK_ONLY
from shards.errors import FailedRun

_LOOPBACK: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 120.0
# on SIGTERM Ray waits up to 30 s for the head's workers to return their leases, for the sake of web services behind
# it (https://github.com/ray-project/ray/issues/64181); a run's command stops its head once the run is over
_NO_DRAINING: Final = MappingProxyType({"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"})
# its input ends when the process that started the head has ended, however it ended
_WATCH: Final = "import os, signal, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), signal.SIGTERM)"


@dataclass(frozen=True)
class LocalRay:
    """A running head.

    Attributes:
        address: of the cluster, for ``RAY_ADDRESS``.
        dashboard: where jobs are submitted.
        environment: what a process needs to join or submit: addresses and the token.
    """

    address: str
    dashboard: str
    environment: Mapping[str, str]


def ray_command() -> str:
    """The ``ray`` program of the environment that this Python runs in."""
    return str(Path(sys.executable).parent / "ray")


@contextmanager
def local_ray_head(cores: int | None = None) -> Iterator[LocalRay]:
    """Starts a head, and stops exactly this one at the end.

    Args:
        cores: that Ray believes the machine has; ``None`` counts them.

    Raises:
        FailedRun: it did not come up.
    """
    ports = _free_ports(5)
    head, dashboard, agent, client, metrics = ports
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        **LOOPBACK_ONLY,
        "RAY_ADDRESS": f"{_LOOPBACK}:{head}",
        # jobs start `python`, which must be this one
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_API_SERVER_ADDRESS": f"http://{_LOOPBACK}:{dashboard}",
    }
    # a short path: Ray's sockets lie below it, and their names may have 107 characters
    scratch = tempfile.mkdtemp(prefix="diffclip-ray-")
    command = [
        ray_command(), "start", "--head", "--block", "--disable-usage-stats",
        f"--node-ip-address={_LOOPBACK}", f"--port={head}", f"--temp-dir={scratch}",
        "--include-dashboard=true", f"--dashboard-host={_LOOPBACK}", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        f"--metrics-export-port={metrics}",
        *([] if cores is None else [f"--num-cpus={cores}"]),
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        log = stack.enter_context((Path(scratch) / "head.log").open("w+"))
        process = subprocess.Popen(  # noqa: S603 our own arguments
            command,
            env={name: value for name, value in environment.items() if name != "RAY_ADDRESS"} | dict(_NO_DRAINING),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_stop, process)
        watch = [sys.executable, "-S", "-c", _WATCH, str(process.pid)]
        watcher = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 our own arguments
        stack.callback(_end, watcher)
        _wait_until_up(process, environment, Path(log.name))
        yield LocalRay(environment["RAY_ADDRESS"], environment["RAY_API_SERVER_ADDRESS"], environment)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait_until_up(process: subprocess.Popen[bytes], environment: Mapping[str, str], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    probe = [ray_command(), "job", "list"]
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        listing = subprocess.run(probe, env=environment, capture_output=True, check=False)  # noqa: S603
        if listing.returncode == 0:
            return
        time.sleep(0.5)
    last = log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
    raise FailedRun(f"the local Ray head did not come up: {last[0]}")


def _end(watcher: subprocess.Popen[bytes]) -> None:
    watcher.kill()
    watcher.communicate()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks the head to stop its processes; kills its session if it does not."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
