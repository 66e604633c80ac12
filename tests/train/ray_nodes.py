"""A Ray cluster of several nodes on this machine: a raylet each, on loopback or hosts of their own."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from marked_processes import processes_with

from shards.build.parallel import LOOPBACK_ONLY

# `ray start` refuses a second node while Ray is kept to loopback; the class behind it does not
HOLD_A_NODE = """
import signal, sys
from ray._private.node import Node
from ray._private.parameter import RayParams

head, gcs, cores, folder, ip = sys.argv[1] == "head", sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
place = dict(gcs_server_port=int(gcs.split(":")[1]), include_dashboard=False) if head else dict(gcs_address=gcs)
parameters = RayParams(
    node_ip_address=ip, num_cpus=cores, num_gpus=0, object_store_memory=100 * 2**20, min_worker_port=0,
    max_worker_port=0, node_manager_port=0, object_manager_port=0, include_log_monitor=False, temp_dir=folder, **place,
)
node = Node(parameters, head=head, shutdown_at_exit=True, spawn_reaper=True)
print("up", flush=True)
signal.pause()
"""
MARK = "DIFFCLIP_TEST_NODE"


@dataclass
class RayNodes:
    """A cluster; its nodes are named by who starts them.

    Attributes:
        address: of its head.
        environment: of its nodes and whatever joins them.
    """

    address: str
    environment: Mapping[str, str]
    _marks: dict[str, str] = field(default_factory=dict)
    _holders: list[subprocess.Popen[str]] = field(default_factory=list)
    _folders: list[str] = field(default_factory=list)

    def start(
        self, name: str, cores: int, *, ip: str = "127.0.0.1", inside: Sequence[str] = (), **environment: str
    ) -> None:
        """Brings up a node, the first as the head.

        Args:
            name: of the node.
            cores: that Ray believes it has.
            ip: its address.
            inside: a command that runs the node as its last arguments, such as one that enters namespaces.
            environment: of this node alone.
        """
        kind = "worker" if self._marks else "head"
        mark = secrets.token_hex(8)
        folder = tempfile.mkdtemp(prefix="diffclip-ray-")
        self._folders.append(folder)
        self._marks[name] = mark
        holder = subprocess.Popen(
            [*inside, sys.executable, "-c", HOLD_A_NODE, kind, self.address, str(cores), folder, ip],
            env={**self.environment, MARK: mark, **environment}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._holders.append(holder)
        assert holder.stdout is not None
        said = ""
        while said.strip() != "up":
            said = holder.stdout.readline()
            assert said, f"node {name} did not come up"

    def __contains__(self, name: str) -> bool:
        return name in self._marks

    def remove(self, name: str) -> None:
        """Kills every process of a node at once, as when its machine loses power."""
        while alive := self.processes(name):  # one of them may be starting another
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=5)

    def processes(self, name: str, command: str = "") -> list[psutil.Process]:
        """The living processes of a node whose command line holds this text."""
        return processes_with(self._marks[name], command)

    def stop(self) -> None:
        """Takes exactly this cluster down."""
        for name in list(self._marks):
            self.remove(name)
        for holder in self._holders:
            holder.communicate()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_nodes(ip: str = "127.0.0.1", **environment: str) -> Iterator[RayNodes]:
    """An empty cluster whose head will have that address, gone at the end with all that was started on it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{ip}:{free.getsockname()[1]}"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    shared = {
        **plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "2000",
        **(LOOPBACK_ONLY if ip == "127.0.0.1" else {}), **environment,
    }  # fmt: skip
    nodes = RayNodes(address, shared)
    try:
        yield nodes
    finally:
        nodes.stop()
