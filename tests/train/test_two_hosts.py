"""A run across two hosts, network namespaces joined by a cable, that loses the cable for a while."""

import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_nodes import RayNodes, ray_nodes
from small_runs import STEPS, Run, pretrain_command, wait_for_steps

from diffclip_dist.train.run_files import FAULTS_FILE

ARGUMENTS = ("--steps", str(STEPS), "--workers", "2")
pytestmark = pytest.mark.slow
FIRST, SECOND = "10.219.77.1", "10.219.77.2"


@dataclass(frozen=True)
class Hosts:
    """Two network namespaces, each with an end of one cable, ``eth0``."""

    names: tuple[str, str]

    def inside(self, host: int) -> list[str]:
        """What to put before a command that is to run there."""
        return ["ip", "netns", "exec", self.names[host]]

    def cable(self, state: str) -> None:
        """Pulls the cable out (``down``) or puts it back (``up``)."""
        subprocess.run([*self.inside(0), "ip", "link", "set", "eth0", state], check=True)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` here to make network namespaces with")
    mark = secrets.token_hex(3)
    hosts = Hosts((f"diffclip-{mark}-a", f"diffclip-{mark}-b"))
    first, second = hosts.names
    with ExitStack() as stack:
        for name in hosts.names:
            _make(["ip", "netns", "add", name])
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        _make(["ip", "link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second])
        for host, address in enumerate((FIRST, SECOND)):
            for command in (
                ["link", "set", "lo", "up"], ["addr", "add", f"{address}/24", "dev", "eth0"],
                ["link", "set", "eth0", "up"],
            ):  # fmt: skip
                _make([*hosts.inside(host), "ip", *command])
        yield hosts


def _make(command: list[str]) -> None:
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this machine forbids hosts of one's own: {' '.join(command)}: {made.stderr.strip()}")


@contextmanager
def running(
    hosts: Hosts, nodes: RayNodes, folder: Path, archive: Path, *settings: str
) -> Iterator["subprocess.Popen[str]"]:
    """A run whose driver is on the first host, from its thirteenth step on."""
    command = [*hosts.inside(0), *pretrain_command(folder, archive, ARGUMENTS, settings)]
    environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        wait_for_steps(run, folder, 13)
        yield run


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with two_hosts() as pair:
        yield pair


@pytest.fixture
def nodes(hosts: Hosts) -> Iterator[RayNodes]:
    """A node of one core on each host."""
    with ray_nodes(FIRST, GLOO_SOCKET_IFNAME="eth0") as cluster:
        cluster.start("first", cores=1, ip=FIRST, inside=hosts.inside(0))
        cluster.start("second", cores=1, ip=SECOND, inside=hosts.inside(1))
        yield cluster


def lines_of(folder: Path) -> int:
    return len((folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.timeout(500)
def test_a_cable_out_for_a_moment_is_only_waited_for(
    hosts: Hosts, nodes: RayNodes, generated_archive: Path, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with running(hosts, nodes, folder, generated_archive, "checkpoint_every=10", "max_failures=0") as run:
        hosts.cable("down")
        time.sleep(0.5)  # what was under way has arrived or is lost
        stood = lines_of(folder)
        time.sleep(2.0)
        assert lines_of(folder) == stood < STEPS, "the run does not need the cable, and the test shows nothing"
        hosts.cable("up")
        out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert Run(0, out, err, folder).losses == undisturbed.losses


@pytest.mark.timeout(600)
def test_a_host_that_was_lost_and_comes_back_is_trained_on_again(
    hosts: Hosts, nodes: RayNodes, generated_archive: Path, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = ("checkpoint_every=10", "max_failures=3", "timeout_s=60")
    with running(hosts, nodes, folder, generated_archive, *settings) as run:
        hosts.cable("down")
        faults = folder / FAULTS_FILE
        deadline = time.monotonic() + 120
        said = ""
        while "lost rank" not in said and time.monotonic() < deadline:
            time.sleep(0.1)
            said = faults.read_text() if faults.exists() else ""
        assert "lost rank" in said
        assert lines_of(folder) < STEPS
        hosts.cable("up")
        nodes.remove("second")  # it has been given up, and is started anew
        nodes.start("second again", cores=1, ip=SECOND, inside=hosts.inside(1))
        out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert Run(0, out, err, folder).losses == undisturbed.losses
