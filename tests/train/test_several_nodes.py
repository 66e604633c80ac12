"""Runs on a real Ray cluster of several node processes, unmoved by nodes that go."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import RayNodes, ray_nodes
from small_runs import STEPS, Run, pretrain_command, wait_for_steps

from diffclip_dist.train.cluster.driver import cores_per_worker

ARGUMENTS = ("--steps", str(STEPS), "--workers", "2")


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    """A head that only directs."""
    with ray_nodes() as cluster:
        cluster.start("head", cores=0)
        yield cluster


def on(nodes: RayNodes) -> dict[str, str]:
    return {**nodes.environment, "RAY_ADDRESS": nodes.address}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("min_workers", [0, 1], ids=["another node takes over", "fewer workers go on"])
def test_a_node_that_is_lost_leaves_the_loss_curve_as_it_was(
    nodes: RayNodes, generated_archive: Path, undisturbed: Run, tmp_path: Path, min_workers: int
) -> None:
    for name in ("first", "second", "spare")[: 2 if min_workers else 3]:
        nodes.start(name, cores=1)
    folder = tmp_path / "run"
    settings = ("checkpoint_every=10", "max_failures=3", f"min_workers={min_workers}")
    command = pretrain_command(folder, generated_archive, ARGUMENTS, settings)
    with subprocess.Popen(command, env=on(nodes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        wait_for_steps(run, folder, 13)
        busy = [name for name in ("first", "second", "spare") if has_worker(nodes, name)]
        assert len(busy) == 2, "one worker a node"
        nodes.remove(busy[1])
        out, err = run.communicate(timeout=240)
        assert run.returncode == 0, err
    losses = Run(0, out, err, folder).losses
    if min_workers:
        assert losses == pytest.approx(undisturbed.losses, rel=1e-5)
    else:
        assert losses == undisturbed.losses


def has_worker(nodes: RayNodes, name: str) -> bool:
    return name in nodes and bool(nodes.processes(name, "RayTrainWorker"))


@pytest.mark.parametrize(
    ("cores", "most", "workers", "share"),
    [
        ([2.0], [2], 1, 2.0),
        ([2.0], [2], 2, 1.0),
        ([1.0, 1.0], [1, 1], 1, 1.0),  # the whole cluster's cores lie on no node
        ([5.0, 3.0], [9, 9], 3, 2.0),
        ([64.0, 64.0], [8, 8], 16, 8.0),
        ([64.0, 64.0], [1, 1], 2, 64.0),
        ([2.0], [4], 3, 0.6666),
        ([2.0], [1], 2, 0.0),
        ([], [], 1, 0.0),
    ],
)
def test_workers_take_the_largest_share_that_lets_each_lie_on_one_node(
    cores: list[float], most: list[int], workers: int, share: float
) -> None:
    assert cores_per_worker(cores, most, workers) == share
